"""On a GPU: the same masks as on a CPU, and 2:4 products that agree with dense ones. Run by `make gpu`."""

import pytest
import torch

import wanda
from benchmarks import gpu
from wanda.tools.sparse24 import convert

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.fixture(scope="module")
def agreement():
    return gpu.agreement("cuda")


@pytest.mark.parametrize(
    ("method", "least"), [("magnitude", 1), ("wanda", 0.9999), ("sparsegpt", 0.99), ("admm", 0.999)]
)
def test_masks_on_a_gpu_are_those_of_the_cpu(agreement, method, least):
    """Kernels round in another order, and SparseGPT's choices follow one another; so a few entries may differ."""
    assert all(share >= least for share in agreement[method].values()), agreement[method]


def test_a_converted_model_gives_the_logits_of_the_dense_one():
    model = gpu.random_model("cuda", torch.float16, **gpu.SMALL)
    wanda.prune(model, method="magnitude", pattern="2:4", progress=False)
    windows = gpu.random_windows(2, 256).cuda()
    with torch.no_grad():
        dense = model(windows).logits.float()
        assert any(row.sparse for row in convert(model))
        sparse = model(windows).logits.float()
    assert (sparse - dense).norm() <= 0.01 * dense.norm()
