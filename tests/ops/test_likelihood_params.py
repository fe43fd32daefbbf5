"""A Gaussian's std per pixel and image, in the ops that run a decoder: value, NaN rows, and HMC."""

import math

import pytest
import torch

from vaefast import ops
from vaefast.bench.cases import posterior

LEAPFROGS = {"step": 0.05, "leapfrog": 2}


def run(op, std, backend):
    z, x, net = posterior(3, 2)
    like = {"likelihood": "gaussian", "likelihood_params": [std], "backend": backend}
    U, grad = ops.net_potential(z, x, net, **like)
    if op == "net_potential":
        return U, grad
    if op == "net_trajectory":
        return ops.net_trajectory(z, z.flip(1), grad, x, net, **like, **LEAPFROGS)
    return ops.net_chain(z, U, grad, x, net, **like, **LEAPFROGS, steps=2, thin=1)


def std_of_pixels():
    x = posterior(3, 2).x
    generator = torch.Generator().manual_seed(4)
    return 0.4 + torch.rand(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize("op", ["net_potential", "net_trajectory", "net_chain"])
@pytest.mark.parametrize("form", ["scalar", "[D]", "[B, D]"])
def test_every_form_is_the_reference_s(op, form, backend, require):
    require(op, backend, torch.float64)
    whole = std_of_pixels()
    std = {"scalar": whole[0, 0], "[D]": whole[0], "[B, D]": whole}[form]
    found, expected = run(op, std, backend), run(op, std, "reference")
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-5, atol=1e-6)


def test_each_image_has_its_own_std(backend, require):
    require("net_potential", backend, torch.float64)
    whole = std_of_pixels()
    U, grad = run("net_potential", whole, backend)
    for row in range(3):
        alone = run("net_potential", whole[row], backend)
        own = slice(2 * row, 2 * row + 2)
        torch.testing.assert_close(U[own], alone[0][own], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(grad[own], alone[1][own], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", ["net_potential", "net_trajectory", "net_chain"])
@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0])
def test_an_unusable_std_makes_its_rows_nan(op, bad, backend, require):
    require(op, backend, torch.float64)
    std = std_of_pixels()
    clean = run(op, std, backend)
    std[1, 2] = bad
    found = run(op, std, backend)
    if op == "net_chain":
        assert found.U[2:4].isnan().all()
        assert found.divergent[2:4].tolist() == [2, 2]
        assert torch.equal(found.z[2:4], posterior(3, 2).z[2:4])  # they never move
    else:
        assert all(t[2:4].isnan().all() for t in found)
    others = [0, 1, 4, 5]
    for a, b in zip(found, clean):
        torch.testing.assert_close(a[others], b[others], rtol=1e-12, atol=1e-12)
