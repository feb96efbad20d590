"""Exercises of notebook 12: after Wanda."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import math
from itertools import combinations

import torch

import wanda

from .types import Exercise

ROW = torch.tensor([0.8, 1.0, 1.0, 2.0], dtype=torch.float64)


def normal(generator, *shape):
    """A random tensor of ordinary numbers, in float64 as in the notebook."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def related(generator, width, tokens=40):
    """The Hessian [in, in] of inputs whose features have much in common and different sizes."""
    mixing = normal(generator, width, width) + 2 * torch.eye(width, dtype=torch.float64)
    x = normal(generator, tokens, width) @ mixing  # [tokens, in]
    return x.T @ x


def rows_of(score, count):
    """Bool [out, in]: the `count` smallest of each row."""
    return wanda.prune_mask(score, count / score.shape[1])


# 12.b1 The squared error of a row ---------------------------------------------------------------------------------------


def squared_error(weight, new, hessian):
    change = weight - new  # [out, in]
    return (change @ hessian * change).sum(dim=1)  # [out]


def squared_error_cases(generator):
    found = []
    for outputs, width in ((1, 3), (4, 6), (5, 5)):
        weight = normal(generator, outputs, width)
        new = weight.masked_fill(torch.rand(outputs, width, generator=generator) < 0.5, 0)
        found.append((weight, new + 0.1 * (new != 0), related(generator, width)))
    return found


