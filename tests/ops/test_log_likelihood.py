"""log_likelihood: rows, chains, constants, gradients and bad rows; pixels are test_likelihoods'."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import ContinuousBernoulli, Normal

import vaefast as vf
from vaefast.bench.cases import SHAPES, images
from vaefast.ops import log_likelihood
from vaefast.types import LIKELIHOODS

STD = 0.4


def case(B=3, C=2, D=7, dtype=torch.float64, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = scale * torch.randn(B * C, D, generator=generator, dtype=torch.float64)
    return out.to(dtype), images(B, D, dtype=dtype).x


def by_torch(out, x, likelihood):
    """log p per row by torch's own functions, x repeated for its chains."""
    x = x.repeat_interleave(len(out) // max(len(x), 1), dim=0)
    if likelihood == "gaussian":
        return Normal(out, STD).log_prob(x).sum(1)
    if likelihood == "continuous_bernoulli":
        return ContinuousBernoulli(logits=out).log_prob(x).sum(1)
    if likelihood == "clamped_bernoulli":
        p = torch.sigmoid(out).clamp(1e-5, 1 - 1e-5)
        return (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    return -F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(1)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("C", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradient_are_torch_s(backend, shape, C, likelihood):
    out, x = case(shape[0], C, shape[1])
    logp, gradient = log_likelihood(out, x, likelihood=likelihood, obs_std=STD, backend=backend)
    assert logp.dtype == torch.float64
    out.requires_grad_()
    expected = by_torch(out, x, likelihood)
    torch.testing.assert_close(logp, expected.detach(), rtol=2e-6, atol=1e-6)
    (derivative,) = torch.autograd.grad(expected.sum(), out)
    torch.testing.assert_close(gradient, derivative, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_float32_terms_are_summed_in_float64(backend, likelihood):
    out, x = case(4, 1, 50_000, scale=8.0)
    truth, slope = log_likelihood(out, x, likelihood=likelihood, obs_std=STD, backend="reference")
    logp, gradient = log_likelihood(
        out.float(), x.float(), likelihood=likelihood, obs_std=STD, backend=backend
    )
    assert logp.dtype == torch.float64
    assert gradient.dtype == torch.float32
    assert ((logp - truth) / truth).abs().max() <= 1e-6
    assert (gradient - slope).abs().max() <= 2e-6 * slope.abs().max()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_each_row_belongs_to_its_input(backend, likelihood):
    out, x = case(3, 4)
    logp, gradient = log_likelihood(out, x, likelihood=likelihood, backend=backend)
    for n in range(12):
        alone = log_likelihood(
            out[n : n + 1], x[n // 4][None], likelihood=likelihood, backend=backend
        )
        torch.testing.assert_close(logp[n : n + 1], alone[0])
        torch.testing.assert_close(gradient[n : n + 1], alone[1])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_memory_budget_and_strides_do_not_matter(backend, likelihood):
    out, x = case(8, 2, 12)
    out, x = out[:, ::2], x.T.contiguous().T[:, ::2]
    whole = log_likelihood(out, x, likelihood=likelihood, backend=backend)
    vf.set_memory(1)
    torch.testing.assert_close(log_likelihood(out, x, likelihood=likelihood), whole)
    vf.set_memory(1 << 30)
    torch.testing.assert_close(
        log_likelihood(out.contiguous(), x.contiguous(), likelihood=likelihood), whole
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bad_rows_are_nan_and_the_others_are_untouched(backend, likelihood, bad):
    out, x = case(3, 2)
    clean = log_likelihood(out, x, likelihood=likelihood, backend=backend)
    out[0, 1] = bad
    x[2, 3] = bad
    logp, gradient = log_likelihood(out, x, likelihood=likelihood, backend=backend)
    assert logp[[0, 4, 5]].isnan().all()
    assert gradient[[0, 4, 5]].isnan().all()
    assert torch.equal(logp[1:4], clean[0][1:4])
    assert torch.equal(gradient[1:4], clean[1][1:4])


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_both_results_are_differentiable_once(backend, likelihood):
    out, x = (t.requires_grad_() for t in case(2, 2, 4))

    def run(out, x):
        return log_likelihood(out, x, likelihood=likelihood, obs_std=STD)

    assert torch.autograd.gradcheck(run, (out, x))
    with pytest.raises(RuntimeError, match="log_likelihood is differentiable once"):
        torch.autograd.grad(run(out, x)[0].sum(), out, create_graph=True)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_derivative_in_out_alone(backend, likelihood):
    out, x = case(2, 2, 4)
    out.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda out: log_likelihood(out, x, likelihood=likelihood, obs_std=STD), out
    )
    logp, gradient = log_likelihood(out.float(), x.float(), likelihood=likelihood)
    (derivative,) = torch.autograd.grad(logp.sum(), out)
    assert torch.equal(derivative.float(), gradient)  # what was returned serves as the derivative


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_reference_is_differentiable_twice(likelihood):
    out, x = (t.requires_grad_() for t in case(2, 1, 3))
    assert torch.autograd.gradgradcheck(
        lambda out, x: log_likelihood(out, x, likelihood=likelihood, backend="reference")[0],
        (out, x),
    )


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_registered_op_passes_opcheck(backend, likelihood, grad):
    out, x = (t.requires_grad_(grad) for t in case())
    torch.library.opcheck(
        torch.ops.vaefast.log_likelihood.default, (out, x, likelihood, STD, backend)
    )


def test_compiles_without_graph_breaks_or_recompiling(backend):
    torch._dynamo.reset()
    compiled = torch.compile(log_likelihood, fullgraph=True, backend="aot_eager", dynamic=False)
    for seed in (0, 1):
        out, x = case(seed=seed)
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            result = compiled(out, x, likelihood="bernoulli", backend=backend)
        torch.testing.assert_close(
            result, log_likelihood(out, x, likelihood="bernoulli", backend=backend)
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"out": torch.zeros(5, 7).double()}, ValueError, r"out must have B·C rows, C .* 3 rows"),
        ({"x": torch.zeros(3, 6).double()}, ValueError, r"x must be \[B, D\] with 7 columns"),
        ({"x": torch.zeros(3, 7)}, TypeError, "x must be float64 like out, got float32; pass"),
        ({"x": torch.zeros(0, 7).double()}, ValueError, "each of the 0 rows of x, got 6"),
        (
            {"likelihood": "poisson"},
            ValueError,
            "likelihood must be one of 'bernoulli', .* 'poisson'",
        ),
        ({"obs_std": 0.0}, ValueError, "obs_std must be positive and finite, got 0.0"),
        ({"obs_std": "1"}, TypeError, "obs_std must be a number, got str"),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    out, x = case()
    with pytest.raises(error, match=message):
        log_likelihood(**{"out": out, "x": x, "likelihood": "bernoulli", **change})
