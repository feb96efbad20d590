"""SparseGPT's inner loop: some columns, each of which subtracts the errors of those before it and then has one of its own.

Pure tensors. On a CPU, two operations per column. On a CUDA GPU launching these would take most of the time, so one Triton
kernel does all columns; both give the same sums in another order.
"""

from functools import cache
from importlib.util import find_spec

ROWS = 32  # outputs per program of the kernel


def sweep(columns, coefficients, shares, errors):
    """Repair columns from left to right, in place.

    Args:
        columns: Tensor [p, out], some columns of W; each becomes w_j - sum over i < j of coefficients_ji * error_i.
        coefficients: Tensor [p, p], strictly lower triangular.
        shares: Tensor [p, out]: a column's error per unit of its repaired weight, 0 where that is kept.
        errors: Tensor [p, out] of zeros, filled with shares * columns.
    """
    if columns.is_cuda and find_spec("triton"):
        in_one_kernel(columns, coefficients, shares, errors)
        return
    errors_by_row = errors.T  # [out, p]
    # Two operations per column and little indexing: launching operations dominates the time here.
    parts = zip(columns.unbind(), coefficients.unbind(), shares.unbind(), errors.unbind(), strict=True)
    for column, coefficient, share, error in parts:
        column.addmv_(errors_by_row, coefficient, alpha=-1)
        error.copy_(column).mul_(share)


def in_one_kernel(columns, coefficients, shares, errors):
    """`sweep` by one Triton kernel, for contiguous columns, shares and errors."""
    count, outputs = columns.shape
    grid = (-(-outputs // ROWS),)
    sizes = {"SIZE": max(2, 1 << (count - 1).bit_length()), "ROWS": ROWS}  # Triton's tiles are powers of two
    _kernel()[grid](columns, coefficients.contiguous(), shares, errors, count, outputs, **sizes)


@cache
def _kernel():
    """Triton is imported, and the kernel defined, when a GPU first needs it."""
    import triton
    from triton import language as tl

    @triton.jit
    def kernel(columns, coefficients, shares, errors, count, outputs, SIZE: tl.constexpr, ROWS: tl.constexpr):
        rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # outputs: independent of each other
        places = tl.arange(0, SIZE)
        at = places[:, None] * outputs + rows[None, :]
        inside = (places < count)[:, None] & (rows < outputs)[None, :]
        weights = tl.load(columns + at, mask=inside, other=0.0)  # [SIZE, ROWS]
        share = tl.load(shares + at, mask=inside, other=0.0)
        for i in range(count):
            error = tl.sum(tl.where(places[:, None] == i, weights * share, 0.0), axis=0)  # [ROWS]
            coefficient = tl.load(
                coefficients + places * count + i, mask=places < count, other=0.0
            )  # [SIZE], 0 up to i
            weights -= coefficient[:, None] * error[None, :]
            tl.store(errors + i * outputs + rows, error, mask=rows < outputs)
        tl.store(columns + at, weights, mask=inside)

    return kernel
