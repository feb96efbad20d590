"""Exercises of notebook 05: SparseGPT."""

# ruff: noqa: D103 (a wrong idea is explained by its diagnosis, a solution by the notebook)

import torch
from torch.linalg import inv

from wanda.masks import prune_mask

from .types import Exercise

# The toy of notebook 05: the layer of the notebooks before it, and six tokens in which features 2 and 4 go together.
# In float64, as in the notebook. LARGE makes a rounding error visible where an exact zero is wanted.
LARGE = 1e8
W = torch.tensor([[0.9, -0.4, 0.1, 0.6], [-0.2, 0.8, 0.3, -0.5], [0.7, 0.05, -0.6, 0.4]]).double()  # [out, in]
X = torch.tensor(
    [
        [1.0, 2.0, 4.0, 1.0],
        [-1.0, 1.0, 4.0, 0.0],
        [0.0, -1.0, 4.0, -1.0],
        [1.0, -2.0, 4.0, -1.0],
        [0.0, 1.0, -4.0, 1.0],
        [-1.0, 0.0, 4.0, 0.0],
    ]
).double()  # [tokens, in]
H = X.T @ X  # [in, in]


def normal(generator, *shape):
    """A random tensor of ordinary numbers."""
    return torch.randn(*shape, generator=generator).double()


def hessian(generator, width):
    """A random Hessian [in, in] of correlated features of different sizes, far from singular."""
    inputs = normal(generator, 4 * width, width) + normal(generator, 4 * width, 1)  # [tokens, in]
    inputs = inputs * torch.linspace(0.5, 2, width).double()
    return inputs.T @ inputs


# 05.b1 Remove one weight and repair the row ----------------------------------------------------------------------------


def remove_one(row, hessian, q):
    inverse = torch.linalg.inv(hessian)  # [in, in]
    row = row - row[q] / inverse[q, q] * inverse[:, q]  # [in], a new tensor
    row[q] = 0  # it is zero already, but for rounding
    return row


ROUNDED = (0.3, 0.5, 0.6, 1.0)  # divided by 1/49 and multiplied by it, these times LARGE do not come back


def remove_one_cases(generator):
    large = LARGE * normal(generator, 9)
    wide = hessian(generator, 9)
    alone = torch.diag(torch.tensor([49.0, 3.0, 4.0]).double())  # no two features have anything to do with each other
    return [
        (W[1], H, 3),
        (W[1], H, 1),
        (normal(generator, 6), hessian(generator, 6), 0),
        *((large, wide, q) for q in (0, 3, 4, 8)),
        *((LARGE * torch.tensor([w, 0.5, 2]).double(), alone, 0) for w in ROUNDED),
    ]


def moved(row, q, move):
    """The row after a move, with exactly zero at q."""
    row = row + move
    row[q] = 0
    return row


def move_right(row, q, column):
    """The row after a move of the weights from q on, along a column [in - q] of an inverse."""
    row = row.clone()
    row[q:] -= row[q] / column[0] * column
    row[q] = 0
    return row


