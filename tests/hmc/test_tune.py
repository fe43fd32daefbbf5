"""Tuning: plain numbers, sensible ones, that sample() takes."""

import math

import pytest
import torch
from gaussians import two_latents

from vaefast.hmc import sample, tune

QUICK = {"warmup": 40, "steps": 60, "seed": 2}


def images(rows):
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(0)).double()


def test_gives_plain_numbers_for_sample(mlp_vae):
    vae = mlp_vae()
    numbers = tune(vae, images(4), leapfrogs=(2, 8), **QUICK)
    assert set(numbers) == {"step_size", "leapfrog", "jitter"}
    kinds = {key: type(value) for key, value in numbers.items()}
    assert kinds == {"step_size": float, "leapfrog": int, "jitter": float}
    assert numbers == tune(vae, images(4), leapfrogs=(2, 8), **QUICK)
    result = sample(vae, images(3), steps=20, warmup=20, adapt=None, **numbers)
    assert (result.step_size == numbers["step_size"]).all()
    assert result.accept_rate.mean() > 0.5


def narrow(scale):
    """A Gaussian posterior with one direction of the prior's width and one 1/scale as wide."""
    return two_latents(math.sqrt(scale**2 - 1))


def test_a_narrow_posterior_needs_more_leapfrogs():
    x = torch.zeros(1, 1).double()
    options = {"leapfrogs": (1, 12), "warmup": 120, "steps": 80}
    round_one, long_one = tune(narrow(1.0), x, **options), tune(narrow(25.0), x, **options)
    assert round_one["leapfrog"] == 1
    assert long_one["leapfrog"] == 12
    assert long_one["step_size"] < 0.2 * round_one["step_size"]


def test_bad_pilot_rows_do_not_count(mlp_vae):
    x = images(3)
    broken = torch.cat((x, torch.full((1, 6), torch.nan).double()))
    clean = tune(mlp_vae(), x, leapfrogs=(2,), **QUICK)
    assert tune(mlp_vae(), broken, leapfrogs=(2,), **QUICK) == pytest.approx(clean)
    with pytest.raises(ValueError, match="x_pilot has no usable row"):
        tune(mlp_vae(), broken[3:], leapfrogs=(2,), **QUICK)


def test_the_step_size_is_the_median_over_rows(mlp_vae):
    vae, x = mlp_vae(), images(3)
    numbers = tune(vae, x, leapfrogs=(3,), **QUICK)
    own = sample(vae, x, leapfrog=3, chains=4, **QUICK).step_size
    assert own.unique().numel() == 3
    assert numbers["step_size"] == pytest.approx(float(own.sort().values[1]))


def test_options_reach_sample(mlp_vae):
    numbers = tune(mlp_vae(), images(2), leapfrogs=(3,), jitter=0.1, mass="posterior", **QUICK)
    assert numbers["leapfrog"] == 3
    assert numbers["jitter"] == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leapfrogs": ()}, "leapfrogs must name at least one candidate"),
        ({"warmup": 0}, "warmup"),
        ({"steps": 1}, "steps must be at least 2"),
        ({"jitter": 2.0}, "jitter"),
    ],
)
def test_errors(mlp_vae, options, message):
    with pytest.raises(ValueError, match=message):
        tune(mlp_vae(), images(2), **options)
