"""Editions of the notebooks, all written from the one source: to work in, to hand out, to grade."""

from .build import build_edition, piece, with_function
from .command import main, write

__all__ = ["build_edition", "main", "piece", "with_function", "write"]
