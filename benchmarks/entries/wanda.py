"""Wanda: each weight times the norm of its input, compared within an output.

S_ij = |W_ij| * ||X_j||_2 (Sun and others, arXiv 2306.11695, equation 1).
"""

NAME = "Wanda"


def score(weight, input_norm):
    """weight [out, in], input_norm [in] -> score [out, in]."""
    return weight.abs() * input_norm
