"""SparseGPT: prune column by column, and repair the weights to the right with an optimal-brain-surgeon update.

Frantar and Alistarh, arXiv 2301.00774, algorithm 1. Under a mask track its zeros count, and its repair does not.
"""

NAME = "SparseGPT"


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    return {"method": "sparsegpt"}
