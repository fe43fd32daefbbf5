"""A tuner chose trajectories of half a period: chains that jump from z to −z and never mix in |z|.

Effective draws of z were three times the draws, those of (z − mean)² a hundredth. The candidates
are ranked by the worse of the two.
"""

import math

import pytest
import torch
from torch import nn

from vaefast.hmc import sample, tune
from vaefast.hmc.mixing import effective_draws, worst_effective_draws
from vaefast.models import VAE

D, LATENTS = 48, 32


def wide():
    """A posterior about as wide as the prior in each of 32 directions."""
    torch.manual_seed(0)
    decoder = nn.Linear(LATENTS, D)
    decoder.weight.data.normal_().mul_(0.05)
    vae = VAE(
        encoder_mean=nn.Linear(D, LATENTS),
        encoder_logvar=torch.zeros(LATENTS),
        decoder=decoder,
        likelihood="gaussian",
    )
    return vae.eval(), torch.randn(4, D)


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_no_half_period_is_chosen(jitter):
    vae, x = wide()
    chosen = tune(vae, x, jitter=jitter)
    assert math.cos(chosen["step_size"] * chosen["leapfrog"]) > -0.6
    run = sample(vae, x, chains=4, adapt=None, warmup=50, steps=500, **chosen)
    (worst,) = worst_effective_draws([run.z])
    assert (worst > 200).all()  # of 2,000


def autoregressive(rho, shape=(2, 4, 1000, 3)):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    draws = noise.clone()
    for t in range(1, shape[2]):
        draws[:, :, t] = rho * draws[:, :, t - 1] + math.sqrt(1 - rho**2) * noise[:, :, t]
    return draws


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_effective_draws_of_an_autoregression(rho):
    draws = autoregressive(rho)
    found = effective_draws(draws, draws.flatten(1, 2).var(1))
    expected = 4000 * (1 - rho) / (1 + rho)
    assert ((found / expected - 1).abs() < 0.35).all()


def test_chains_that_jump_to_the_other_side_count_by_their_width():
    sign = torch.ones(1000).double()
    sign[1::2] = -1.0
    size = autoregressive(0.99).abs()
    draws = sign[:, None] * size
    found = effective_draws(draws, draws.flatten(1, 2).var(1))
    assert found.median() > 4000
    (worst,) = worst_effective_draws([draws])
    assert (worst < 400).all()


def test_chains_that_have_not_moved_do_not_look_mixed():
    still = autoregressive(0.5)[:, :, :1].expand(-1, -1, 50, -1)
    stuck, moving = worst_effective_draws([still, autoregressive(0.5)])
    assert (stuck < 10).all()
    assert (moving > 300).all()


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_few_draws(steps):
    draws = autoregressive(0.5, (2, 4, steps, 3))
    assert all(found.isfinite().all() for found in worst_effective_draws([draws, 0 * draws]))
