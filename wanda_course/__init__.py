"""The course's own code: exercises, claims, figures, recorded results, leaderboard, `make run`, running notebooks."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
