"""Exercises of notebook 05: SparseGPT."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch
from torch.linalg import inv

from wanda.masks import prune_mask

from .types import Exercise

# The toy of notebook 05: the layer of the notebooks before it, and six tokens in which features 2 and 4 go together.
W = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]])  # [out, in]
X = torch.tensor(
    [
        [1.0, 2.0, 4.0, 1.0],
        [-1.0, 1.0, 4.0, 0.0],
        [0.0, -1.0, 4.0, -1.0],
        [1.0, -2.0, 4.0, -1.0],
        [0.0, 1.0, -4.0, 1.0],
        [-1.0, 0.0, 4.0, 0.0],
    ]
)  # [tokens, in]
H = X.T @ X  # [in, in]


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator)


def hessian(generator, width):
    """A random Hessian [in, in] of correlated features of different sizes, far from singular."""
    inputs = normal(generator, 4 * width, width) + normal(generator, 4 * width, 1)  # [tokens, in]
    inputs = inputs * torch.linspace(0.5, 2, width)
    return inputs.T @ inputs


# 05.1 Remove one weight and repair the row ------------------------------------------------------------------------------


def remove_one(row, hessian, q):
    inverse = torch.linalg.inv(hessian)  # [in, in]
    row = row - row[q] / inverse[q, q] * inverse[:, q]  # [in]
    row[q] = 0  # it is zero already, but for rounding
    return row


def remove_one_cases(generator):
    return [(W[1], H, 3), (W[1], H, 1), (normal(generator, 6), hessian(generator, 6), 0)]


def moved(row, q, move):
    """The row after a move, with exactly zero at q."""
    row = row + move
    row[q] = 0
    return row


surgeon = Exercise(
    "05.1",
    "remove one weight and repair the row",
    remove_one,
    remove_one_cases,
    hints=(
        "Move along column q of the inverse of H, just so far that weight q becomes zero.",
        "row - row[q] / inverse[q, q] * inverse[:, q], in a new tensor.",
    ),
    wrong=[
        (
            lambda row, h, q: moved(row, q, 0),
            "the weight is removed, but the others did not move: this is what Wanda does, without a repair.",
        ),
        (
            lambda row, h, q: row - row[q] / h[q, q] * h[:, q],
            "you moved the row along a column of H. H says which features are correlated; its inverse says how to "
            "make up for one of them.",
        ),
        (
            lambda row, h, q: moved(row, q, row[q] / inv(h)[q, q] * inv(h)[:, q]),
            "the other weights move the wrong way, and double the error instead of repairing it: check the sign.",
        ),
        (
            lambda row, h, q: moved(row, q, -row[q] * inv(h)[:, q]),
            "the move has the right direction but the wrong length: divided by [H^-1]_qq, it takes the removed weight "
            "to zero.",
        ),
        (
            lambda row, h, q: moved(row, q, -row[q] / inv(h)[q, q].sqrt() * inv(h)[:, q]),
            "you divided by the root of [H^-1]_qq. The root belongs to the Cholesky factor; here, divide by the entry "
            "itself.",
        ),
        (
            lambda row, h, q: row - row[q] * inv(h)[q, q] * inv(h)[:, q],
            "you multiplied by [H^-1]_qq. The move must take the removed weight to zero: divide by it.",
        ),
        (
            lambda row, h, q: -row[q] / inv(h)[q, q] * inv(h)[:, q],
            "you returned the move. The row after the move is wanted.",
        ),
        (
            lambda row, h, q: row[q] ** 2 / inv(h)[q, q],
            "you returned the error that is left. The repaired row is wanted.",
        ),
    ],
    tolerance=1e-4,
)


# 05.2 What a weight costs on the way ------------------------------------------------------------------------------------


def prices(weight, hessian):
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)  # [in, in]
    return (weight / factor.diagonal()).square()  # [out, in] / [in]


def prices_cases(generator):
    return [(W, H), (normal(generator, 5, 6), hessian(generator, 6))]


def pivots(hessian):
    """The diagonal of the factor [in]."""
    return torch.linalg.cholesky(inv(hessian), upper=True).diagonal()


pricing = Exercise(
    "05.2",
    "what a weight costs on the way",
    prices,
    prices_cases,
    hints=(
        "The squared pivot U_jj^2 is the first diagonal entry of the inverse of H without the columns before j.",
        "factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True), and then (weight / pivots) squared.",
    ),
    wrong=[
        (
            lambda w, h: w.square() / inv(h).diagonal(),
            "this is the price if all other weights of the row may still move. Those to the left are fixed by then: "
            "only the columns to the right can help.",
        ),
        (
            lambda w, h: (w / torch.linalg.cholesky(h, upper=True).diagonal()).square(),
            "you factorised H. Take the pivots of the factor of its inverse.",
        ),
        (
            lambda w, h: (w / pivots(h)).abs(),
            "this is the root of the price. The squared error is wanted: (w / U_jj)^2.",
        ),
        (
            lambda w, h: w.square() / pivots(h),
            "you squared the weight and not the pivot: U_jj^2 is the entry of the inverse, U_jj is its root.",
        ),
        (
            lambda w, h: (w * pivots(h)).square(),
            "you multiplied by the pivot. A feature that the later ones imitate well has a large pivot, and is cheap.",
        ),
        (
            lambda w, h: (w * torch.linalg.cholesky(h).diagonal()).square(),
            "these prices let the columns on the left make up for the loss. Those are already fixed; only the columns "
            "on the right may move.",
        ),
        (
            lambda w, h: w.square() * h.diagonal(),
            "this is the squared Wanda score: the price if nothing makes up for the loss.",
        ),
    ],
    tolerance=1e-4,
)


# 05.3 Wanda's mask, chosen on the way -----------------------------------------------------------------------------------


def iterative_wanda(weight, hessian, sparsity, block):
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)  # [in, in]
    norm = hessian.diagonal().sqrt()  # [in]
    weight = weight.clone()
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        here = slice(start, start + block)
        mask[:, here] = prune_mask(weight[:, here].abs() * norm[here], sparsity)  # the weights as they are by now
        for j in range(start, min(start + block, weight.shape[1])):
            error = weight[:, j] * mask[:, j] / factor[j, j]  # [out]
            weight[:, j:] -= error[:, None] * factor[j, j:]
    return weight.masked_fill(mask, 0)


def iterative_wanda_cases(generator):
    return [
        (W, H, 0.5, 2),
        (normal(generator, 6, 8), hessian(generator, 8), 0.5, 4),
        (normal(generator, 4, 8), hessian(generator, 8), 0.25, 4),
        (normal(generator, 12, 12), hessian(generator, 12), 0.5, 4),
    ]


def repaired(weight, hessian, mask, columns=None):
    """The repair for a mask that is known; without moving columns past the end of a block, if `columns` says how wide."""
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    weight = weight.clone()
    for j in range(weight.shape[1]):
        stop = weight.shape[1] if columns is None else (j // columns + 1) * columns
        weight[:, j:stop] -= (weight[:, j] * mask[:, j] / factor[j, j])[:, None] * factor[j, j:stop]
    return weight.masked_fill(mask, 0)


def on_the_way(
    weight, hessian, sparsity, block, score=lambda part, norm, pivot: part.abs() * norm, group="output", power=1
):
    """The solution's loop with another score, another group, or another power of the pivot in the repair."""
    factor = torch.linalg.cholesky(inv(hessian), upper=True)
    norm, pivot = hessian.diagonal().sqrt(), factor.diagonal()
    weight = weight.clone()
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        here = slice(start, start + block)
        mask[:, here] = prune_mask(score(weight[:, here], norm[here], pivot[here]), sparsity, group=group)
        for j in range(start, min(start + block, weight.shape[1])):
            weight[:, j:] -= (weight[:, j] * mask[:, j] / pivot[j] ** power)[:, None] * factor[j, j:]
    return weight.masked_fill(mask, 0)


