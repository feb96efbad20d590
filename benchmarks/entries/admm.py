"""ADMM: mask and weights in alternation, towards the layer's least-squares solution.

Boza, arXiv 2401.02938. Under a mask track its zeros count, and its weights do not.
"""

NAME = "ADMM"


def prepare(model, calibration, rules):
    """Options for `wanda.prune`."""
    return {"method": "admm"}
