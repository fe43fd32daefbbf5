"""The likelihoods: they normalise, their derivatives are right, and no logit is too large."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS
from vaefast.types import LIKELIHOODS

LOGITS = (-1e3, -40.0, -3.0, -0.51, -0.5, -0.3, -1e-3, 0.0, 1e-9, 0.49, 0.5, 2.0, 30.0, 1e3)


def column(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def parameters(likelihood):
    return [torch.tensor(0.3).double() for _ in PIXEL_LIKELIHOODS[likelihood].parameters]


def density(likelihood, out, x):
    pixel, given = PIXEL_LIKELIHOODS[likelihood], parameters(likelihood)
    return (pixel.log_density(out, x, *given) + pixel.constant(1, *given)).exp()


def test_the_table_has_every_likelihood():
    assert set(PIXEL_LIKELIHOODS) == set(LIKELIHOODS)


@pytest.mark.parametrize("out", LOGITS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "clamped_bernoulli"])
def test_bernoulli_probabilities_sum_to_one(likelihood, out):
    total = density(likelihood, column([out, out]), column([0.0, 1.0])).sum()
    assert total.item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("out", [-1.5, 0.0, 0.2])
def test_gaussian_integrates_to_one(out):
    total, _ = integrate.quad(
        lambda x: density("gaussian", column([out]), column([x])).item(), out - 4, out + 4
    )
    assert total == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("out", [a for a in LOGITS if abs(a) < 100])
def test_continuous_bernoulli_integrates_to_one(out):
    total, _ = integrate.quad(
        lambda x: density("continuous_bernoulli", column([out]), column([x])).item(), 0, 1
    )
    assert total == pytest.approx(1.0, abs=1e-9)


def mean_by_quadrature(a):
    """E[x] under a density proportional to exp(a x) on [0, 1], by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x = (nodes + 1) / 2
    density = weights * np.exp(a * x - max(a, 0.0))
    return (density * x).sum() / density.sum()


@pytest.mark.parametrize("a", [a for a in LOGITS if abs(a) < 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-7)])
def test_continuous_bernoulli_derivative_is_x_minus_the_mean(a, dtype, tolerance):
    derivative = PIXEL_LIKELIHOODS["continuous_bernoulli"].derivative
    out, x = column([a], dtype), column([0.25], dtype)
    a = out.double().item()  # as rounded to the dtype
    expected = 0.25 - mean_by_quadrature(a)
    assert derivative(out, x).item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("a", [-1e30, -1e4, 1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_continuous_bernoulli_at_huge_logits_is_an_exponential(a, dtype):
    """Far out the density near the corner is |a|·exp(−|a|·distance), the mean 1/|a| from it."""
    pixel = PIXEL_LIKELIHOODS["continuous_bernoulli"]
    out, corner = column([a], dtype), column([float(a > 0)], dtype)
    assert pixel.log_density(out, corner).item() == pytest.approx(math.log(abs(a)), rel=1e-6)
    expected = math.copysign(1 / abs(a), a)
    assert pixel.derivative(out, corner).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_continuous_bernoulli_is_smooth_where_the_series_takes_over(side):
    pixel = PIXEL_LIKELIHOODS["continuous_bernoulli"]
    below, above = column([side * (0.5 - 1e-15)]), column([side * 0.5])
    x = column([0.7])
    for function in (pixel.log_density, pixel.derivative):
        assert function(below, x).item() == pytest.approx(function(above, x).item(), abs=1e-14)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_derivative_is_that_of_the_density(likelihood, x):
    pixel = PIXEL_LIKELIHOODS[likelihood]
    out = column(LOGITS).requires_grad_()
    pixels, given = column([x]), parameters(likelihood)
    (expected,) = torch.autograd.grad(pixel.log_density(out, pixels, *given).sum(), out)
    result = pixel.derivative(out, pixels, *given)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_derivative_is_differentiable_by_finite_differences(likelihood):
    out = column([-30.0, -11.0, -2.0, -0.4, 0.3, 0.6, 4.0, 25.0]).requires_grad_()
    x = torch.full((8,), 0.3, dtype=torch.float64, requires_grad=True)
    pixel, given = PIXEL_LIKELIHOODS[likelihood], parameters(likelihood)
    for function in (pixel.log_density, pixel.derivative):
        assert torch.autograd.gradcheck(lambda a, x, f=function: f(a, x, *given), (out, x))


@pytest.mark.parametrize("likelihood", ["bernoulli", "clamped_bernoulli", "continuous_bernoulli"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_logits_give_finite_values(likelihood, dtype):
    out = column([-3e38, -1e10, -100.0, 100.0, 1e10, 3e38], dtype)
    pixel = PIXEL_LIKELIHOODS[likelihood]
    for x in (0.0, 0.5):
        pixels = torch.full_like(out, x)
        assert pixel.log_density(out, pixels).isfinite().all()
        assert pixel.derivative(out, pixels).isfinite().all()


def test_bernoulli_in_float32_keeps_small_terms_of_confident_pixels():
    """−log(1 + e⁻ᵘ) at u = 20 is 2e-9; it must not drown in the 20 that it is subtracted from."""
    out = torch.tensor([20.0, -20.0])
    terms = PIXEL_LIKELIHOODS["bernoulli"].log_density(out, torch.tensor([1.0, 0.0]))
    assert terms.tolist() == pytest.approx([-math.log1p(math.exp(-20))] * 2, rel=1e-6)


def test_clamped_bernoulli_is_the_published_form():
    out, x = column(LOGITS), column([0.3])
    p = torch.sigmoid(out).clamp(1e-5, 1 - 1e-5)
    expected = x * p.log() + (1 - x) * (1 - p).log()
    pixel = PIXEL_LIKELIHOODS["clamped_bernoulli"]
    torch.testing.assert_close(pixel.log_density(out, x), expected, rtol=1e-9, atol=0)
    outside = (torch.sigmoid(out) < 1e-5) | (torch.sigmoid(out) > 1 - 1e-5)
    assert (pixel.derivative(out, x)[outside] == 0).all()
    assert (pixel.derivative(out, x)[~outside] != 0).all()