def dense_mask(weight, hessian, sparsity, block):
    """Wanda's mask, block by block, of the weights as they were at the start."""
    score = weight.abs() * hessian.diagonal().sqrt()
    return torch.cat([prune_mask(part, sparsity) for part in score.split(block, dim=1)], dim=1)


blockwise = Exercise(
    "05.3",
    "Wanda's mask, chosen on the way",
    iterative_wanda,
    iterative_wanda_cases,
    hints=(
        "The loop of the notebook, with another line for the mask. The norms do not change on the way: they are the "
        "root of the diagonal of H.",
        "Per block: mask[:, here] = prune_mask(weight[:, here].abs() * norm[here], sparsity), then the columns of the "
        "block one by one, each moving everything to its right.",
    ),
    wrong=[
        (
            lambda w, h, s, b: repaired(w, h, dense_mask(w, h, s, b)),
            "you chose the masks from the dense weights. By the time a block is reached, its weights have moved: "
            "score them then.",
        ),
        (
            lambda w, h, s, b: repaired(w, h, dense_mask(w, h, s, w.shape[1])),
            "you chose one mask for whole rows first and repaired afterwards: this is the sequential variant, "
            "update='obs'. Choose block by block.",
        ),
        (
            lambda w, h, s, b: w.masked_fill(dense_mask(w, h, s, b), 0),
            "nothing is repaired: the kept weights are those of the dense layer.",
        ),
        (
            lambda *given: on_the_way(*given, score=lambda part, norm, pivot: (part / pivot).abs()),
            "you scored with the pivots of the factor, as SparseGPT does. Wanda's norms are wanted.",
        ),
        (
            lambda *given: on_the_way(*given, score=lambda part, norm, pivot: part.abs()),
            "you scored by |w| alone. The norm of the feature is missing.",
        ),
        (
            lambda *given: on_the_way(*given, group="layer"),
            "the weights of a block compete across all rows, as in SparseGPT. In Wanda, each row is a group of its "
            "own.",
        ),
        (
            lambda *given: on_the_way(*given, score=lambda part, norm, pivot: part.abs() * norm**2),
            "the diagonal of H holds the squared norms. The score takes the norm: the root is missing.",
        ),
        (
            lambda *given: on_the_way(*given, power=2),
            "you divided by the squared pivot. That goes with a row of the inverse; a row of the factor holds one "
            "pivot already, so the error is divided by U_jj once.",
        ),
        (
            lambda w, h, s, b: repaired(w, h, dense_mask(w, h, s, b), columns=b),
            "the repair stops at the end of the block. The columns of all later blocks move as well.",
        ),
    ],
    tolerance=1e-4,
)


