"""The chain's law is the posterior: closed forms, quadrature, calibration, resonance."""

import math

import pytest
import torch
from gaussians import two_latents
from scipy import stats
from torch import nn

from vaefast.hmc import sample
from vaefast.models.vae import VAE

A = torch.tensor([[1.0, 0.2, 0.0], [0.3, 2.0, 0.1], [0.0, -0.4, 0.3], [0.5, 0.0, 0.0]]).double()


def last_states(vae, x, chains, **options):
    """Ends of many independent chains: independent draws, so that textbook tests apply."""
    result = sample(vae, x, chains=chains, keep="last", **options)
    assert not result.failed.any()
    return result.z[:, :, 0]  # [B, C, d]


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize(
    "mass", [None, "unit", "posterior", "dense", torch.tensor([2.0, 8.0, 1.0])]
)
def test_linear_gaussian_posterior(linear_gaussian, generic, mass):
    model = linear_gaussian(A, rows=2, generic=generic)
    z = last_states(
        model.vae, model.x, chains=2000, warmup=60, steps=25, leapfrog=6, seed=1, mass=mass
    )
    C = z.shape[1]
    standard = torch.linalg.solve_triangular(
        torch.linalg.cholesky(model.covariance), (z - model.mean[:, None]).mT, upper=False
    )  # [B, d, C] independent N(0, 1)
    assert standard.mean(2).abs().max() < 4.5 / math.sqrt(C)
    second = standard @ standard.mT / C
    assert (second - torch.eye(3)).abs().max() < 5.0 * math.sqrt(2 / C)
    for row in range(len(z)):
        for i in range(3):
            scale = model.covariance[i, i].sqrt()
            law = stats.norm(model.mean[row, i], scale)
            assert stats.kstest(z[row, :, i], law.cdf).pvalue > 1e-4


def test_one_long_chain_has_the_posterior_moments(linear_gaussian):
    model = linear_gaussian(A, rows=2)
    result = sample(model.vae, model.x, steps=2400, warmup=200, leapfrog=4, seed=2)
    z, ess = result.z[:, 0], result.diagnostics().ess_bulk  # [B, T, d], [B, d]
    assert ess.min() > 200
    error = (z.mean(1) - model.mean) / (model.covariance.diagonal() / ess).sqrt()
    assert error.abs().max() < 4.5
    torch.testing.assert_close(z.var(1), model.covariance.diagonal().expand(2, 3), rtol=0.2, atol=0)


def test_energy_is_that_of_the_draws(linear_gaussian):
    model = linear_gaussian(A)
    result = sample(model.vae, model.x, steps=20, warmup=20, chains=2, seed=4)
    z = result.z
    mean = model.vae.decode(z.flatten(0, 2)).view(*z.shape[:3], -1)
    likelihood = torch.distributions.Normal(mean, 0.5).log_prob(model.x[:, None, None]).sum(-1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(
        result.energy, -(likelihood + prior).detach(), rtol=1e-10, atol=1e-10
    )
    assert result.energy.dtype == torch.float64


def test_another_prior(linear_gaussian):
    """z ~ N(1, 2²): the posterior stays Gaussian, with precision I/4 + AᵀA/s²."""
    model = linear_gaussian(A, rows=1)
    vae = model.vae
    normal = torch.distributions.Normal(torch.ones(3).double(), torch.full((3,), 2.0).double())
    vae.prior = torch.distributions.Independent(normal, 1)
    z = last_states(vae, model.x, chains=2000, warmup=60, steps=30, leapfrog=6, seed=5)
    precision = torch.eye(3) / 4 + A.T @ A / 0.25
    residual = model.x - vae.decoder.bias.detach()
    mean = torch.linalg.solve(precision, (residual @ A / 0.25 + 0.25).T).T
    scale = torch.linalg.inv(precision).diagonal().sqrt()
    for i in range(3):
        law = stats.norm(mean[0, i], scale[i])
        assert stats.kstest(z[0, :, i], law.cdf).pvalue > 1e-4


def bimodal_vae():
    """A bump and a dip of tanh: the likelihood peaks at two places, z = ±1.5."""
    first, second = nn.Linear(1, 2), nn.Linear(2, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[2.0], [2.0]]))
        first.bias.copy_(torch.tensor([3.0, -3.0]))
        second.weight.copy_(torch.tensor([[1.0, -1.0]]))
        second.bias.zero_()
    return VAE(
        encoder_mean=nn.Linear(1, 1),
        encoder_logvar=torch.zeros(1),
        decoder=nn.Sequential(first, nn.Tanh(), second),
        likelihood="gaussian",
        obs_std=0.4,
    ).double()


