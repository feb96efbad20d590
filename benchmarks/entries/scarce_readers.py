"""Scarce readers: Wanda's score, raised for inputs whose weights are small.

S_ij = |W_ij| * ||X_j||_2 / (rms_k |W_kj|)^(1/4). An input with only small weights keeps some of its readers, as in RIA's share
of the column, but the norm keeps its full power and the rows compare within themselves.
"""

NAME = "Scarce readers"


def score(weight, input_norm):
    """weight [out, in], input_norm [in] -> score [out, in]."""
    column = weight.square().mean(dim=0).clamp(min=1e-30)  # [in]
    return weight.abs() * input_norm / column**0.125
