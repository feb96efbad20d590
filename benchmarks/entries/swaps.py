"""SparseSwaps: Wanda's mask, then pairs of a pruned and a kept weight change places as long as the layer's error falls.

The gain of a swap is exact, from H = sum of x xT alone (arXiv 2512.10922; the formula stands in wanda_course/swaps.py).
"""

from wanda_course import swaps

NAME = "Swaps"


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    return {name: value for name, value in swaps.options("swaps", rules.pattern).items() if name != "pattern"}
