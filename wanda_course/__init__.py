"""What only the course needs: exercises, claims, figures, recorded results, the leaderboard, `make run`, running notebooks."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
