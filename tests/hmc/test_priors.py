"""Priors beside the fused likelihood: the same chain as through autograd, and the right law."""

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.distributions import Independent, Normal

from vaefast import explain
from vaefast.hmc import sample
from vaefast.models import VAE, GaussianMixture

MEANS = torch.tensor([[1.5, -1.0], [-1.0, 0.5], [0.0, 2.0]]).double()
LOGVARS = torch.tensor([[-1.0, 0.0], [0.3, -0.5], [-0.2, -0.2]]).double()


class Learned(nn.Module):
    """A prior with a density of its own, and no closed form that anybody knows."""

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.tensor([0.5, -0.5]).double())
        self.calls = 0

    def log_prob(self, z):
        self.calls += 1
        return -torch.log1p((z - self.centre).square()).sum(1) - 2 * math.log(math.pi)


PRIORS = {
    "mixture": lambda: GaussianMixture(MEANS, LOGVARS),
    "distribution": lambda: Independent(Normal(MEANS[0], LOGVARS[0].exp()), 1),
    "learned": Learned,
}


def images(rows=3):
    return torch.rand(rows, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_fused_likelihood_beside_the_prior_makes_the_same_chain(mlp_vae, name, likelihood):
    options = {"steps": 6, "warmup": 4, "leapfrog": 3, "chains": 2, "seed": 1}
    fused = sample(mlp_vae(likelihood, prior=PRIORS[name]()), images(), **options)
    vae = mlp_vae(likelihood, prior=PRIORS[name]())
    hidden = VAE(
        encoder_mean=vae.encoder.mean,
        encoder_logvar=torch.full((2,), -1.0).double(),
        decoder=Hidden(vae.decoder),
        likelihood=likelihood,
        obs_std=0.5 if likelihood == "gaussian" else None,
        prior=vae.prior,
    ).eval()
    plain = sample(hidden, images(), **options)
    torch.testing.assert_close(fused.z, plain.z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(fused.energy, plain.energy, rtol=1e-10, atol=1e-10)


class Hidden(nn.Module):
    """A decoder that no network is."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, z):
        return self.module(z.unsqueeze(-1).cummax(-1).values.squeeze(-1))


def test_the_decoder_is_not_called_where_it_lowers(mlp_vae):
    vae = mlp_vae(prior=GaussianMixture(MEANS, LOGVARS))
    sample(vae, images(), steps=2, warmup=1, leapfrog=2)
    calls, decode = [], vae.decoder[0].forward
    vae.decoder[0].forward = lambda z: calls.append(1) or decode(z)
    sample(vae, images(), steps=20, warmup=1, leapfrog=2)
    assert len(calls) < 10  # to be lowered and compared; 42 gradients were taken


def test_a_mixture_is_not_derived_and_a_learned_prior_is_asked_once_per_leapfrog(mlp_vae):
    prior = Learned()
    sample(mlp_vae(prior=prior), images(), steps=5, warmup=0, adapt=None, leapfrog=3)
    assert 15 <= prior.calls <= 15 + 14  # the start, checks and the measurement of the rounding
    mixture = GaussianMixture(MEANS, LOGVARS)
    asked = []
    mixture.log_prob = lambda z: asked.append(1) or GaussianMixture.log_prob(mixture, z)
    sample(mlp_vae(prior=mixture), images(), steps=5, warmup=0, adapt=None, leapfrog=3)
    assert len(asked) <= 1  # the look at whether a row has one density at every place


def test_the_law_under_a_mixture_is_that_of_quadrature(mlp_vae):
    vae = mlp_vae("gaussian", prior=GaussianMixture(MEANS, LOGVARS))
    x = images(1)
    z = sample(vae, x, chains=2000, warmup=80, steps=40, leapfrog=6, keep="last", seed=3).z[0, :, 0]
    line = torch.linspace(-6, 6, 401).double()
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        joint = vae.log_prior(grid) + vae.log_likelihood(x, grid)
    density = torch.softmax(joint, 0).view(401, 401)
    for i, marginal in enumerate((density.sum(1), density.sum(0))):
        cdf = marginal.cumsum(0).numpy()
        at = torch.bucketize(z[:, i].contiguous(), line + 0.5 * (line[1] - line[0])).clamp(max=400)
        ranks = cdf[at] - marginal.numpy()[at] * torch.rand(len(z)).numpy()
        assert stats.kstest(ranks, stats.uniform.cdf).pvalue > 1e-4


def test_explain_says_which_gradient_and_what_is_fused(mlp_vae):
    text = str(explain(mlp_vae(prior=GaussianMixture(MEANS, LOGVARS)), images()))
    assert "a closed form gives its gradient; on a CPU beside the fused likelihood" in text
    text = str(explain(mlp_vae(prior=Learned(), generic=True), images()))
    assert "autograd gives its gradient" in text
    assert "beside" not in text


def test_a_bounded_prior_rejects_beyond_its_support(mlp_vae):
    """log p = −∞ outside of a disc, and a law that raises far out."""

    def disc(z):
        inside = z.square().sum(1) < 1.0
        return torch.where(inside, -math.log(math.pi), -math.inf) + 0.0 * z.sum(1)

    vae = mlp_vae(prior=disc)
    init = torch.zeros(3, 2).double()
    found = sample(vae, images(), init=init, steps=100, warmup=50, step_size=0.3, seed=2)
    assert not found.failed.any()
    assert found.z.square().sum(-1).max() < 1.0
    assert found.divergent.sum() > 0
