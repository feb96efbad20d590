"""Magnitude pruning: the smallest weights of each layer. No data.

S_ij = |W_ij|, compared over the whole layer (Han and others, arXiv 1506.02626, section 3).
"""

NAME = "Magnitude"


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    return {"method": "magnitude"}