def test_bimodal_posterior_against_quadrature():
    vae, x = bimodal_vae(), torch.tensor([[1.0]]).double()
    z = last_states(vae, x, chains=4000, warmup=100, steps=60, leapfrog=5, seed=6)[0, :, 0]
    grid = torch.linspace(-6, 6, 4001).double()[:, None]
    with torch.no_grad():
        log_joint = vae.log_prior(grid) - 0.5 * ((x - vae.decode(grid)) / 0.4).square().sum(1)
    density = torch.exp(log_joint - log_joint.max())
    valley, peak = density[2000], density.max()
    assert valley < 0.5 * peak  # it has two modes
    cdf = torch.cumulative_trapezoid(density, grid[:, 0])
    cdf = torch.cat((cdf.new_zeros(1), cdf)) / cdf[-1]

    def distribution(values):
        at = ((torch.as_tensor(values) + 6) / 12 * 4000).clamp(0, 3999)
        low = at.long()
        return (cdf[low] + (at - low) * (cdf[low + 1] - cdf[low])).numpy()

    assert stats.kstest(z, distribution).pvalue > 1e-4


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "clamped_bernoulli"])
def test_two_latents_against_quadrature(mlp_vae, likelihood):
    vae = mlp_vae(likelihood)
    x = torch.tensor([[0.0, 1.0, 0.2, 0.9, 0.5, 1.0]]).double()
    result = sample(vae, x, chains=2000, warmup=60, steps=25, leapfrog=6, keep="last", seed=8)
    line = torch.linspace(-6, 6, 401).double()
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        logits = vae.decode(grid)
        energy = -vae.log_prior(grid) - log_likelihood(logits, x, likelihood)
    weight = torch.softmax(-energy, 0)
    mean = weight @ grid
    covariance = (weight[:, None] * (grid - mean)).T @ (grid - mean)
    z, C = result.z[0, :, 0], result.z.shape[1]
    assert ((z.mean(0) - mean).abs() < 4.5 * (covariance.diagonal() / C).sqrt()).all()
    variance = covariance.diagonal()
    error = (variance[:, None] * variance + covariance.square()).mul(2 / C).sqrt()  # heavy tails
    assert ((z.T.cov() - covariance).abs() < 4.5 * error).all()
    spread = (weight @ energy.square() - (weight @ energy) ** 2).sqrt()
    assert abs(result.energy.mean() - weight @ energy) < 4.5 * spread / math.sqrt(C)


def log_likelihood(logits, x, likelihood):
    if likelihood == "clamped_bernoulli":
        p = torch.sigmoid(logits).clamp(1e-5, 1 - 1e-5)
        return (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    kind = {
        "bernoulli": torch.distributions.Bernoulli,
        "continuous_bernoulli": torch.distributions.ContinuousBernoulli,
    }[likelihood]
    return kind(logits=logits, validate_args=False).log_prob(x).sum(1)


@pytest.mark.parametrize(
    ("likelihood", "how"),
    [
        ("bernoulli", {"leapfrog": 8, "mass": "unit"}),
        ("gaussian", {"leapfrog": 8, "mass": "unit"}),
        ("gaussian", {}),  # dense, a quarter period for each row
        ("bernoulli", {"mass": "warmup", "leapfrog": 3}),
    ],
)
def test_simulation_based_calibration(mlp_vae, likelihood, how):
    """z* ~ p(z), x ~ p(x|z*): the rank of z* among posterior draws is uniform."""
    vae, rows, draws = mlp_vae(likelihood), 1000, 19
    generator = torch.Generator().manual_seed(9)
    truth = torch.randn(rows, 2, generator=generator).double()
    with torch.no_grad():
        image = vae.g(truth)
    noise = torch.randn(image.shape, generator=generator).double()
    uniform = torch.rand(image.shape, generator=generator).double()
    x = image + 0.5 * noise if likelihood == "gaussian" else (uniform < image).double()
    result = sample(vae, x, warmup=100, steps=8 * draws, keep=draws, seed=10, **how)
    rank = (result.z[:, 0] < truth[:, None]).sum(1)  # [B, d] in 0..19
    for i in range(2):
        counts = torch.bincount(rank[:, i], minlength=draws + 1)
        assert stats.chisquare(counts).pvalue > 1e-4


def resonant(jitter):
    """L leapfrogs that take the prior's direction exactly once around: θ = 2π/L a step."""
    leapfrog = 12
    return sample(
        two_latents(3.0),
        torch.zeros(1, 1).double(),
        init=torch.full((1, 2), 0.25).double(),
        chains=2000,
        warmup=0,
        steps=40,
        leapfrog=leapfrog,
        step_size=2 * math.sin(math.pi / leapfrog),
        adapt=None,
        jitter=jitter,
        keep="last",
        seed=11,
    ).z[0, :, 0]


def test_a_fixed_path_length_resonates_and_the_jitter_breaks_it():
    stuck = resonant(jitter=0.0)
    assert (stuck[:, 0] - 0.25).abs().max() < 1e-9  # never moved, with full acceptance
    assert stuck[:, 1].std() > 0.2  # the other direction mixes
    mixed = resonant(jitter=0.2)
    assert stats.kstest(mixed[:, 0], stats.norm.cdf).pvalue > 1e-4
    assert stats.kstest(mixed[:, 1], stats.norm(0, math.sqrt(0.1)).cdf).pvalue > 1e-4
