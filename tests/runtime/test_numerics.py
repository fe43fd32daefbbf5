"""The libraries' switches: set inside, as before outside, untouched on the CPU."""

import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from vaefast.runtime import numerics

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def switches():
    cudnn = torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(),
        cudnn.allow_tf32,
        cudnn.benchmark,
        cudnn.deterministic,
    )


@pytest.fixture(params=["default", "allowed"])
def before(request):
    kept = switches()
    if request.param == "allowed":
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
    yield switches()
    torch.set_float32_matmul_precision(kept[0])
    torch.backends.cudnn.benchmark = kept[2]


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("ieee", ("highest", False)), ("bf16", ("highest", False)), ("tf32", ("high", True))],
)
def test_products(before, precision, expected):
    with numerics.products(CUDA, precision):
        assert switches()[:2] == expected
    assert switches() == before
    with suppress(KeyError), numerics.products(CUDA, precision):
        raise KeyError
    assert switches() == before
    with numerics.products(CPU, precision):
        assert switches() == before


def test_one_kernel(before):
    with numerics.one_kernel(CUDA):
        assert switches()[2:] == (False, True)
    assert switches() == before


def test_ends_inside_a_rounded_trajectory_are_exact(before):
    with numerics.products(CUDA, "tf32"):
        with numerics.products(CUDA, "ieee"):
            assert switches()[:2] == ("highest", False)
        assert switches()[:2] == ("high", True)


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="torch has one generation of switches"
)
def test_a_caller_who_uses_the_newer_switches():
    """torch raises where its two generations are mixed; a process cannot go back."""
    code = """
import torch
from vaefast.runtime import numerics
matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
matmul.fp32_precision, conv.fp32_precision = "tf32", "ieee"
for precision in ("ieee", "tf32"):
    with numerics.products(torch.device("cuda"), precision):
        assert (matmul.fp32_precision, conv.fp32_precision) == (precision, precision)
    assert (matmul.fp32_precision, conv.fp32_precision) == ("tf32", "ieee")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_autocast():
    x, layer = torch.ones(2, 3), torch.nn.Linear(3, 3)
    for precision, dtype in (("ieee", torch.float32), ("bf16", torch.bfloat16)):
        with numerics.autocast(CPU, precision):
            assert layer(x).dtype == dtype
