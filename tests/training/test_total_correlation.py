"""The parts of the KL term against closed forms of Gaussians, and the β-TCVAE's loss."""

import math

import pytest
import torch

from vaefast.models import MLPVAE
from vaefast.training import TCVAE, BetaELBO, Step, decompose_kl, evaluate_elbo, fit

N, D = 1000, 3


@pytest.fixture(scope="module")
def gaussian():
    """x ~ N(0, I), q(z|x) = N(Ax, s²I): q(z) = N(0, AAᵀ + s²I) up to the sample of the x."""
    generator = torch.Generator().manual_seed(0)
    A = torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.8, 0.5], [0.3, 0.0, 0.9]]).double()
    std = torch.tensor([0.5, 0.7, 0.6]).double()
    x = torch.randn(N, D, generator=generator).double()
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T  # cov I exactly
    mean = x @ A.T
    z = mean + std * torch.randn(N, D, generator=generator).double()
    covariance = A @ A.T + torch.diag(std.square())
    return mean, 2.0 * std.log().expand_as(mean), z, covariance


def normal_log_prob(z):
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def closed_form(covariance, logvar):
    """Mutual information, total correlation and KL by dimension, nats."""
    variances = covariance.diagonal()
    entropy = 0.5 * torch.logdet(covariance)
    mutual = entropy - 0.5 * logvar[0].sum()
    total = 0.5 * variances.log().sum() - entropy
    return mutual, total, 0.5 * (variances - 1 - variances.log()).sum()


def test_the_stratified_parts_are_those_of_the_gaussian(gaussian):
    mean, logvar, z, covariance = gaussian
    parts = decompose_kl(mean, logvar, z, normal_log_prob(z), N, "stratified")
    for part, exact in zip(parts, closed_form(covariance, logvar)):
        error = 5 * part.std() / math.sqrt(N) + 0.03  # the mixture of N posteriors is no Gaussian
        assert abs(part.mean() - exact) < error


def test_minibatches_of_the_stratified_form_are_near_it(gaussian):
    mean, logvar, z, covariance = gaussian
    batches = torch.randperm(N, generator=torch.Generator().manual_seed(1)).split(250)
    parts = [
        decompose_kl(mean[b], logvar[b], z[b], normal_log_prob(z[b]), N, "stratified")
        for b in batches
    ]
    total = torch.cat([part.total_correlation for part in parts])
    assert abs(total.mean() - closed_form(covariance, logvar)[1]) < 0.15  # the log of a mean


def test_the_weighted_form_is_off_by_logs_of_n_that_cancel_in_the_gradient(gaussian):
    mean, logvar, z, covariance = gaussian
    exact = decompose_kl(mean, logvar, z, normal_log_prob(z), N, "stratified")
    found = decompose_kl(mean, logvar, z, normal_log_prob(z), N, "weighted")
    log_n = math.log(N)  # the whole data set is the batch, so that both mix all posteriors alike
    offsets = (log_n, (D - 1) * log_n, -D * log_n)
    for part, other, offset in zip(found, exact, offsets):
        assert torch.allclose(part, other + offset, atol=1e-9)
    assert (
        abs(found.total_correlation.mean() - offsets[1] - closed_form(covariance, logvar)[1]) < 0.1
    )


def transposed(mean, logvar, z, rows):
    """Total correlation with the published bug: the sum runs over the draws i."""
    pairs = torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).log_prob(z[:, None])
    log_m = math.log(len(z))
    log_q = torch.logsumexp(pairs.sum(2), 0) - log_m
    return log_q - (torch.logsumexp(pairs, 0) - log_m).sum(1)


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_it_is_not_the_transposed_sum(gaussian, estimator):
    mean, _, z, _ = gaussian
    wide = torch.linspace(-3, 1, N).double()[:, None].expand_as(mean)  # posteriors that differ
    own = decompose_kl(mean, wide, z, normal_log_prob(z), N, estimator).total_correlation
    wrong = transposed(mean, wide, z, N)
    assert abs((own - own.mean()) - (wrong - wrong.mean())).mean() > 0.2


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_the_parts_sum_to_the_kl_at_the_draws(estimator, rows):
    generator = torch.Generator().manual_seed(2)
    mean, logvar, z = torch.randn(3, rows, 4, generator=generator)
    prior = normal_log_prob(z.double())
    parts = decompose_kl(mean, logvar, z, prior, 100, estimator)
    own = torch.distributions.Normal(mean.double(), torch.exp(0.5 * logvar.double()))
    assert torch.allclose(sum(parts), own.log_prob(z.double()).sum(1) - prior)
    assert all(part.isfinite().all() for part in parts)


def test_the_gradient_is_autograd_of_the_plain_formula():
    generator = torch.Generator().manual_seed(3)
    mean, logvar, noise = torch.randn(3, 6, 2, generator=generator).double()

    def loss(mean, logvar):
        z = mean + torch.exp(0.5 * logvar) * noise
        return decompose_kl(mean, logvar, z, normal_log_prob(z), 50).total_correlation.mean()

    inputs = mean.requires_grad_(), logvar.requires_grad_()
    assert torch.autograd.gradcheck(loss, inputs)


def terms(objective, seed=0):
    vae, x = MLPVAE((6,), (8,), 3), torch.rand(30, 6, generator=torch.Generator().manual_seed(1))
    return objective.terms(vae, x, Step(torch.Generator().manual_seed(seed), 300))


def test_beta_one_is_the_bound_at_the_draws():
    one = terms(TCVAE(1.0))
    parts = sum(one[name] for name in ("mutual_information", "total_correlation", "dimension_kl"))
    assert torch.allclose(one["loss"], parts - one["reconstruction"])
    assert torch.allclose(one["reconstruction"], terms(BetaELBO())["reconstruction"])


def test_beta_weighs_the_total_correlation_alone():
    one, five = terms(TCVAE(1.0)), terms(TCVAE(5.0))
    assert torch.allclose(five["loss"] - one["loss"], 4 * one["total_correlation"])
    assert torch.equal(five["total_correlation"], one["total_correlation"])


def test_training_lowers_the_total_correlation():
    generator = torch.Generator().manual_seed(4)
    factors = torch.rand(400, 2, generator=generator)
    x = torch.sigmoid(4 * factors @ torch.randn(2, 12, generator=generator))
    found = []
    for beta in (1.0, 30.0):
        vae = MLPVAE((12,), (32,), 3, "tanh", "gaussian", 0.1)
        history = fit(vae, x, objective="tcvae", beta=beta, epochs=15, lr=3e-3, batch_size=64)
        assert all(math.isfinite(v) for values in history.terms.values() for v in values)
        mean, logvar = vae.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator)
        parts = decompose_kl(mean, logvar, z, vae.log_prior(z), 400, "stratified")
        found.append(parts.total_correlation.mean().item())
        assert math.isfinite(evaluate_elbo(vae, x).elbo.mean())
    assert set(history.terms) >= {"mutual_information", "total_correlation", "dimension_kl"}
    assert found[1] < 0.5 * found[0]


def test_mistakes():
    with pytest.raises(ValueError, match="estimator must be one of 'weighted', 'stratified'"):
        TCVAE(2.0, "mss")
    with pytest.raises(ValueError, match="beta must be at least 0 and finite, got -1"):
        TCVAE(-1.0)