surgeon = Exercise(
    "05.b1",
    "remove one weight and repair the row",
    remove_one,
    remove_one_cases,
    hints=(
        "Move along column q of the inverse of H, just so far that weight q becomes zero.",
        "row - row[q] / inverse[q, q] * inverse[:, q], in a new tensor; then set its entry q to 0.",
    ),
    wrong=[
        (
            lambda row, h, q: moved(row, q, 0),
            "the weight is removed, but the others did not move: this is what Wanda does, without a repair.",
        ),
        (
            lambda row, h, q: moved(row, q, -row[q] / h[q, q] * h[:, q]),
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
        (
            lambda row, h, q: row - row[q] / inv(h)[q, q] * inv(h)[:, q],
            "the weight at q is zero but for rounding. A pruned weight is exactly zero: set it.",
        ),
        (
            lambda row, h, q: move_right(row, q, inv(h[q:, q:])[:, 0]),
            "only the weights to the right of q have moved. That order comes later in the notebook; here all the "
            "others may move, so take the inverse of the whole H.",
        ),
        (
            lambda row, h, q: move_right(row, q, inv(h)[q:, q]),
            "you took the right move and gave it only to the weights to the right of q. All the others move here, "
            "those on the left as well.",
        ),
        (
            lambda row, h, q: remove_one(row.float(), h.float(), q).double(),
            "you computed in float32. The row is float64: stay in its dtype.",
        ),
    ],
    tolerance=1e-10,
    difficulty=1,
    importance=3,
    minutes=10,
)


# 05.1 Remove several weights, one at a time -----------------------------------------------------------------------------


def remove_cheapest(row, hessian, count):
    row, left = row.clone(), list(range(len(row)))
    for _ in range(count):
        inverse = torch.linalg.inv(hessian[left][:, left])  # [left, left]
        cheapest = int((row[left].square() / inverse.diagonal()).argmin())  # a place among those left
        move = row[left][cheapest] / inverse[cheapest, cheapest] * inverse[:, cheapest]  # [left]
        row[left] -= move
        row[left.pop(cheapest)] = 0
    return row


def remove_cheapest_cases(generator):
    return [
        (W[1], H, 2),
        (W[0], H, 1),
        (normal(generator, 6), hessian(generator, 6), 3),
        (LARGE * normal(generator, 9), hessian(generator, 9), 5),
        (W[2], H, 0),
        (torch.tensor([1.0, 3.0]).double(), torch.tensor([[1.0, 0.0], [0.0, 0.2]]).double(), 1),  # prices 1 and 1.8
        (normal(generator, 3), hessian(generator, 3), 3),
        (normal(generator, 7), hessian(generator, 7), 4),
        *((torch.tensor(weights).double(), twins(generator), 3) for weights in PAIRED),
    ]


PAIRED = ([0.5, 0.6, 0.4, 0.5, 0.7, 0.9], [0.3, -0.7, 0.8, 0.4, -0.5, 0.2], [-0.4, 0.5, 0.9, -0.8, 0.6, 0.7])


def twins(generator):
    """A random Hessian [6, 6] of three pairs of features that are nearly alike."""
    inputs = normal(generator, 30, 3).repeat(1, 2) + 0.3 * normal(generator, 30, 6)  # [tokens, in]
    return inputs.T @ inputs


def one_by_one(row, hessian, count, price=None, repairs=True, zeros=True):
    """The solution with another price, without a repair, or without setting zeros."""
    row, left = row.clone(), list(range(len(row)))
    for _ in range(count):
        inverse = inv(hessian[left][:, left])
        prices = row[left].square() / inverse.diagonal() if price is None else price(row, hessian, left)
        q = int(prices.argmin())
        if repairs:
            row[left] -= row[left][q] / inverse[q, q] * inverse[:, q]
        place = left.pop(q)
        row[place] = 0 if zeros or not repairs else row[place]
    return row


def by_first_prices(row, hessian, count):
    """One weight at a time, in the order of the dense row's prices."""
    left, order = list(range(len(row))), (row.square() / inv(hessian).diagonal()).argsort()[:count].tolist()
    row = row.clone()
    for place in order:
        inverse, q = inv(hessian[left][:, left]), left.index(place)
        row[left] -= row[left][q] / inverse[q, q] * inverse[:, q]
        row[left.pop(q)] = 0
    return row


def with_the_whole_inverse(row, hessian, count):
    """Each step with the inverse of the whole H; what was removed before is set to zero again at the end."""
    inverse, removed = inv(hessian), []
    for _ in range(count):
        price = row.square() / inverse.diagonal()
        price[removed] = torch.inf
        q = int(price.argmin())
        row = row - row[q] / inverse[q, q] * inverse[:, q]
        removed.append(q)
        row[removed] = 0
    return row


greedy = Exercise(
    "05.1",
    "remove several weights, one at a time",
    remove_cheapest,
    remove_cheapest_cases,
    hints=(
        "Keep a list of the places that are left. In each round, take the inverse of the part of H that belongs to "
        "them, the price of each, and the step for the cheapest.",
        "left = list(range(len(row))); in the loop: inverse = torch.linalg.inv(hessian[left][:, left]), "
        "q = (row[left] ** 2 / inverse.diagonal()).argmin(), then move row[left] along column q of the inverse, set "
        "row[left[q]] to 0 and take it off the list.",
    ),
    wrong=[
        (
            with_the_whole_inverse,
            "you took the inverse of the whole H, or a part of it, in every round. It lets the removed weights help, and "
            "they no longer can. Cut H to the weights that are left first, then invert.",
        ),
        (
            by_first_prices,
            "you chose by the prices of the dense row. When one of two twins has gone, the other is no longer cheap: "
            "remove one, repair, and take the prices anew.",
        ),
        (
            lambda row, h, n: one_by_one(row, h, n, price=lambda row, h, left: row[left] ** 2 * h.diagonal()[left]),
            "you chose by the squared Wanda score, the price without a repair. The others will move: take "
            "w^2 / [H^-1]_qq.",
        ),
        (
            lambda row, h, n: one_by_one(row, h, n, price=lambda row, h, left: row[left].abs()),
            "you removed the smallest weights. The price is w^2 / [H^-1]_qq.",
        ),
        (
            lambda row, h, n: one_by_one(
                row, h, n, price=lambda row, h, left: row[left].abs() / inv(h[left][:, left]).diagonal()
            ),
            "you divided the weight itself by [H^-1]_qq. Its square belongs there: an error is a sum of squares.",
        ),
        (
            lambda row, h, n: one_by_one(row, h, n, repairs=False),
            "the weights are chosen one by one, but the others do not move.",
        ),
        (
            lambda row, h, n: one_by_one(row, h, n, zeros=False),
            "the removed weights are zero but for rounding. A pruned weight is exactly zero: set it.",
        ),
        (
            lambda row, h, n: one_by_one(
                row, h, n, price=lambda row, h, left: -(row[left] ** 2) / inv(h[left][:, left]).diagonal()
            ),
            "you removed the dearest weights. The cheapest go first.",
        ),
    ],
    tolerance=1e-10,
    difficulty=3,
    importance=2,
    minutes=20,
)


@greedy.misconception(
    "you let removed weights compete: their price is 0, so the same one is removed again and again. Choose among those that are left."
)
def remove_the_removed(row, hessian, count):
    inverse = inv(hessian)
    for _ in range(count):
        q = int((row.square() / inverse.diagonal()).argmin())
        row = row - row[q] / inverse[q, q] * inverse[:, q]
        row[q] = 0
    return row


# 05.2 What a weight costs on the way ------------------------------------------------------------------------------------


def prices(weight, hessian):
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)  # [in, in]
    return (weight / factor.diagonal()).square()  # [out, in] / [in]


