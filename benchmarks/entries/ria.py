"""RIA: the share of a weight in its row and in its column, times the root of its input's norm.

S_ij = (|W_ij| / sum_k |W_ik| + |W_ij| / sum_k |W_kj|) * ||X_j||_2 ^ a, with a = 1/2 (Zhang and others, ICLR 2024, "Plug-and-Play:
An Efficient Post-training Pruning Method for Large Language Models"). As in the authors' code, all weights of a
layer compete, unless a pattern sets the groups. Their permutation of channels for N:M is not done.
"""

NAME = "RIA"
POWER = 0.5


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    return {"method": relative_importance} | ({} if rules.pattern else {"group": "layer"})


def relative_importance(weight, input_norm):
    """weight [out, in], input_norm [in] -> score [out, in]."""
    size = weight.abs()
    of_row = size / size.sum(dim=1, keepdim=True)  # [out, in]
    of_column = size / size.sum(dim=0)  # [out, in]
    return (of_row + of_column) * input_norm**POWER