# 05.4 A Hessian that can be inverted ------------------------------------------------------------------------------------


def with_damping(hessian, damping):
    diagonal = hessian.diagonal()  # [in]
    dead = diagonal == 0
    mean = diagonal[~dead].mean()
    return hessian + torch.diag(damping * mean + mean * dead)


def with_damping_cases(generator):
    half_dead = hessian(generator, 5)
    half_dead[[1, 3]] = 0
    half_dead[:, [1, 3]] = 0
    return [(half_dead, 0.01), (H, 0.01), (hessian(generator, 4), 0.5), (half_dead, 0.0)]


def dead(hessian):
    """True for a feature that is always zero [in]."""
    return hessian.diagonal() == 0


def living(hessian):
    """The diagonal's entries of the other features."""
    return hessian.diagonal()[~dead(hessian)]


invertible = Exercise(
    "05.4",
    "a Hessian that can be inverted",
    with_damping,
    with_damping_cases,
    hints=(
        "First the mean of the entries of the diagonal that are not zero. Then two things to add to the diagonal.",
        "hessian + torch.diag(damping * mean + mean * dead), with dead = hessian.diagonal() == 0.",
    ),
    wrong=[
        (
            lambda h, d: h + torch.diag(d + living(h).mean() * dead(h)),
            "you added the damping itself. H grows with the number of tokens and the size of the features, so the "
            "damping is a fraction of the diagonal's mean.",
        ),
        (
            lambda h, d: h + d * living(h).mean() + torch.diag(living(h).mean() * dead(h)),
            "you added to every entry of the matrix. That makes all features more alike, the opposite of what is "
            "needed: add to the diagonal only.",
        ),
        (
            lambda h, d: h + torch.diag(d * h.diagonal().mean() + h.diagonal().mean() * dead(h)),
            "the dead features are counted in the mean and make it too small. Take the mean over the live ones.",
        ),
        (
            lambda h, d: h + d * living(h).mean() * torch.eye(len(h)),
            "the dead features get nothing of their own. With damping 0 the matrix is still singular; give each of "
            "them the mean as well.",
        ),
        (
            lambda h, d: h + d * h.diagonal().mean() * torch.eye(len(h)),
            "this is the notebook's own `damped`, which ignores dead features. Leave them out of the mean, and give "
            "them something of their own.",
        ),
        (
            lambda h, d: h + torch.diag((1 + d) * living(h).mean() * dead(h)),
            "you damped only the dead features. The live ones may be near copies of each other: damp them all.",
        ),
    ],
)


@invertible.misconception(
    "each feature is damped in proportion to its own diagonal entry. The small ones need it most: add the same "
    "fraction of the mean to all."
)
def damped_in_proportion(hessian, damping):
    mean = living(hessian).mean()
    own = torch.where(dead(hessian), mean, hessian.diagonal())
    return hessian + torch.diag(damping * own + mean * dead(hessian))