def prices_cases(generator):
    return [(W, H), (normal(generator, 5, 6), hessian(generator, 6)), (normal(generator, 2, 1), hessian(generator, 1))]


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
    tolerance=1e-8,
    difficulty=2,
    importance=3,
    minutes=10,
)


# 05.b2 The sweep with the factor ----------------------------------------------------------------------------------------


def with_factor(weight, factor, mask):
    weight = weight.clone()  # [out, in]
    for j in range(weight.shape[1]):
        error = weight[:, j] * mask[:, j] / factor[j, j]  # [out]
        weight[:, j:] -= error[:, None] * factor[j, j:]  # [out, 1] * [in - j]
    return weight.masked_fill(mask, 0)


def with_factor_cases(generator):
    def case(outputs, width, scale=1.0):
        factor = torch.linalg.cholesky(inv(hessian(generator, width)), upper=True)
        return scale * normal(generator, outputs, width), factor, torch.rand(outputs, width, generator=generator) < 0.5

    toy = prune_mask(W.abs() * H.diagonal().sqrt())
    return [(W, torch.linalg.cholesky(inv(H), upper=True), toy), case(5, 6), case(7, 12, LARGE), case(1, 3)]


def swept(weight, factor, mask, power=1, sign=-1, row=lambda factor, j: factor[j, j:], fresh=True, zeros=True):
    """The solution with another power of the pivot, sign or row; with errors of the dense weights; or without zeros."""
    dense, weight = weight, weight.clone()
    for j in range(weight.shape[1]):
        error = (weight if fresh else dense)[:, j] * mask[:, j] / factor[j, j] ** power
        weight[:, j:] += sign * error[:, None] * row(factor, j)
    return weight.masked_fill(mask, 0) if zeros else weight


