"""The likelihoods of counts: torch's densities in float64, derivatives, extremes."""

import pytest
import torch
from torch.distributions import Multinomial, NegativeBinomial, OneHotCategorical

from vaefast.functional.counts import COUNTS


def case(name, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    out = 3.0 * torch.randn(6, 5, 4, generator=generator, dtype=torch.float64)
    x = torch.randint(0, 40, (6, 5, 4), generator=generator).double()
    parameters = [torch.tensor([0.3, 1.0, 7.0, 2e4]).double()] if COUNTS[name].parameters else []
    return out.to(dtype), x.to(dtype), [p.to(dtype) for p in parameters]


def exact(name, out, x, parameters):
    """log p of every row, by torch's distributions."""
    if name == "negative_binomial":
        (theta,) = parameters
        law = NegativeBinomial(total_count=theta, logits=out - theta.log(), validate_args=False)
        return law.log_prob(x).flatten(1).sum(1)
    flat = [
        Multinomial(int(n.sum()), logits=a).log_prob(n) if n.sum() else torch.zeros(()).double()
        for a, n in zip(out.flatten(0, 1), x.flatten(0, 1))
    ]
    return torch.stack(flat).view(len(out), -1).sum(1)


@pytest.mark.parametrize("name", COUNTS)
def test_the_density_is_torchs(name):
    out, x, parameters = case(name)
    found = COUNTS[name].log_density(out, x, *parameters).flatten(1).sum(1)
    torch.testing.assert_close(found, exact(name, out, x, parameters), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", COUNTS)
def test_float32_errs_by_little(name):
    out, x, parameters = case(name)
    wide = COUNTS[name].log_density(out, x, *parameters).flatten(1).sum(1)
    narrow = COUNTS[name].log_density(
        *(t.float() for t in (out, x)), *[p.float() for p in parameters]
    )
    assert ((narrow.flatten(1).sum(1) - wide).abs() < 2e-5 * wide.abs().clamp(min=100)).all()


def test_one_hot_counts_are_a_categorical():
    out = case("categorical")[0]
    x = torch.eye(4).double()[torch.randint(0, 4, (6, 5))]
    found = COUNTS["categorical"].log_density(out, x).sum(-1)
    expected = OneHotCategorical(logits=out).log_prob(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", COUNTS)
def test_the_derivative_is_autograds(name):
    out, x, parameters = case(name)
    out.requires_grad_()
    total = COUNTS[name].log_density(out, x, *parameters).sum()
    (slope,) = torch.autograd.grad(total, out)
    found = COUNTS[name].derivative(out.detach(), x, *parameters)
    torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", COUNTS)
def test_the_mean_is_that_of_the_density(name):
    out, _, parameters = case(name)
    mean = COUNTS[name].mean(out)
    if name == "negative_binomial":
        law = NegativeBinomial(parameters[0], logits=out - parameters[0].log())
        torch.testing.assert_close(mean, law.mean, rtol=1e-9, atol=1e-12)
    else:
        torch.testing.assert_close(mean.sum(-1), torch.ones(6, 5).double())


def test_extreme_means_give_finite_numbers():
    out = torch.tensor([-200.0, -80.0, 0.0, 80.0, 200.0]).double()
    x = torch.tensor([0.0, 3.0, 0.0, 3.0, 1e6]).double()
    theta = torch.tensor(2.0).double()
    found = COUNTS["negative_binomial"].log_density(out, x, theta)
    assert found.isfinite().all()
    assert found[0].abs() < 1e-12  # μ = 0 and x = 0 is certain
