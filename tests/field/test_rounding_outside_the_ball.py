"""Users measured their ℓ∞ attacks and found perturbations longer than eps, by a rounding.

Here |x_adv − x|, in float64, never exceeds eps: not by a step, not by a start, not in half
precision; and eps is the number that the caller wrote, not its nearest float32.
"""

import math

import pytest
import torch

import vaefast as vf

RADII = (0.1, 8 / 255, 0.031, 0.3)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SCALES = (1e-6, 1e-2, 1.0, 100.0)


def longest(result, x):
    return (result.double() - x.double()).abs()


def images(dtype, scale=1.0, rows=6):
    generator = torch.Generator().manual_seed(3)
    x, x_adv, grad = torch.randn(3, rows, 211, generator=generator, dtype=torch.float64)
    return [t.to(dtype) for t in (x_adv * scale, grad, x * scale)]


@pytest.mark.parametrize("order", ["project_clip", "clip_project"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("given", ["number", "row", "element"])
def test_no_step_leaves_the_ball(backend, require, given, dtype, order):
    if backend != "reference" and dtype.itemsize < 4:
        pytest.skip("half precision runs on the reference")
    require("pgd_step", backend)
    free = {"alpha": 3.0, "low": -math.inf, "high": math.inf, "order": order, "backend": backend}
    for radius in RADII:
        for scale in SCALES:
            data = images(dtype, scale)
            eps = {"number": radius, "row": radius * torch.rand(6, dtype=torch.float64)}
            eps["element"] = radius * torch.rand(6, 211, dtype=torch.float64)
            result = vf.pgd_step(*data, eps=eps[given], **free)
            allowed = torch.as_tensor(eps[given], dtype=torch.float64)
            allowed = allowed[:, None] if allowed.ndim == 1 else allowed
            assert (longest(result, data[2]) <= allowed).all()


def test_ends_that_can_be_represented_are_reached(backend, require):
    require("pgd_step", backend)
    x = torch.tensor([[0.5, 0.25, 0.0, -1.0]])
    free = {"alpha": 9.0, "eps": 0.125, "low": -math.inf, "high": math.inf}
    up = vf.pgd_step(x, torch.ones_like(x), x, **free, backend=backend)
    assert torch.equal(up, x + 0.125)
    down = vf.pgd_step(x, -torch.ones_like(x), x, **free, backend=backend)
    assert torch.equal(down, x - 0.125)


def test_the_box_holds_too(backend, require):
    require("pgd_step", backend)
    x_adv, grad, x = (t.clamp(0.1, 0.9) for t in images(torch.float32))
    result = vf.pgd_step(x_adv, grad, x, alpha=1.0, eps=0.3, low=0.1, high=0.9, backend=backend)
    assert (longest(result, x) <= 0.3).all()
    assert (result >= torch.tensor(0.1)).all()
    assert (result <= torch.tensor(0.9)).all()


def test_the_ball_of_l2_holds_up_to_the_rounding_of_its_entries(backend, require):
    require("pgd_step", backend)
    x_adv, grad, x = images(torch.float32)
    x = x.clamp(0, 1)
    result = vf.pgd_step(x_adv, grad, x, alpha=1.0, eps=0.3, norm="l2", backend=backend)
    length = (result.double() - x.double()).norm(dim=1)
    rounding = 0.5 * torch.finfo(torch.float32).eps * result.double().norm(dim=1)
    assert (length <= 0.3 * (1 + 4e-7) + rounding).all()
