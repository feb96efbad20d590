"""Scores, one per weight: functions (weight [out, in], input_norm [in]) -> score [out, in]. Pure tensors.

A score of your own has the same signature: `wanda.prune(model, calibration, method=my_score)`.
"""


def magnitude(weight, input_norm=None):
    """|W|. The inputs are not used.

    Source: Han et al., arXiv 1506.02626; the baseline of the Wanda paper.
    """
    return weight.abs()  # [out, in]


def wanda(weight, input_norm):
    """|W| times the L2 norm of the input feature that the weight multiplies.

    Args:
        weight: Tensor [out, in].
        input_norm: Tensor [in], the L2 norm of each input feature over the calibration tokens.

    Source: Wanda (arXiv 2306.11695), equation 1.
    """
    return weight.abs() * input_norm  # [out, in] * [in]


SCORES = {"magnitude": magnitude, "wanda": wanda}
