"""The divergences against torch.distributions and against their own mathematics."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from vaefast.attacks import divergences
from vaefast.attacks.divergences import DIVERGENCES, SLOPES


def posteriors(rows=50, latents=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, latents, generator=generator, dtype=torch.float64).to(dtype)
        for _ in range(4)
    ]


def gaussian(mean, logvar):
    return Independent(Normal(mean, torch.exp(0.5 * logvar)), 1)


def test_kl_agrees_with_torch():
    mean, logvar, mean_ref, logvar_ref = posteriors()
    q, p = gaussian(mean, logvar), gaussian(mean_ref, logvar_ref)
    torch.testing.assert_close(
        divergences.kl_reverse(mean, logvar, mean_ref, logvar_ref), kl_divergence(q, p)
    )
    torch.testing.assert_close(
        divergences.kl_forward(mean, logvar, mean_ref, logvar_ref), kl_divergence(p, q)
    )


def test_skl_is_the_mean_of_both_directions():
    arguments = posteriors()
    both = divergences.kl_forward(*arguments) + divergences.kl_reverse(*arguments)
    torch.testing.assert_close(divergences.skl(*arguments), both / 2)


@pytest.mark.parametrize("name", ["skl", "means", "w2"])
def test_symmetric_divergences_do_not_change_when_swapped(name):
    mean, logvar, mean_ref, logvar_ref = posteriors()
    torch.testing.assert_close(
        DIVERGENCES[name](mean, logvar, mean_ref, logvar_ref),
        DIVERGENCES[name](mean_ref, logvar_ref, mean, logvar),
    )


def test_w2_is_the_squared_distance_of_means_and_stds():
    mean, logvar, mean_ref, logvar_ref = posteriors()
    std, std_ref = torch.exp(logvar / 2), torch.exp(logvar_ref / 2)
    expected = (mean - mean_ref).pow(2).sum(1) + (std - std_ref).pow(2).sum(1)
    torch.testing.assert_close(DIVERGENCES["w2"](mean, logvar, mean_ref, logvar_ref), expected)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_zero_at_equality_and_positive_elsewhere(name):
    mean, logvar, mean_ref, logvar_ref = posteriors()
    divergence = DIVERGENCES[name]
    assert torch.equal(divergence(mean, logvar, mean, logvar), torch.zeros(50).double())
    assert (divergence(mean, logvar, mean_ref, logvar_ref) > 0).all()


@pytest.mark.parametrize("name", ["skl", "kl_forward", "kl_reverse"])
def test_close_variances_do_not_cancel(name):
    """D ≈ t²/4 for equal means and log-variances that differ by t."""
    zero, t = torch.zeros(1, 1).double(), torch.full((1, 1), 1e-6, dtype=torch.float64)
    value = DIVERGENCES[name](zero, t, zero, zero)
    torch.testing.assert_close(value, t.square().sum(1) / 4, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_narrow_inputs_are_worked_on_in_float64(name, dtype):
    narrow = posteriors(dtype=dtype)
    wide = [t.double() for t in narrow]
    assert torch.equal(DIVERGENCES[name](*narrow), DIVERGENCES[name](*wide))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients(name):
    mean, logvar, mean_ref, logvar_ref = posteriors(rows=3)
    mean.requires_grad_(), logvar.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, v: DIVERGENCES[name](m, v, mean_ref, logvar_ref), (mean, logvar)
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_closed_derivatives_are_autograd_s(name):
    mean, logvar, mean_ref, logvar_ref = posteriors()
    mean.requires_grad_(), logvar.requires_grad_()
    value = DIVERGENCES[name](mean, logvar, mean_ref, logvar_ref)
    expected = torch.autograd.grad(
        value.sum(), (mean, logvar), allow_unused=True, materialize_grads=True
    )
    with torch.no_grad():
        found, by_mean, by_logvar = SLOPES[name](mean, logvar, mean_ref, logvar_ref)
    by_logvar = torch.zeros_like(logvar) if by_logvar is None else by_logvar
    for ours, theirs in zip((found, by_mean, by_logvar), (value, *expected)):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["skl", "kl_forward", "kl_reverse"])
def test_closed_derivatives_of_close_variances_do_not_cancel(name):
    """∂D/∂log σ² ≈ t/2 for equal means and log-variances that differ by t."""
    zero, t = torch.zeros(1, 1).double(), torch.full((1, 1), 1e-6, dtype=torch.float64)
    _, _, slope = SLOPES[name](zero, t, zero, zero)
    torch.testing.assert_close(slope, t / 2, rtol=1e-5, atol=0.0)
