"""Annealed importance sampling: the sandwich of log p(x) in closed form, both paths."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from vaefast.hmc import SamplerWarning, log_marginal
from vaefast.hmc.annealing import ladder

A = torch.tensor([[1.0, 0.2, 0.0], [0.3, 2.0, 0.1], [0.0, -0.4, 0.3], [0.5, 0.0, 0.0]]).double()
S = 0.5


def simulated(model, rows, seed=1):
    """z ~ p(z), x ~ p(x|z), and log p(x)."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    b = model.vae.decode(torch.zeros(1, 3).double()).detach()[0]
    x = z @ A.T + b + S * torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return z, x, MultivariateNormal(b, A @ A.T + S**2 * torch.eye(4)).log_prob(x)


def divergence(model, x):
    """KL(q ‖ p(z|x)) for q = N(0, I)."""
    b = model.vae.decode(torch.zeros(1, 3).double()).detach()[0]
    mean = (x - b) @ A @ model.covariance / S**2
    q = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    return kl_divergence(q, MultivariateNormal(mean, model.covariance))


@pytest.mark.parametrize("generic", [False, True], ids=["fused", "generic"])
def test_both_bounds_meet_at_the_exact_evidence(linear_gaussian, generic):
    model = linear_gaussian(A, generic=generic)
    rows = 2 if generic else 4
    z, x, evidence = simulated(model, rows)
    temperatures = 60 if generic else 120
    found = log_marginal(model.vae, x, temperatures=temperatures, chains=16, exact=z, seed=2)
    for bound in (found.lower, found.upper):
        assert ((bound.value - evidence).abs() < 4.5 * bound.std_error + 1e-3).all()
        assert bound.std_error.max() < 0.6
    assert (found.lower.kind, found.upper.kind) == ("lower bound", "upper bound")
    for end in found.gap:
        assert ((end.value - divergence(model, x)).abs() < 4.5 * end.std_error + 1e-3).all()
    assert (found.weights > 4).all()
    assert (found.accept_rate > 0.6).all()
    assert not found.failed.any()


def test_few_temperatures_leave_the_truth_between_the_bounds(linear_gaussian):
    """Mean log w ≤ log p(x) ≤ mean of the reverse one, by much; the errors' direction is known."""
    model = linear_gaussian(A)
    z, x, evidence = simulated(model, 200)
    found = log_marginal(model.vae, x, temperatures=2, chains=2, leapfrog=1, exact=z, seed=3)
    below, above = evidence - found.lower.value, found.upper.value - evidence
    for slack in (below, above):
        assert slack.mean() > 4.5 * slack.std() / math.sqrt(len(slack))
    assert (below < -6).sum() == 0  # P(log w > log p + b) ≤ e^−b


def test_without_exact_draws_the_upper_end_is_an_estimate(linear_gaussian):
    model = linear_gaussian(A)
    _, x, evidence = simulated(model, 4)
    found = log_marginal(model.vae, x, temperatures=100, chains=16, seed=4)
    assert found.upper.kind == "estimate"
    assert ((found.upper.value - evidence).abs() < 4.5 * found.upper.std_error + 0.01).all()


def test_the_elbo_is_that_of_q(linear_gaussian):
    model = linear_gaussian(A)
    _, x, evidence = simulated(model, 5)
    found = log_marginal(model.vae, x, temperatures=2, chains=8, seed=5)
    expected = evidence - divergence(model, x)
    assert ((found.elbo.value - expected).abs() < 4.5 * found.elbo.std_error).all()


def test_a_row_depends_on_its_index_only_and_a_bad_one_fails_alone(mlp_vae):
    vae = mlp_vae()
    x = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)).double()
    options = {"temperatures": 4, "chains": 2, "leapfrog": 2, "seed": 6}
    whole = log_marginal(vae, x, **options)
    part = log_marginal(vae, x[3:], index=torch.tensor([3, 4]), **options)
    assert torch.equal(whole.lower.value[3:], part.lower.value)
    assert torch.equal(whole.upper.value[3:], part.upper.value)
    assert whole.reproducible == "bits"
    x[1, 0] = math.nan
    spoilt = log_marginal(vae, x, **options)
    assert spoilt.failed.tolist() == [False, True, False, False, False]
    assert spoilt.lower.value[1].isnan()
    assert torch.equal(spoilt.lower.value[2:], whole.lower.value[2:])


def test_an_empty_batch_and_bad_arguments(mlp_vae):
    vae, x = mlp_vae(), torch.rand(2, 6).double()
    assert log_marginal(vae, x[:0], temperatures=2, chains=2).lower.value.shape == (0,)
    with pytest.raises(ValueError, match="temperatures must be at least 2"):
        log_marginal(vae, x, temperatures=1)
    with pytest.raises(ValueError, match="chains must be at least 2"):
        log_marginal(vae, x, chains=1)
    with pytest.raises(ValueError, match=r"exact must be \[B, d\] = \[2, 2\]"):
        log_marginal(vae, x, exact=torch.zeros(2, 5))


def test_the_ladder_rises_from_q_to_the_joint():
    betas = torch.tensor(ladder(7))
    assert betas[[0, -1]].tolist() == [0.0, 1.0]
    assert (betas.diff() > 0).all()


def test_ends_that_crossed_are_said(linear_gaussian):
    """Reverse runs from states that are not the posterior's."""
    model = linear_gaussian(A)
    _, x, _ = simulated(model, 3)
    with pytest.warns(SamplerWarning, match=r"in \d of 3 inputs .* lies below the lower bound"):
        log_marginal(model.vae, 4.0 * x, temperatures=2, chains=100, leapfrog=1, seed=1)