sweep = Exercise(
    "05.b2",
    "the sweep over the columns, with one factor",
    with_factor,
    with_factor_cases,
    hints=(
        "One loop over the columns. The error of column j is a vector [out]: what its pruned weights are by now, divided "
        "by the pivot, and zero in the rows that keep theirs.",
        "error = weight[:, j] * mask[:, j] / factor[j, j]; weight[:, j:] -= error[:, None] * factor[j, j:]; at the end "
        "weight.masked_fill(mask, 0).",
    ),
    wrong=[
        (
            lambda w, u, m: w.masked_fill(m, 0),
            "nothing is repaired: the kept weights are those of the dense layer. (Row j of the factor moves them; below "
            "the pivot, a column of it holds only zeros.)",
        ),
        (
            lambda w, u, m: swept(w, u, m, fresh=False),
            "you took the errors from the dense weights. By the time column j is reached, its weights have moved: use "
            "them as they are then.",
        ),
        (
            lambda w, u, m: swept(w, u, m, power=2),
            "you divided by the squared pivot. That goes with a row of the inverse; a row of the factor holds one "
            "pivot already, so the error is divided by U_jj once.",
        ),
        (
            lambda w, u, m: swept(w, u, m, power=0),
            "the error is not divided by the pivot. Without that the removed weight does not become zero.",
        ),
        (
            lambda w, u, m: swept(w, u, m, sign=1),
            "the weights on the right move the wrong way: the move is subtracted.",
        ),
        (
            lambda w, u, m: swept(w, u, m, power=2, row=lambda u, j: (u.T @ u)[j, j:]),
            "you took a row of the whole inverse. It lets the columns on the left help; a row of the factor belongs to "
            "what is left from column j on.",
        ),
        (
            lambda w, u, m: swept(w, u, ~m),
            "you removed the weights that should stay: True in the mask means pruned.",
        ),
        (
            lambda w, u, m: swept(w, u, m, zeros=False),
            "the pruned weights are zero but for rounding. Set them to exactly zero at the end.",
        ),
        (
            lambda w, u, m: swept(w, u, torch.ones_like(m), zeros=False).masked_fill(m, 0),
            "every weight of a column counts as an error. The rows that keep their weight must not move: multiply by "
            "the mask.",
        ),
    ],
    tolerance=1e-10,
    difficulty=2,
    importance=3,
    minutes=15,
)


# 05.b3 SparseGPT --------------------------------------------------------------------------------------------------------


def damped(hessian, damping=0.01):
    """The notebook's own."""
    mean = hessian.diagonal().mean()
    return hessian + damping * mean * torch.eye(len(hessian), dtype=hessian.dtype)


def repair_block(weight, factor, mask, start, stop):
    """The notebook's own, written shorter: repairs columns start to stop in place."""
    for j in range(start, stop):
        weight[:, j:] -= (weight[:, j] * mask[:, j] / factor[j, j])[:, None] * factor[j, j:]


def sparsegpt(weight, hessian, sparsity=0.5, block=128, damping=0.01):
    factor = torch.linalg.cholesky(torch.linalg.inv(damped(hessian, damping)), upper=True)
    weight, mask = weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        price = (weight[:, start:stop] / factor.diagonal()[start:stop]).square()
        mask[:, start:stop] = prune_mask(price, sparsity, group="layer")
        repair_block(weight, factor, mask, start, stop)
    return weight.masked_fill(mask, 0), mask


def sparsegpt_cases(generator):
    return [
        (W, H, 0.5, 2, 0.01),
        (normal(generator, 6, 8), hessian(generator, 8), 0.5, 4, 0.01),
        (LARGE * normal(generator, 5, 10), hessian(generator, 10), 0.3, 4, 0.1),
        (normal(generator, 4, 6), hessian(generator, 6), 0.25, 128, 0.0),
        (normal(generator, 7, 12), hessian(generator, 12), 0.5, 4, 0.5),
    ]


def with_options(
    weight, hessian, sparsity, block, damping, matrix=damped, price=None, group="layer", dense=False, repairs=True
):
    """The solution with another matrix, price or group; with masks of the dense weights; or without a repair."""
    factor = torch.linalg.cholesky(inv(matrix(hessian, damping)), upper=True)
    price = price or (lambda part, here: (part / factor.diagonal()[here]).square())
    given, weight, mask = weight, weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        here = slice(start, stop)
        mask[:, here] = prune_mask(price((given if dense else weight)[:, here], here), sparsity, group=group)
        if repairs:
            repair_block(weight, factor, mask, start, stop)
    return weight.masked_fill(mask, 0), mask


