"""Exercises of notebook 05: SparseGPT."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch

from wanda.masks import prune_mask

from .types import Exercise, Misconception

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


def zeroed_only(row, hessian, q):
    row = row.clone()
    row[q] = 0
    return row


def moved_along_the_hessian(row, hessian, q):
    return row - row[q] / hessian[q, q] * hessian[:, q]


def moved_the_wrong_way(row, hessian, q):
    inverse = torch.linalg.inv(hessian)
    row = row + row[q] / inverse[q, q] * inverse[:, q]
    row[q] = 0
    return row


def moved_without_dividing(row, hessian, q):
    row = row - row[q] * torch.linalg.inv(hessian)[:, q]
    row[q] = 0
    return row


def multiplied_by_the_entry(row, hessian, q):
    inverse = torch.linalg.inv(hessian)
    return row - row[q] * inverse[q, q] * inverse[:, q]


def divided_by_the_root(row, hessian, q):
    inverse = torch.linalg.inv(hessian)
    row = row - row[q] / inverse[q, q].sqrt() * inverse[:, q]
    row[q] = 0
    return row


def the_move_alone(row, hessian, q):
    inverse = torch.linalg.inv(hessian)
    return -row[q] / inverse[q, q] * inverse[:, q]


def the_price(row, hessian, q):
    return row[q] ** 2 / torch.linalg.inv(hessian)[q, q]


# 05.2 What a weight costs on the way ------------------------------------------------------------------------------------


def prices(weight, hessian):
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)  # [in, in]
    return (weight / factor.diagonal()).square()  # [out, in] / [in]


def prices_cases(generator):
    return [(W, H), (normal(generator, 5, 6), hessian(generator, 6))]


def prices_of_the_full_inverse(weight, hessian):
    return weight.square() / torch.linalg.inv(hessian).diagonal()


def prices_of_the_wrong_factor(weight, hessian):
    return (weight / torch.linalg.cholesky(hessian, upper=True).diagonal()).square()


def prices_without_square(weight, hessian):
    return (weight / torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).diagonal()).abs()


def prices_by_the_plain_pivot(weight, hessian):
    return weight.square() / torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).diagonal()


def prices_multiplied(weight, hessian):
    return (weight * torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).diagonal()).square()


def prices_of_the_columns_before(weight, hessian):
    return (weight * torch.linalg.cholesky(hessian).diagonal()).square()


def prices_without_repair(weight, hessian):
    return weight.square() * hessian.diagonal()


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


def on_the_way(weight, hessian, block, choose):
    """The solution's loop with another choice: choose(columns, slice) -> mask of these columns."""
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    weight = weight.clone()
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        here = slice(start, start + block)
        mask[:, here] = choose(weight[:, here], here, factor)
        for j in range(start, min(start + block, weight.shape[1])):
            weight[:, j:] -= (weight[:, j] * mask[:, j] / factor[j, j])[:, None] * factor[j, j:]
    return weight.masked_fill(mask, 0)


def mask_from_the_dense_weights(weight, hessian, sparsity, block):
    score = weight.abs() * hessian.diagonal().sqrt()
    parts = [prune_mask(part, sparsity) for part in score.split(block, dim=1)]
    return repaired(weight, hessian, torch.cat(parts, dim=1))


def mask_of_whole_rows_first(weight, hessian, sparsity, block):
    return repaired(weight, hessian, prune_mask(weight.abs() * hessian.diagonal().sqrt(), sparsity))


def mask_without_repair(weight, hessian, sparsity, block):
    score = weight.abs() * hessian.diagonal().sqrt()
    parts = [prune_mask(part, sparsity) for part in score.split(block, dim=1)]
    return weight.masked_fill(torch.cat(parts, dim=1), 0)


def mask_by_the_surgeon(weight, hessian, sparsity, block):
    return on_the_way(
        weight,
        hessian,
        block,
        lambda columns, here, factor: prune_mask((columns / factor.diagonal()[here]).abs(), sparsity),
    )


def mask_by_magnitude(weight, hessian, sparsity, block):
    return on_the_way(weight, hessian, block, lambda columns, here, factor: prune_mask(columns.abs(), sparsity))


def mask_across_rows(weight, hessian, sparsity, block):
    norm = hessian.diagonal().sqrt()
    return on_the_way(
        weight, hessian, block, lambda columns, here, _: prune_mask(columns.abs() * norm[here], sparsity, group="layer")
    )


