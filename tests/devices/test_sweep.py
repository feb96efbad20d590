"""SparseGPT's inner loop against its formula; the GPU's kernel too, under Triton's interpreter where Triton is installed."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from wanda.devices.sweep import in_one_kernel, sweep

SIZES = [(1, 5), (4, 33), (16, 40), (17, 64), (64, 7)]


def problem(count, outputs):
    """Columns, coefficients and shares as `sweep` takes them, in float64."""
    generator = torch.Generator().manual_seed(count)
    columns = torch.randn(count, outputs, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(count, count, generator=generator, dtype=torch.float64).tril(diagonal=-1) / 3
    shares = torch.rand(count, outputs, generator=generator, dtype=torch.float64) + 0.5
    return columns, coefficients, shares * (torch.rand(count, outputs, generator=generator) < 0.5)


def slow(columns, coefficients, shares):
    """Column by column, as the docstring says. Returns: (columns, errors)."""
    columns, errors = columns.clone(), torch.zeros_like(columns)
    for j in range(len(columns)):
        for i in range(j):
            columns[j] -= coefficients[j, i] * errors[i]
        errors[j] = shares[j] * columns[j]
    return columns, errors


def check(way, count, outputs):
    columns, coefficients, shares = problem(count, outputs)
    expected = slow(columns, coefficients, shares)
    errors = torch.zeros_like(columns)
    way(columns, coefficients, shares, errors)
    torch.testing.assert_close((columns, errors), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("count", "outputs"), SIZES)
def test_each_column_subtracts_the_errors_before_it(count, outputs):
    check(sweep, count, outputs)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_does_the_same():
    """In a process of its own: Triton decides when it is imported whether it interprets."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, __file__], check=True, env=environment, timeout=300)


if __name__ == "__main__":
    for size in SIZES:
        check(in_one_kernel, *size)