def mask_first(weight, hessian, sparsity, block, damping):
    """One mask for the whole layer, then the repair."""
    factor = torch.linalg.cholesky(inv(damped(hessian, damping)), upper=True)
    mask = prune_mask((weight / factor.diagonal()).square(), sparsity, group="layer")
    return with_factor(weight, factor, mask), mask


whole = Exercise(
    "05.b3",
    "SparseGPT: choose a block's mask, repair the block",
    sparsegpt,
    sparsegpt_cases,
    hints=(
        "The factor once. Then block by block: the price of the block's weights as they are by now, its mask, and "
        "repair_block, which moves the weights in place.",
        "price = (weight[:, start:stop] / factor.diagonal()[start:stop]).square(); mask[:, start:stop] = "
        'prune_mask(price, sparsity, group="layer"); repair_block(weight, factor, mask, start, stop). Return '
        "weight.masked_fill(mask, 0) and mask.",
    ),
    wrong=[
        (
            lambda *given: with_options(*given, group="output"),
            "each row gives up its own share. In SparseGPT all weights of the block compete, over all rows.",
        ),
        (
            lambda *given: with_options(*given, dense=True),
            "you chose the masks from the dense weights. By the time a block is reached, its weights have moved: price "
            "them then.",
        ),
        (
            mask_first,
            "you chose one mask for the whole layer first, and repaired afterwards. Choose block by block, on the way.",
        ),
        (
            lambda *given: with_options(*given, matrix=lambda h, d: h),
            "the Hessian is not damped: factorise the inverse of damped(hessian, damping).",
        ),
        (
            lambda *given: with_options(*given, matrix=lambda h, d: damped(h)),
            "you damped by the default. Hand the argument on: damped(hessian, damping).",
        ),
        (
            lambda w, h, *others: with_options(
                w, h, *others, price=lambda part, here: (part * h.diagonal()[here].sqrt()).square()
            ),
            "you priced by the diagonal of H, which is Wanda's score. SparseGPT divides by the pivots of the factor.",
        ),
        (
            lambda w, h, *others: with_options(w, h, *others, price=lambda part, here: part.square()),
            "you priced by the weight alone: divide by the pivots first.",
        ),
        (
            lambda *given: with_options(*given, repairs=False),
            "nothing is repaired: call repair_block when a block's mask is chosen.",
        ),
        (
            lambda *given: sparsegpt(*given)[0],
            "you returned the weight alone. The weight and the mask are wanted.",
        ),
        (
            lambda *given: sparsegpt(*given)[::-1],
            "weight and mask have changed places: the weight comes first.",
        ),
    ],
    tolerance=1e-10,
    difficulty=3,
    importance=3,
    minutes=20,
)


@whole.misconception(
    "the last columns are left out where the block does not divide their number. The last block may be narrower: stop = min(start + block, in)."
)
def sparsegpt_without_the_tail(weight, hessian, sparsity, block, damping):
    factor = torch.linalg.cholesky(inv(damped(hessian, damping)), upper=True)
    weight, mask = weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1] - block + 1, block):
        here = slice(start, start + block)
        mask[:, here] = prune_mask((weight[:, here] / factor.diagonal()[here]).square(), sparsity, group="layer")
        repair_block(weight, factor, mask, start, start + block)
    return weight.masked_fill(mask, 0), mask


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
        (LARGE * normal(generator, 5, 10), hessian(generator, 10), 0.5, 4),  # the last block is narrower
        (normal(generator, 3, 6), hessian(generator, 6), 0.5, 16),
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
    weight,
    hessian,
    sparsity,
    block,
    score=lambda part, norm, pivot: part.abs() * norm,
    group="output",
    power=1,
    zeros=True,
):
    """The solution's loop with another score, group or power of the pivot in the repair, or without exact zeros."""
    factor = torch.linalg.cholesky(inv(hessian), upper=True)
    norm, pivot = hessian.diagonal().sqrt(), factor.diagonal()
    weight = weight.clone()
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        here = slice(start, start + block)
        mask[:, here] = prune_mask(score(weight[:, here], norm[here], pivot[here]), sparsity, group=group)
        for j in range(start, min(start + block, weight.shape[1])):
            weight[:, j:] -= (weight[:, j] * mask[:, j] / pivot[j] ** power)[:, None] * factor[j, j:]
    return weight.masked_fill(mask, 0) if zeros else weight