def mask_by_the_squared_norm(weight, hessian, sparsity, block):
    norm = hessian.diagonal()
    return on_the_way(weight, hessian, block, lambda columns, here, _: prune_mask(columns.abs() * norm[here], sparsity))


def repair_divided_by_the_square(weight, hessian, sparsity, block):
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    norm = hessian.diagonal().sqrt()
    weight, mask = weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        here = slice(start, start + block)
        mask[:, here] = prune_mask(weight[:, here].abs() * norm[here], sparsity)
        for j in range(start, min(start + block, weight.shape[1])):
            weight[:, j:] -= (weight[:, j] * mask[:, j] / factor[j, j] ** 2)[:, None] * factor[j, j:]
    return weight.masked_fill(mask, 0)


def repair_within_the_block(weight, hessian, sparsity, block):
    score = weight.abs() * hessian.diagonal().sqrt()
    parts = [prune_mask(part, sparsity) for part in score.split(block, dim=1)]
    return repaired(weight, hessian, torch.cat(parts, dim=1), columns=block)


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


def damped_by_a_constant(hessian, damping):
    dead = hessian.diagonal() == 0
    return hessian + torch.diag(damping + hessian.diagonal()[~dead].mean() * dead)


def damped_in_proportion(hessian, damping):
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    mean = diagonal[~dead].mean()
    return hessian + torch.diag(damping * torch.where(dead, mean, diagonal) + mean * dead)


def damped_everywhere(hessian, damping):
    dead = hessian.diagonal() == 0
    mean = hessian.diagonal()[~dead].mean()
    return hessian + damping * mean + torch.diag(mean * dead)


def damped_with_the_dead_in_the_mean(hessian, damping):
    dead = hessian.diagonal() == 0
    mean = hessian.diagonal().mean()
    return hessian + torch.diag(damping * mean + mean * dead)


def damped_without_the_dead(hessian, damping):
    diagonal = hessian.diagonal()
    mean = diagonal[diagonal != 0].mean()
    return hessian + damping * mean * torch.eye(len(hessian))


def damped_as_in_the_notebook(hessian, damping):
    return hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian))


def damped_only_the_dead(hessian, damping):
    dead = hessian.diagonal() == 0
    mean = hessian.diagonal()[~dead].mean()
    return hessian + torch.diag((1 + damping) * mean * dead)