error_of_rows = Exercise(
    "12.b1",
    "the squared error of a row",
    squared_error,
    squared_error_cases,
    hints=(
        "With d the change of one row, the squared change of its output over all tokens is d H dT. No token is needed.",
        "change = weight - new; then (change @ hessian * change).sum(dim=1): the product with H for all rows at once.",
    ),
    wrong=[
        (
            lambda w, new, h: ((w - new).square() * h.diagonal()).sum(dim=1),
            "you used the diagonal of H alone. Two changes in one row also meet each other: 2 d_j d_k H_jk.",
        ),
        (
            lambda w, new, h: squared_error(w, new, h).sqrt(),
            "this is the root. The squared error is wanted.",
        ),
        (
            lambda w, new, h: squared_error(w, new, h).sum(),
            "you added up the rows. Each row has an error of its own.",
        ),
        (
            lambda w, new, h: squared_error(new, 0 * new, h),
            "this is the size of the new output. The error is the size of its change.",
        ),
        (
            lambda w, new, h: squared_error(w, new, h) / squared_error(w, 0 * w, h),
            "this is relative to the size of the output. The squared error itself is wanted.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=6,
)


# 12.b2 The best weights for a mask --------------------------------------------------------------------------------------


def best_weights(row, hessian, mask):
    kept = ~mask
    new = torch.zeros_like(row)
    new[kept] = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ row)
    return new


def best_weights_cases(generator):
    found = [(normal(generator, 4), related(generator, 4), torch.tensor([True, False, False, False]))]
    for width, count in ((6, 3), (8, 5)):
        mask = rows_of(torch.rand(1, width, generator=generator), count)[0]
        found.append((normal(generator, width), related(generator, width), mask))
    return [*found, (normal(generator, 3), related(generator, 3), torch.zeros(3, dtype=torch.bool))]


def added_moves(row, hessian, mask):
    """The moves of single removals, added up."""
    inverse = torch.linalg.inv(hessian)
    moved = row - inverse[:, mask] @ (row[mask] / inverse.diagonal()[mask])
    return moved.masked_fill(mask, 0)


def part_of_the_inverse(row, hessian, mask):
    kept = ~mask
    new = torch.zeros_like(row)
    new[kept] = torch.linalg.inv(hessian)[kept][:, kept] @ hessian[kept] @ row
    return new


least_squares = Exercise(
    "12.b2",
    "the best weights for a mask",
    best_weights,
    best_weights_cases,
    hints=(
        "Set the derivative of the squared error by the kept weights to zero: H_KK v_K = H_K w, a system of as many "
        "equations as there are kept weights.",
        "kept = ~mask; new[kept] = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ row), in a row of zeros.",
    ),
    wrong=[
        (
            lambda row, h, mask: row.masked_fill(mask, 0),
            "the kept weights have not moved. (With H_KK w_K on the right, the solution is w_K again: what the pruned "
            "weights contributed must be in it too, H_K w over all of w.)",
        ),
        (
            lambda row, h, mask: best_weights(row, h, mask)[~mask] if mask.any() else row[:0],
            "you returned the kept weights alone. Put them into a row of full length, with zeros where it is pruned.",
        ),
        (
            added_moves,
            "you added up the moves of single removals. Each of them counts on weights that the others remove: solve for "
            "all kept weights together.",
        ),
        (
            lambda row, h, mask: best_weights(row, h, ~mask) if mask.any() else 0 * row,
            "the mask is inverted: True means pruned.",
        ),
        (
            lambda row, h, mask: 2 * row.masked_fill(mask, 0) - best_weights(row, h, mask),
            "the kept weights move the wrong way: they take over what the pruned ones did.",
        ),
        (
            part_of_the_inverse,
            "you inverted H and took the part of the kept weights. That is not the inverse of H_KK: take the part of H "
            "first, then solve.",
        ),
        (
            lambda row, h, mask: best_weights(row, h, mask) - row.masked_fill(mask, 0),
            "you returned by how much the kept weights move. Add it to the weights.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=12,
)


# 12.b3 What a swap changes ----------------------------------------------------------------------------------------------


def swap_changes(row, pruned, hessian):
    linked = (row * pruned) @ hessian  # [in]
    alone = row.square() * hessian.diagonal()  # [in]
    cost, back = alone + 2 * row * linked, alone - 2 * row * linked
    change = cost[:, None] + back - 2 * row[:, None] * row * hessian  # [in, in]
    return change.masked_fill(pruned[:, None] | ~pruned, torch.inf)


def swap_changes_cases(generator):
    found = []
    for width, count in ((4, 2), (6, 3), (7, 2)):
        pruned = rows_of(torch.rand(1, width, generator=generator), count)[0]
        found.append((normal(generator, width), pruned, related(generator, width)))
    return found


def _changes(row, pruned, hessian, linked=2.0, cross=-2.0, gone=lambda pruned: pruned):
    """`swap_changes` with other factors, or with another d."""
    c, alone = (row * gone(pruned)) @ hessian, row.square() * hessian.diagonal()
    change = (alone + linked * row * c)[:, None] + alone - linked * row * c
    return (change + cross * row[:, None] * row * hessian).masked_fill(pruned[:, None] | ~pruned, torch.inf)


swapping = Exercise(
    "12.b3",
    "what a swap changes",
    swap_changes,
    swap_changes_cases,
    hints=(
        "The formula above, for all pairs at once: a column vector for the weight to prune, a row vector for the one to "
        "restore, and a matrix for the two together.",
        "linked = (row * pruned) @ hessian; alone = row.square() * hessian.diagonal(); cost = alone + 2 * row * linked; back "
        "= alone - 2 * row * linked; cost[:, None] + back - 2 * row[:, None] * row * hessian; then infinity where the row "
        "index is pruned or the column index is not.",
    ),
    wrong=[
        (
            lambda row, pruned, h: swap_changes(row, pruned, h).T,
            "rows and columns are exchanged: the row says which weight is pruned, the column which comes back.",
        ),
        (
            lambda row, pruned, h: _changes(row, pruned, h, cross=0.0),
            "you added the two changes as if they did not meet. If both features move together, what one takes away the "
            "other gives back: -2 w_k w_u H_ku.",
        ),
        (
            lambda row, pruned, h: _changes(row, pruned, h, cross=2.0),
            "the last term has the wrong sign: one weight leaves the row, the other comes back.",
        ),
        (
            lambda row, pruned, h: _changes(row, pruned, h, linked=0.0),
            "you forgot what is missing already. The error of the row is not zero before the swap: c = d H.",
        ),
        (
            lambda row, pruned, h: _changes(row, pruned, h, linked=1.0),
            "a factor 2 is missing before w c.",
        ),
        (
            lambda row, pruned, h: _changes(row, pruned, h, cross=-1.0),
            "a factor 2 is missing in the last term: -2 w_k w_u H_ku. The two weights meet twice in d H dT.",
        ),
        (
            lambda row, pruned, h: _changes(row, pruned, h, gone=torch.logical_not),
            "your d holds the kept weights. It is what the row has lost: the pruned weights, and zeros elsewhere.",
        ),
        (
            lambda row, pruned, h: swap_changes(row, pruned, h).nan_to_num(posinf=0.0),
            "pairs that are no swap must be infinite: a 0 there would be the best change whenever no swap helps.",
        ),
    ],
    difficulty=2,
    importance=3,
    minutes=15,
)


# 12.b4 Choose and solve in turn -----------------------------------------------------------------------------------------


def alternate(weight, hessian, count, steps):
    inverse = torch.linalg.inv(hessian + torch.eye(len(hessian), dtype=hessian.dtype))  # [in, in]
    current, dual = weight, torch.zeros_like(weight)
    for _ in range(steps):
        wanted = current + dual  # [out, in]
        mask = wanda.prune_mask(wanted.abs(), count / weight.shape[1])
        kept = wanted.masked_fill(mask, 0)
        dual = wanted - kept
        current = weight + (kept - dual - weight) @ inverse
    return current.masked_fill(mask, 0)


def alternate_cases(generator):
    found = []
    for outputs, width, count, steps in ((2, 4, 2, 1), (3, 6, 3, 5), (4, 8, 5, 12), (16, 12, 5, 2)):
        hessian = related(generator, width)
        norm = hessian.diagonal().sqrt()
        found.append((normal(generator, outputs, width), hessian / norm / norm[:, None], count, steps))
    level = torch.ones(1, 4, dtype=torch.float64)  # of equal entries the first are pruned
    wide = torch.tensor([[1, -1, 1, 1, 2, 1, 1, -1] * 3], dtype=torch.float64)  # in a wide row as well
    unrelated = [torch.eye(width, dtype=torch.float64) for width in (4, 24)]
    return [*found, (level, unrelated[0], 2, 1), (wide, unrelated[1], 5, 1)]


def of_the_whole_layer(score, count):
    """Bool [out, in]: as many as `rows_of`, but the smallest of all rows together."""
    return wanda.prune_mask(score, count / score.shape[1], group="layer")


def _alternating(
    weight,
    hessian,
    count,
    steps,
    fixed=False,
    choose=rows_of,
    remember=lambda dual, current, kept: dual + current - kept,
    penalty=1.0,
    target=lambda kept, dual: kept - dual,
    from_current=False,
    result=lambda current, kept, mask: current.masked_fill(mask, 0),
):
    """`alternate`, with one part left out or changed."""
    inverse = torch.linalg.inv(hessian + penalty * torch.eye(len(hessian), dtype=hessian.dtype))
    current, dual, mask = weight, torch.zeros_like(weight), None
    for _ in range(steps):
        wanted = current + dual
        mask = mask if fixed and mask is not None else choose(wanted.abs(), count)
        kept = wanted.masked_fill(mask, 0)
        dual = remember(dual, current, kept)
        start = current if from_current else weight
        current = start + (target(kept, dual) - start) @ inverse
    return result(current, kept, mask)


def remembered_last(weight, hessian, count, steps):
    inverse = torch.linalg.inv(hessian + torch.eye(len(hessian), dtype=hessian.dtype))
    current, dual = weight, torch.zeros_like(weight)
    for _ in range(steps):
        mask = rows_of((current + dual).abs(), count)
        kept = (current + dual).masked_fill(mask, 0)
        current = weight + (kept - dual - weight) @ inverse
        dual = dual + current - kept
    return current.masked_fill(mask, 0)


alternating = Exercise(
    "12.b4",
    "choose and solve in turn",
    alternate,
    alternate_cases,
    hints=(
        "Three lines in a loop: choose from current + dual; the dual is what the choice takes away; solve, pulled towards "
        "kept - dual.",
        "wanted = current + dual; mask = wanda.prune_mask(wanted.abs(), count / weight.shape[1]); kept = wanted.masked_fill(mask, 0); dual = wanted - "
        "kept; current = weight + (kept - dual - weight) @ inverse, with inverse = (H + I)^-1. At the end current, with zeros "
        "where the mask is True.",
    ),
    wrong=[
        (
            lambda *given: _alternating(*given, remember=lambda dual, current, kept: dual),
            "the dual stays zero, so nothing remembers how often the two steps have disagreed: dual = wanted - kept.",
        ),
        (
            lambda *given: _alternating(*given, fixed=True),
            "your mask never changes: it is chosen once, or without the dual. Choose it anew in every round, from current + dual.",
        ),
        (
            lambda *given: _alternating(*given, result=lambda current, kept, mask: current),
            "you returned the dense solution of the last round. Put zeros where the last step chose them.",
        ),
        (
            lambda *given: _alternating(*given, target=lambda kept, dual: kept),
            "the solution is pulled towards kept - dual, not towards kept: the dual is what makes the two steps agree.",
        ),
        (
            lambda *given: _alternating(*given, penalty=0.0),
            "the penalty is missing in the inverse: it is that of H + I.",
        ),
        (
            lambda weight, hessian, count, steps: alternate(weight, hessian, count, steps + 1),
            "that is one round too many.",
        ),
        (
            remembered_last,
            "you remember after solving. The dual is what the choice of this round takes away, and the solution is "
            "pulled towards kept - dual with it: choose, remember, solve.",
        ),
        (
            lambda *given: _alternating(*given, remember=lambda dual, current, kept: dual + kept - current),
            "the dual has the wrong sign. It adds up what the choices take away: wanted - kept.",
        ),
        (
            lambda *given: _alternating(*given, from_current=True),
            "you solve from the current matrix. The solution has to stay close to the dense weight W, in every round.",
        ),
        (
            lambda *given: _alternating(*given, choose=of_the_whole_layer),
            "you chose among all rows at once. Each row has `count` zeros: choose row by row.",
        ),
        (
            lambda *given: _alternating(*given, result=lambda current, kept, mask: kept),
            "you returned what the last step chose, before it was solved for. Return the last solution, with zeros "
            "where that step chose them.",
        ),
    ],
    difficulty=3,
    importance=3,
    minutes=20,
)


# 12.1 The best mask of a row --------------------------------------------------------------------------------------------


def best_mask(row, hessian, count):
    tried = []
    for places in combinations(range(len(row)), count):
        mask = torch.zeros(len(row), dtype=torch.bool)
        mask[list(places)] = True
        removed = row * mask  # [in]
        tried.append((float(removed @ hessian @ removed), mask))
    return min(tried, key=lambda pair: pair[0])[1]


def best_mask_cases(generator):
    sizes = ((4, 2), (6, 3), (7, 2), (7, 4), (5, 1))
    opposed = torch.eye(4, dtype=torch.float64)
    opposed[1, 2] = opposed[2, 1] = -0.95  # features 2 and 3 cancel: together they cost least
    alike = opposed.clone()
    alike[1, 2] = alike[2, 1] = 0.0
    alike[0, 1] = alike[1, 0] = 0.9  # features 1 and 2 add up: together they cost most
    trap = torch.eye(
        4, dtype=torch.float64
    )  # no swap helps from the mask of the two smallest, yet another pair is best
    trap[2, 3] = trap[3, 2] = -0.95
    made = [
        (row, h, 2)
        for row, h in (
            (torch.tensor([0.8, 0.9, 1.0, 1.0], dtype=torch.float64), trap),
            (ROW, opposed),
            (ROW + 0.2 * torch.tensor([1.0, 0.25, 0.5, 0.0]), alike),
        )
    ]
    return made + [(normal(generator, width), related(generator, width), count) for width, count in sizes]


def one_by_one(row, hessian, count):
    mask = torch.zeros(len(row), dtype=torch.bool)
    for _ in range(count):
        cost = row.square() * hessian.diagonal() + 2 * row * ((row * mask) @ hessian)
        mask[cost.masked_fill(mask, torch.inf).argmin()] = True
    return mask


def downhill(row, hessian, count):
    mask = rows_of((row.abs() * hessian.diagonal().sqrt())[None], count)[0]
    while (change := swap_changes(row, mask, hessian)).min() < 0:
        k, u = divmod(int(change.argmin()), len(row))
        mask[k], mask[u] = True, False
    return mask


def best_when_solved(row, hessian, count):
    def error(mask):
        change = row - best_weights(row, hessian, mask)
        return float(change @ hessian @ change)

    masks = [torch.zeros(len(row), dtype=torch.bool) for _ in combinations(range(len(row)), count)]
    for mask, places in zip(masks, combinations(range(len(row)), count), strict=True):
        mask[list(places)] = True
    return min(masks, key=error)


brute_force = Exercise(
    "12.1",
    "the best mask of a row",
    best_mask,
    best_mask_cases,
    hints=(
        "itertools.combinations(range(n), count) gives every choice of places. No weight is changed, so d holds the pruned "
        "weights, and the error is d H dT.",
        "For each choice: a bool mask, removed = row * mask, error = removed @ hessian @ removed. Return the mask of the "
        "smallest.",
    ),
    wrong=[
        (
            lambda row, h, count: rows_of(row.abs()[None], count)[0],
            "these are the smallest weights. Measure the error of each choice with H.",
        ),
        (
            lambda row, h, count: rows_of((row.abs() * h.diagonal().sqrt())[None], count)[0],
            "this is Wanda's mask: it adds up what each removal costs by itself. Measure the choices as a whole, d H dT.",
        ),
        (
            one_by_one,
            "you removed one weight after the other, each time the cheapest. The best choice of two need not contain the "
            "best choice of one: try all.",
        ),
        (
            downhill,
            "a swap can only go downhill and may stop before the best mask: try all choices.",
        ),
        (
            best_when_solved,
            "this mask is the best when the kept weights are solved for. Here no weight may change.",
        ),
        (
            lambda row, h, count: ~best_mask(row, h, count),
            "the mask is inverted: True means pruned.",
        ),
    ],
    difficulty=1,
    importance=2,
    minutes=10,
)


# 12.2 A swap inside four --------------------------------------------------------------------------------------------------


def best_swap_of_four(row, pruned, hessian):
    change = swap_changes(row, pruned, hessian)  # [in, in]
    group = torch.arange(len(row)) // 4
    change = change.masked_fill(group[:, None] != group, torch.inf)
    place = int(change.argmin())
    k, u = divmod(place, len(row))
    return (float(change[k, u]), k, u) if change[k, u] < 0 else (0.0, -1, -1)


def best_swap_cases(generator):
    found = []
    for width in (4, 8, 12, 12):
        row, hessian = normal(generator, width), related(generator, width)
        found.append((row, rows_of(row.abs().reshape(-1, 4), 2).reshape(-1), hessian))
    row, hessian = normal(generator, 8), related(generator, 8)
    pruned = rows_of(row.abs().reshape(-1, 4), 2).reshape(-1)
    while (swap := best_swap_of_four(row, pruned, hessian))[1] >= 0:
        pruned[swap[1]], pruned[swap[2]] = True, False
    close = torch.eye(8, dtype=torch.float64)
    for (i, j), value in {(1, 2): 0.3, (1, 3): -0.2, (2, 3): 0.5, (2, 4): -0.3}.items():
        close[i, j] = close[j, i] = value  # weights 2 and 4 are near, but in two groups
    ones = torch.ones(8, dtype=torch.float64)
    fours = (ones, torch.tensor([False, False, True, True] * 2), close)
    stuck = (row, pruned, hessian)  # no swap helps any more
    return [*found, stuck, fours, (*fours[:2], 1e-4 * close)]  # at last, one that helps a little


def _any_swap(row, pruned, hessian, group=None, always=False):
    change = swap_changes(row, pruned, hessian)
    if group is not None:
        change = change.masked_fill(group[:, None] != group, torch.inf)
    k, u = divmod(int(change.argmin()), len(row))
    return (float(change[k, u]), k, u) if always or change[k, u] < 0 else (0.0, -1, -1)


def four_by_four(row, pruned, hessian):
    best = (0.0, -1, -1)
    for start in range(0, len(row), 4):
        four = slice(start, start + 4)
        change, k, u = best_swap_of_four(row[four], pruned[four], hessian[four, four])
        best = min(best, (change, start + k, start + u), key=lambda swap: swap[0])
    return best


def counted_within_the_group(row, pruned, hessian):
    change, k, u = best_swap_of_four(row, pruned, hessian)
    return (change, k % 4, u % 4) if change < 0 else (change, k, u)


in_fours = Exercise(
    "12.2",
    "a swap inside four",
    best_swap_of_four,
    best_swap_cases,
    hints=(
        "swap_changes has all pairs. Which of them stay within four consecutive inputs? Input j belongs to group j // 4.",
        "group = torch.arange(n) // 4; change.masked_fill(group[:, None] != group, torch.inf); divmod(int(change.argmin()), n) "
        "is the pair. If its change is not negative, (0.0, -1, -1).",
    ),
    wrong=[
        (
            lambda row, pruned, h: _any_swap(row, pruned, h),
            "your swap leaves its group of four, and the row would no longer be 2:4.",
        ),
        (
            lambda row, pruned, h: _any_swap(row, pruned, h, torch.arange(len(row)) // 4, always=True),
            "you take the best swap even if it makes the error larger. Then it should be (0.0, -1, -1).",
        ),
        (
            lambda row, pruned, h: _any_swap(row, pruned, h, torch.arange(len(row)) % 4),
            "j % 4 is a weight's place in its group. The group is j // 4.",
        ),
        (
            lambda row, pruned, h: (lambda change, k, u: (change, u, k))(*best_swap_of_four(row, pruned, h)),
            "k and u are exchanged: first the weight to prune, then the one that comes back.",
        ),
        (
            lambda row, pruned, h: (lambda change, k, u: (-change, k, u))(*best_swap_of_four(row, pruned, h)),
            "the sign is wrong: a swap that helps lowers the error, so its change is negative.",
        ),
        (
            four_by_four,
            "you cut H down to the group before you computed the changes. The weights that are pruned in other groups "
            "are part of the error: take all of the row, then forbid swaps between groups.",
        ),
        (
            counted_within_the_group,
            "your places count within the group. Return places in the row: add four for each group before.",
        ),
    ],
    difficulty=2,
    importance=2,
    minutes=12,
)


# 12.3 The zeros come gradually ------------------------------------------------------------------------------------------


def pruned_by_then(count, step, steps):
    return round(count * (1 - (1 - step / steps) ** 3))


def pruned_by_then_cases(generator):
    return [(288, 1, 15), (288, 5, 15), (288, 14, 15), (288, 15, 15), (768, 3, 10), (10, 1, 4), (7, 2, 3), (12, 1, 3)]


ramp = Exercise(
    "12.3",
    "the zeros come gradually",
    pruned_by_then,
    pruned_by_then_cases,
    hints=(
        "At step 0 it would be none, at the last step all. In between, what is still to be pruned shrinks like a cube.",
        "round(count * (1 - (1 - step / steps) ** 3)).",
    ),
    wrong=[
        (
            lambda count, step, steps: round(count * step / steps),
            "the zeros come in a straight line. What is left to prune should shrink with the third power.",
        ),
        (
            lambda count, step, steps: round(count * (step / steps) ** 3),
            "you start slowly and end fast. The formula is the other way round: most zeros come early.",
        ),
        (
            lambda count, step, steps: int(count * (1 - (1 - step / steps) ** 3)),
            "int() truncates; round to the nearest number.",
        ),
        (
            lambda count, step, steps: math.ceil(count * (1 - (1 - step / steps) ** 3)),
            "you round up; round to the nearest number.",
        ),
        (
            lambda count, step, steps: pruned_by_then(count, step - 1, steps),
            "your steps count from 0. The first step is 1, and the last one, `steps`, has all zeros.",
        ),
        (
            lambda count, step, steps: count - pruned_by_then(count, step, steps),
            "this is what is still to be pruned.",
        ),
    ],
    difficulty=1,
    importance=1,
    minutes=5,
)


# 12.4 On the text it saw, and on another --------------------------------------------------------------------------------


def seen_and_unseen(weight, new, seen, unseen):
    def relative(hessian):
        return float(
            (squared_error(weight, new, hessian).sum() / squared_error(weight, 0 * weight, hessian).sum()).sqrt()
        )

    return relative(seen), relative(unseen)


def seen_and_unseen_cases(generator):
    found = []
    for outputs, width in ((1, 3), (4, 6), (6, 4)):
        weight = normal(generator, outputs, width) * torch.linspace(0.1, 3, outputs, dtype=torch.float64)[:, None]
        new = weight.masked_fill(torch.rand(outputs, width, generator=generator) < 0.4, 0)
        found.append((weight, new, related(generator, width), 0.3 * related(generator, width)))
    return found


def mean_of_rows(weight, new, hessian):
    """The relative error of each row, averaged."""
    return float((squared_error(weight, new, hessian) / squared_error(weight, 0 * weight, hessian)).sqrt().mean())


def _relative(weight, new, hessian, of=None, root=True, rows=False):
    error, size = squared_error(weight, new, hessian), squared_error(weight, 0 * weight, hessian if of is None else of)
    share = (error / size).mean() if rows else error.sum() / size.sum()
    return float(share.sqrt() if root else share)


transfer = Exercise(
    "12.4",
    "on the text it saw, and on another",
    seen_and_unseen,
    seen_and_unseen_cases,
    hints=(
        "squared_error gives the squared change of each row's output. What gives the squared size of the dense output?",
        "For each Hessian: (squared_error(weight, new, H).sum() / squared_error(weight, zeros, H).sum()).sqrt(), as a float.",
    ),
    wrong=[
        (
            lambda w, new, a, b: (_relative(w, new, a, root=False), _relative(w, new, b, root=False)),
            "the root is missing: the norm of the change over the norm of the output.",
        ),
        (
            lambda w, new, a, b: (_relative(w, new, a, rows=True), _relative(w, new, b, rows=True)),
            "you averaged the ratios of the rows. One ratio for the layer: all rows together, above and below.",
        ),
        (
            lambda w, new, a, b: (mean_of_rows(w, new, a), mean_of_rows(w, new, b)),
            "you averaged the relative errors of the rows, each with a root of its own. Add up the squares of all rows "
            "first, above and below; then one ratio and one root.",
        ),
        (
            lambda w, new, a, b: (_relative(w, new, a), _relative(w, new, b, of=a)),
            "you divided the second error by the size of the output on the first text. Each text has its own.",
        ),
        (
            lambda w, new, a, b: (_relative(w, new, a), _relative(w, new, a)),
            "both numbers are from the text that the weights were fitted to. The second one is for `unseen`.",
        ),
        (
            lambda w, new, a, b: (_relative(w, new, b), _relative(w, new, a)),
            "the two are exchanged: first the text it saw.",
        ),
    ],
    difficulty=1,
    importance=3,
    minutes=8,
)