def dense_mask(weight, hessian, sparsity, block):
    """Wanda's mask, block by block, of the weights as they were at the start."""
    score = weight.abs() * hessian.diagonal().sqrt()
    return torch.cat([prune_mask(part, sparsity) for part in score.split(block, dim=1)], dim=1)


def damped_repair(weight, hessian, sparsity, block):
    """The solution with a damped Hessian for the factor, and the norms of the Hessian as it is."""
    norm, factor = hessian.diagonal().sqrt(), torch.linalg.cholesky(inv(damped(hessian)), upper=True)
    weight, mask = weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        mask[:, start:stop] = prune_mask(weight[:, start:stop].abs() * norm[start:stop], sparsity)
        repair_block(weight, factor, mask, start, stop)
    return weight.masked_fill(mask, 0)


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
        (
            lambda w, h, s, b: on_the_way(w, damped(h), s, b),
            "you damped the Hessian by one per cent. That is right for a real layer, and done by the caller: take the "
            "Hessian as it comes.",
        ),
        (
            damped_repair,
            "you damped the Hessian for the factor. That is right for a real layer, and done by the caller: take the "
            "Hessian as it comes, for the norms and for the factor.",
        ),
        (
            lambda *given: on_the_way(*given, zeros=False),
            "the pruned weights are zero but for rounding. Set them to exactly zero at the end.",
        ),
    ],
    tolerance=1e-10,
    difficulty=3,
    importance=2,
    minutes=20,
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
    faint = hessian(generator, 4)  # a feature that is tiny and alive
    faint[1] *= 1e-7
    faint[:, 1] *= 1e-7
    small = hessian(generator, 3) * 1e-3
    return [(half_dead, 0.01), (H, 0.01), (hessian(generator, 4), 0.5), (half_dead, 0.0), (faint, 0.05), (small, 0.1)]


def dead(hessian):
    """True for a feature that is always zero [in]."""
    return hessian.diagonal() == 0


def living(hessian):
    """The diagonal's entries of the other features."""
    return hessian.diagonal()[~dead(hessian)]


def with_dead(hessian, damping, chosen):
    """The solution, with these features [in] as the dead ones."""
    mean = hessian.diagonal()[~chosen].mean()
    return hessian + torch.diag(damping * mean + mean * chosen)


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
        (
            lambda h, d: h + torch.diag(d * living(h).mean() * ~dead(h) + living(h).mean() * dead(h)),
            "the dead features get the mean instead of the damping. They get it in addition: damping * mean goes to "
            "every diagonal entry.",
        ),
        (
            lambda h, d: h + torch.diag(d * living(h).mean() + 1.0 * dead(h)),
            "the dead features get 1, which is large or small beside the others as it happens. Give them the mean.",
        ),
        (
            lambda h, d: h + torch.diag(d * living(h).sum() + living(h).mean() * dead(h)),
            "you damped by a fraction of the diagonal's sum. The mean is wanted.",
        ),
        (
            lambda h, d: h + torch.diag(d * living(h).max() + living(h).mean() * dead(h)),
            "you damped by a fraction of the largest entry. The mean is wanted.",
        ),
        (
            lambda h, d: h + torch.diag(d * living(h).median() + living(h).mean() * dead(h)),
            "you damped by a fraction of the diagonal's median. The mean is wanted.",
        ),
        (
            lambda h, d: h + torch.diag(d * h.mean() + living(h).mean() * dead(h)),
            "you took the mean over the whole matrix. Take that of the diagonal, over the live features.",
        ),
        (
            lambda h, d: with_dead(h, d, torch.isclose(h.diagonal(), torch.zeros_like(h.diagonal()))),
            "a feature that is tiny is not dead. Dead is exactly zero.",
        ),
        (
            lambda h, d: (1 - d) * h + torch.diag(d * living(h).mean() + living(h).mean() * dead(h)),
            "you mixed H with a multiple of the identity, so its own entries shrink. Add the damping and leave H as "
            "it is.",
        ),
    ],
    tolerance=1e-10,
    difficulty=2,
    importance=2,
    minutes=10,
)


@invertible.misconception(
    "each feature is damped in proportion to its own diagonal entry. The small ones need it most: add the same "
    "fraction of the mean to all."
)
def damped_in_proportion(hessian, damping):
    mean = living(hessian).mean()
    own = torch.where(dead(hessian), mean, hessian.diagonal())
    return hessian + torch.diag(damping * own + mean * dead(hessian))