EXERCISES = [
    Exercise(
        key="05.1",
        title="remove one weight and repair the row",
        cases=remove_one_cases,
        solution=remove_one,
        misconceptions=[
            Misconception(
                zeroed_only,
                "the weight is gone, but the others did not move: this is Wanda's world, without a repair.",
            ),
            Misconception(
                moved_along_the_hessian,
                "you moved the row along a column of H. H says which features go together; how to make up for one of "
                "them is in its inverse.",
            ),
            Misconception(
                moved_the_wrong_way,
                "the other weights move the wrong way, and double the error instead of repairing it: mind the sign.",
            ),
            Misconception(
                moved_without_dividing,
                "the move has the right direction and the wrong length: divided by [H^-1]_qq, it ends where the removed "
                "weight is zero.",
            ),
            Misconception(
                divided_by_the_root,
                "you divided by the root of [H^-1]_qq. The root belongs to the Cholesky factor; here it is the entry "
                "itself.",
            ),
            Misconception(
                multiplied_by_the_entry,
                "you multiplied by [H^-1]_qq. The move has to end where the removed weight is zero: divide by it.",
            ),
            Misconception(the_move_alone, "what you return is the move. The row after the move is wanted."),
            Misconception(the_price, "what you return is the error that is left. The repaired row is wanted."),
        ],
        hints=(
            "Move along column q of the inverse of H, just so far that weight q becomes zero.",
            "row - row[q] / inverse[q, q] * inverse[:, q], in a new tensor.",
        ),
        tolerance=1e-4,
    ),
    Exercise(
        key="05.2",
        title="what a weight costs on the way",
        cases=prices_cases,
        solution=prices,
        misconceptions=[
            Misconception(
                prices_of_the_full_inverse,
                "this is the price if all other weights of the row may still move. Those to the left are fixed by then: "
                "only the columns to the right can help.",
            ),
            Misconception(
                prices_of_the_wrong_factor,
                "you factorised H. The pivots that are wanted are those of the factor of its inverse.",
            ),
            Misconception(
                prices_without_square, "this is the root of the price. The squared error is wanted: (w / U_jj)^2."
            ),
            Misconception(
                prices_by_the_plain_pivot,
                "you squared the weight and not the pivot: U_jj^2 is the entry of the inverse, U_jj is its root.",
            ),
            Misconception(
                prices_multiplied,
                "you multiplied by the pivot. A feature that the later ones imitate well has a large pivot, and is cheap.",
            ),
            Misconception(
                prices_of_the_columns_before,
                "these prices let the columns on the left make up for the loss. They are fixed already; it is those on "
                "the right that may move.",
            ),
            Misconception(
                prices_without_repair, "this is the squared Wanda score: the price if nothing makes up for the loss."
            ),
        ],
        hints=(
            "The squared pivot U_jj^2 is the first diagonal entry of the inverse of H without the columns before j.",
            "factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True), and then (weight / pivots) squared.",
        ),
        tolerance=1e-4,
    ),
    Exercise(
        key="05.3",
        title="Wanda's mask, chosen on the way",
        cases=iterative_wanda_cases,
        solution=iterative_wanda,
        misconceptions=[
            Misconception(
                mask_from_the_dense_weights,
                "your masks are chosen from the weights as they were at the start. By the time a block is reached its "
                "weights have moved: score them then.",
            ),
            Misconception(
                mask_of_whole_rows_first,
                "you chose one mask for whole rows first and repaired afterwards: this is the sequential variant, "
                "update='obs'. Choose block by block.",
            ),
            Misconception(mask_without_repair, "nothing is repaired: the kept weights are those of the dense layer."),
            Misconception(
                mask_by_the_surgeon,
                "you scored with the pivots of the factor, as SparseGPT does. Wanda's norms are wanted.",
            ),
            Misconception(mask_by_magnitude, "you scored by |w| alone. The norm of the feature is missing."),
            Misconception(
                mask_across_rows,
                "the weights of a block compete across all rows, as in SparseGPT. With Wanda each row gives up its own.",
            ),
            Misconception(
                mask_by_the_squared_norm,
                "the diagonal of H holds the squared norms. The score takes the norm: the root is missing.",
            ),
            Misconception(
                repair_divided_by_the_square,
                "you divided by the squared pivot. That goes with a row of the inverse; a row of the factor holds one pivot "
                "already, so the error is divided by U_jj once.",
            ),
            Misconception(
                repair_within_the_block,
                "the repair stops at the end of the block. The columns of all later blocks move as well.",
            ),
        ],
        hints=(
            "The loop of the notebook, with another line for the mask. The norms do not change on the way: they are the "
            "root of the diagonal of H.",
            "Per block: mask[:, here] = prune_mask(weight[:, here].abs() * norm[here], sparsity), then the columns of the "
            "block one by one, each moving everything to its right.",
        ),
        tolerance=1e-4,
    ),
    Exercise(
        key="05.4",
        title="a Hessian that can be inverted",
        cases=with_damping_cases,
        solution=with_damping,
        misconceptions=[
            Misconception(
                damped_by_a_constant,
                "you added the damping itself. H grows with the number of tokens and the size of the features, so it is "
                "given as a share of the mean of the diagonal.",
            ),
            Misconception(
                damped_in_proportion,
                "each feature is damped in proportion to its own diagonal entry. It is the small ones that need support: "
                "all get the same share of the mean.",
            ),
            Misconception(
                damped_everywhere,
                "you added to every entry of the matrix. That makes all features more alike, which is the opposite of "
                "what is needed: only the diagonal grows.",
            ),
            Misconception(
                damped_with_the_dead_in_the_mean,
                "the dead features are counted in the mean and make it too small. Take the mean over those that live.",
            ),
            Misconception(
                damped_without_the_dead,
                "the dead features get nothing of their own. With damping 0 the matrix is still singular; give each of "
                "them the mean as well.",
            ),
            Misconception(
                damped_as_in_the_notebook,
                "this is the notebook's own `damped`, which knows no dead features: they are left out of the mean, and get "
                "something of their own.",
            ),
            Misconception(
                damped_only_the_dead,
                "only the dead features are supported. The living ones may be nearly copies of each other: all are damped.",
            ),
        ],
        hints=(
            "First the mean of the entries of the diagonal that are not zero. Then two things to add to the diagonal.",
            "hessian + torch.diag(damping * mean + mean * dead), with dead = hessian.diagonal() == 0.",
        ),
    ),
]
