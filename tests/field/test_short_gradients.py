"""On well-trained models users saw ℓ2 attacks stand still: their gradients were shorter than 1e-12.

Here a gradient of any length, from the smallest normal number to the largest that is finite,
gives a step of length alpha; a preset or a caller that names ``norm_eps`` keeps it.
"""

import math

import pytest
import torch

import vaefast as vf

SIZES = {
    torch.float32: (2e-38, 1e-30, 1e-20, 1e-18, 1e-13, 1.0, 1e18, 1e19, 1e30, 3e37),
    torch.float64: (1e-307, 1e-200, 1e-155, 1e-13, 1.0, 1e150, 1e155, 1e300),
    torch.float16: (1e-4, 1e-2, 1.0, 1e3),
    torch.bfloat16: (2e-38, 1e-13, 1.0, 1e30),
}
FREE = {"eps": math.inf, "low": -math.inf, "high": math.inf, "norm": "l2"}
WIDTHS = (1, 37, 5000)


def direction(width, dtype):
    generator = torch.Generator().manual_seed(width)
    g = torch.randn(2, width, generator=generator, dtype=torch.float64)
    return g / g.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_a_gradient_of_any_length_gives_a_whole_step(backend, require, alpha, width, dtype):
    if backend != "reference" and dtype.itemsize < 4:
        pytest.skip("half precision runs on the reference")
    require("pgd_step", backend, dtype)
    tolerance = max(1e-6, 4 * torch.finfo(dtype).eps) if dtype != torch.float64 else 1e-12
    for size in SIZES[dtype]:
        if dtype.itemsize == 2 and width > 100 and size < 1e-3:
            continue  # most entries are below the smallest normal number
        grad = (size * direction(width, dtype)).to(dtype)
        zero = torch.zeros_like(grad)
        step = vf.pgd_step(zero, grad, zero, alpha=alpha, backend=backend, **FREE)
        length = step.double().norm(dim=1)
        assert (length / alpha - 1).abs().max() <= tolerance, size


def test_no_gradient_gives_no_step(backend, require):
    require("pgd_step", backend)
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(3, 50, dtype=dtype)
        still = vf.pgd_step(x, torch.zeros_like(x), x, alpha=9.0, backend=backend, **FREE)
        assert torch.equal(still, x)


def test_a_floor_that_is_asked_for_is_kept(backend, require):
    require("pgd_step", backend)
    zero = torch.zeros(2, 37)
    grad = (1e-13 * direction(37, torch.float32)).float()
    step = vf.pgd_step(zero, grad, zero, alpha=0.1, norm_eps=1e-12, backend=backend, **FREE)
    torch.testing.assert_close(step.norm(dim=1), torch.full((2,), 0.01))
