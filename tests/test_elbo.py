"""The evidence lower bound against hand computations and against the exact evidence."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from vaefast import philox, set_memory
from vaefast.elbo import ELBO, evaluate_elbo
from vaefast.models import MLPVAE, VAE


@pytest.fixture
def vae():
    return MLPVAE((1, 3, 4), (8,), 2, seed=1).double().eval()


@pytest.fixture
def x():
    return torch.rand(7, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_hand(vae, x, samples, seed, index):
    mean, std = vae.posterior(x)
    logp = torch.zeros(len(x), dtype=torch.float64)
    for s in range(samples):
        eta = philox.normal(2, seed=seed, index=index, step=s, use=philox.Use.POSTERIOR)
        logits = vae.decode(mean + std * eta)
        terms = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        logp += terms.flatten(1).sum(1) / samples
    prior = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    return logp, kl_divergence(Independent(Normal(mean, std), 1), prior)


@pytest.mark.parametrize("samples", [1, 3])
def test_both_terms_are_those_of_a_hand_computation(vae, x, samples):
    index = torch.arange(10, 17)
    logp, kl = by_hand(vae, x, samples, 5, index)
    bound = evaluate_elbo(vae, x, samples=samples, seed=5, index=index)
    assert torch.allclose(bound.reconstruction, logp, rtol=1e-10)
    assert torch.allclose(bound.kl, kl, rtol=1e-10)
    assert torch.equal(bound.elbo, bound.reconstruction - bound.kl)
    assert bound.elbo.dtype == torch.float64


def average(vae, x, draws=4000):
    """The bound of each row over many draws: copies of the row, each with an index of its own."""
    bound = evaluate_elbo(vae, x.repeat_interleave(draws, dim=0))
    return ELBO(*(column.unflatten(0, (len(x), draws)).mean(1) for column in bound))


def linear_gaussian(posterior_scale=1.0):
    """x = z + noise of std s in one dimension, with q the exact posterior, or a wider one."""
    s = 0.5
    mean, decoder = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        mean.weight.fill_(1.0 / (1.0 + s * s))
        decoder.weight.fill_(1.0)
    logvar = torch.tensor([math.log(s * s / (1.0 + s * s) * posterior_scale)], dtype=torch.float64)
    return VAE(
        encoder_mean=mean.double(),
        encoder_logvar=logvar,
        decoder=decoder.double(),
        likelihood="gaussian",
        obs_std=s,
    ), Normal(0.0, math.sqrt(1.0 + s * s))


def test_the_bound_is_tight_at_the_true_posterior_and_below_elsewhere():
    x = torch.tensor([[-1.5], [0.0], [2.0]], dtype=torch.float64)
    vae, evidence = linear_gaussian()
    exact = evidence.log_prob(x[:, 0])
    assert torch.allclose(average(vae, x).elbo, exact, atol=0.05)
    wide, _ = linear_gaussian(2.0)
    gap = exact - average(wide, x).elbo
    assert torch.allclose(gap, torch.full_like(gap, 0.5 * (2 - 1 - math.log(2))), atol=0.08)


def test_a_prior_given_as_a_distribution_agrees_in_the_mean(vae, x):
    exact = average(vae, x).kl
    vae.prior = Independent(Normal(torch.zeros(2).double(), 1.0), 1)
    sampled = average(vae, x).kl
    assert torch.allclose(sampled, exact, atol=0.1)
    assert not torch.equal(sampled, exact)


def test_rows_depend_on_their_index_and_not_on_the_batch(vae, x):
    whole = evaluate_elbo(vae, x, seed=3)
    part = evaluate_elbo(vae, x[4:6], seed=3, index=torch.tensor([4, 5]))
    set_memory(1)  # one row at a time
    single = evaluate_elbo(vae, x, seed=3)
    assert torch.allclose(part.elbo, whole.elbo[4:6], rtol=1e-12)
    assert torch.allclose(single.elbo, whole.elbo, rtol=1e-12)


def test_a_bad_row_spoils_itself_only(vae, x):
    clean = evaluate_elbo(vae, x).elbo
    x[2, 0, 0, 0] = math.nan
    bound = evaluate_elbo(vae, x).elbo
    assert bound[2].isnan()
    keep = [0, 1, 3, 4, 5, 6]
    assert torch.allclose(bound[keep], clean[keep], rtol=1e-12)


def test_an_empty_batch_and_bad_arguments(vae, x):
    assert evaluate_elbo(vae, x[:0]).elbo.shape == (0,)
    with pytest.raises(TypeError, match=r"wrap it with vaefast\.as_vae"):
        evaluate_elbo(nn.Linear(2, 2), x)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        evaluate_elbo(vae, x, samples=0)
    with pytest.raises(ValueError, match="seed must lie in"):
        evaluate_elbo(vae, x, seed=1 << 64)
    vae.decoder.append(nn.Dropout(0.5))
    with pytest.raises(RuntimeError, match=r"call model\.eval\(\)"):
        evaluate_elbo(vae.train(), x)
