"""Wanda's mask, then SparseGPT's repair of the kept weights: the sequential update of the Wanda paper.

Sun and others, arXiv 2306.11695, section 5.
"""

NAME = "Wanda, repaired"


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    return {"method": "wanda", "update": "obs"}
