"""A uniform, flat or bounded prior, or a decoder that ignores z, was refused with a wrong remedy.

What carries no gradient because it is constant counts as gradient 0, and a proposal outside of the
support is rejected; only what was cut from the graph is refused, by name.
"""

import math

import pytest
import torch
from torch import distributions, nn

from vaefast.hmc import sample
from vaefast.models import VAE

D = 3
RUN = {"steps": 60, "warmup": 40, "chains": 4, "leapfrog": 4, "seed": 2}


class Constant(nn.Module):
    """A collapsed decoder, with or without weights."""

    def __init__(self, weights):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(D)) if weights else torch.zeros(D)

    def forward(self, z):
        return self.bias.expand(len(z), D)


def model(prior=None, decoder=None):
    torch.manual_seed(0)
    return VAE(
        encoder_mean=nn.Linear(D, 2),
        encoder_logvar=torch.full((2,), -2.0),
        decoder=decoder or nn.Linear(2, D),
        likelihood="gaussian",
        prior=prior,
    ).eval()


def images(rows=3):
    return torch.rand(rows, D, generator=torch.Generator().manual_seed(0))


def uniform(**options):
    side = torch.full((2,), 2.0)
    return distributions.Independent(distributions.Uniform(-side, side, **options), 1, **options)


def half_normal():
    return distributions.Independent(distributions.HalfNormal(torch.ones(2)), 1)


PRIORS = {
    "uniform": (uniform, -2.0, 2.0),
    "uniform, unchecked": (lambda: uniform(validate_args=False), -2.0, 2.0),
    "uniform, checked": (lambda: uniform(validate_args=True), -2.0, 2.0),
    "half normal": (half_normal, 0.0, math.inf),
    "flat": (lambda: lambda z: z.new_zeros(len(z)), -math.inf, math.inf),
    "flat, from z": (lambda: lambda z: 0.0 * z.detach().sum(1), -math.inf, math.inf),
    "gamma": (lambda: lambda z: distributions.Gamma(2.0, 1.0).log_prob(z).sum(1), 0.0, math.inf),
    "in steps": (lambda: lambda z: (z.detach()[:, 0] > 0.3).float(), -math.inf, math.inf),
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_without_gradient_and_with_bounds(name):
    prior, low, high = PRIORS[name]
    result = sample(model(prior()), images(), init=torch.full((3, 2), 0.5), **RUN)
    assert not result.failed.any()
    assert (result.accept_rate > 0.1).all()
    assert ((result.z >= low) & (result.z <= high)).all()
    if math.isinf(high) and math.isinf(low):
        assert (result.divergent == 0).all()


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("prior", [None, uniform])
def test_a_constant_decoder_samples_the_prior(weights, prior):
    vae = model(prior and prior(), Constant(weights))
    run = {**RUN, "chains": 64, "step_size": 0.4, "adapt": None}
    result = sample(vae, images(1), init=torch.zeros(1, 2), **run)
    variance = 1.0 if prior is None else 4.0 / 3.0
    assert ((result.z.var((1, 2)) / variance - 1).abs() < 0.15).all()
    assert (result.z.mean((1, 2)).abs() < 0.15).all()


def test_a_uniform_prior_gives_the_truncated_posterior():
    """x|z ~ N(z, I) with x = 2 at the edge of the box (-2, 2): half a Gaussian."""
    decoder = nn.Linear(2, 2, bias=False)
    decoder.weight.data = torch.eye(2)
    side = torch.full((2,), 2.0)
    vae = VAE(
        encoder_mean=nn.Linear(2, 2),
        encoder_logvar=torch.zeros(2),
        decoder=decoder,
        likelihood="gaussian",
        prior=distributions.Independent(distributions.Uniform(-side, side), 1),
    ).eval()
    run = {**RUN, "chains": 64, "step_size": 0.5, "adapt": None}
    result = sample(vae, torch.full((1, 2), 2.0), init=torch.zeros(1, 2), **run)
    mean = 2.0 - math.sqrt(2.0 / math.pi)  # up to what lies beyond -2
    assert (result.z.mean((1, 2)) - mean).abs().max() < 0.08


def test_a_start_outside_of_the_support_fails_alone():
    init = torch.tensor([[0.5, 0.5], [5.0, 0.0]])
    result = sample(model(uniform()), images(2), init=init, steps=20, warmup=20)
    assert result.failed.tolist() == [False, True]
    assert "outside the prior's support" in result.reasons[1]
    assert result.reasons[0] == ""


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, D)

    def forward(self, z):
        return self.linear(z.detach())


def test_what_was_cut_from_the_graph_is_named():
    with pytest.raises(RuntimeError, match=r"^decode\(z\) changes with z but carries no gradient"):
        sample(model(decoder=Detached()), images(), steps=2, warmup=0)
    with pytest.raises(RuntimeError, match=r"^the prior's log_prob changes with z") as caught:
        sample(model(lambda z: -z.detach().square().sum(1)), images(), steps=2, warmup=0)
    assert "\n" not in str(caught.value)


def test_a_flat_prior_that_is_a_number_is_told_its_form():
    with pytest.raises(TypeError, match=r"got float; a flat prior is z\.new_zeros\(len\(z\)\)"):
        sample(model(lambda z: 0.0), images(), steps=2, warmup=0)


class Own(VAE):
    """A subclass with a density of its own."""

    def log_prior(self, z, context=None):
        return -0.5 * ((z - 3.0) / 0.1).square().sum(1).double()


def test_a_density_that_a_subclass_defines_is_the_prior():
    torch.manual_seed(0)
    vae = Own(
        encoder_mean=nn.Linear(D, 2),
        encoder_logvar=torch.zeros(2),
        decoder=nn.Linear(2, D),
        likelihood="gaussian",
    ).eval()
    result = sample(vae, images(), init=torch.full((3, 2), 3.0), steps=50, warmup=50)
    assert (result.z - 3.0).abs().max() < 1.0
