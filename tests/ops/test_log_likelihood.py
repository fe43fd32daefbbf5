"""log_likelihood: rows, chains, constants, gradients and bad rows; pixels are test_likelihoods'."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import ContinuousBernoulli, Normal

import vaefast as vf
from vaefast.bench.cases import SHAPES, images
from vaefast.ops import log_likelihood
from vaefast.runtime.backends import interpreted
from vaefast.types import LIKELIHOODS

STD = 0.4


def options_of(likelihood):
    """The likelihood's name and parameters."""
    return {
        "likelihood": likelihood,
        "likelihood_params": [STD] if likelihood == "gaussian" else [],
    }


def case(B=3, C=2, D=7, dtype=torch.float64, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    out = scale * torch.randn(B * C, D, generator=generator, dtype=torch.float64)
    return out.to(dtype), images(B, D, dtype=dtype).x


def same(result, expected, backend):
    """The same bits; the reference is reproducible to round-off."""
    if backend == "reference":
        eps = torch.finfo(result.dtype).eps
        torch.testing.assert_close(result, expected, rtol=4 * eps, atol=4 * eps)
    else:
        assert torch.equal(result, expected)


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
    rows, pixels = shape
    if backend == "triton" and interpreted():  # which runs programs one by one: some will do
        rows = min(rows, 17)
    out, x = case(rows, C, pixels)
    logp, gradient = log_likelihood(out, x, **options_of(likelihood), backend=backend)
    assert logp.dtype == torch.float64
    out.requires_grad_()
    expected = by_torch(out, x, likelihood)
    torch.testing.assert_close(logp, expected.detach(), rtol=2e-6, atol=1e-6)
    (derivative,) = torch.autograd.grad(expected.sum(), out)
    torch.testing.assert_close(gradient, derivative, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_float32_terms_are_summed_in_float64(backend, likelihood):
    out, x = case(4, 1, 50_000, scale=8.0)
    truth, slope = log_likelihood(out, x, **options_of(likelihood), backend="reference")
    logp, gradient = log_likelihood(
        out.float(), x.float(), **options_of(likelihood), backend=backend
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
        return log_likelihood(out, x, **options_of(likelihood))

    assert torch.autograd.gradcheck(run, (out, x))
    with pytest.raises(RuntimeError, match="log_likelihood is differentiable once"):
        torch.autograd.grad(run(out, x)[0].sum(), out, create_graph=True)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_derivative_in_out_alone(backend, likelihood):
    out, x = case(2, 2, 4)
    out.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda out: log_likelihood(out, x, **options_of(likelihood)), out
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


def logits(dtype):
    """Both signs of every size, and the neighbourhoods where the formulas change."""
    generator = torch.Generator().manual_seed(2)
    wide = 10 ** (torch.rand(4000, generator=generator, dtype=torch.float64) * 9 - 6)
    near = [torch.linspace(a, b, 400, dtype=torch.float64) for a, b in ((0.4, 0.6), (9, 110))]
    ends = torch.tensor([0.0, 1e-42, 1e-30, 1e10, 1e18], dtype=torch.float64)
    size = torch.cat([wide, *near, ends])
    return torch.cat([size, -size]).to(dtype)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_err_at_most_twice_what_eager_torch_errs(backend, dtype, likelihood):
    a = logits(dtype)[:: 50 if backend == "triton" else 1]  # one by one the interpreter is slow
    x = torch.tensor([0, 1, 0.25, 0.5, 0.9, 1e-9, 1 - 1e-6], dtype=dtype)[:, None]
    out = a.repeat(len(x))[:, None]
    edge = (out.double().abs() - math.log(99999)).abs() < 1e-5  # float32's clamp is not float64's

    def run(backend, *tensors):
        results = log_likelihood(*tensors, **options_of(likelihood), backend=backend)
        return [r.view(-1)[~edge.flatten()].double() for r in results]

    truth = run("reference", out.double(), x.double())
    for exact, eager, ours in zip(truth, run("reference", out, x), run(backend, out, x)):
        error, allowed = ((r - exact).abs() / (1 + exact.abs()) for r in (ours, eager))
        assert error.max() <= 2 * allowed.max() + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
@pytest.mark.parametrize("size", [1e10, 1e30, 3e38])
def test_no_logit_is_too_large(backend, size, likelihood):
    out = torch.tensor([[size], [-size]]).repeat(2, 1)
    x = torch.tensor([[0.0], [1.0]])
    logp, gradient = log_likelihood(out, x, likelihood=likelihood, backend=backend)
    right, slope = 0.0, 0.0
    if likelihood == "continuous_bernoulli":
        right, slope = math.log(size), 1 / size
    expected = torch.tensor([right - size, right, right, right - size], dtype=torch.float64)
    torch.testing.assert_close(logp, expected, rtol=1e-6, atol=0)
    saturated = torch.tensor([[-1.0], [-slope], [slope], [1.0]])
    torch.testing.assert_close(gradient, saturated, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("likelihood", ["bernoulli", "clamped_bernoulli"])
def test_saturated_pixels_keep_their_digits(backend, likelihood, dtype):
    out = torch.linspace(0, 11, 300, dtype=dtype)[:, None]
    if likelihood == "bernoulli":
        out = 7 * out
    logp, _ = log_likelihood(out, torch.ones_like(out), likelihood=likelihood, backend=backend)
    expected = -torch.log1p(torch.exp(-out.double().flatten()))
    torch.testing.assert_close(logp, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_widths_around_the_vectors_and_blocks(backend, dtype, likelihood):
    whole, x = case(2, 2, 130, dtype=dtype)
    pixels = log_likelihood(
        whole.reshape(-1, 1), x.repeat_interleave(2, 0).reshape(-1, 1),
        **options_of(likelihood), backend=backend,
    )  # fmt: skip
    tolerance = 1e-13 if backend != "reference" else 1e-6
    for D in (*range(34), 63, 64, 65, 127, 128, 129):
        logp, gradient = log_likelihood(
            whole[:, :D], x[:, :D], **options_of(likelihood), backend=backend
        )
        same(gradient, pixels[1].view(4, 130)[:, :D], backend)
        torch.testing.assert_close(
            logp, pixels[0].view(4, 130)[:, :D].sum(1), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("place", [0, 31, 32, 64, 68])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bad_pixel_anywhere_makes_its_row_nan(backend, dtype, place, likelihood):
    for bad in (math.nan, math.inf, -math.inf):
        for which in (0, 1):
            arguments = case(2, 1, 69, dtype=dtype)
            arguments[which][1, place] = bad
            logp, gradient = log_likelihood(*arguments, likelihood=likelihood, backend=backend)
            assert logp.isnan().tolist() == [False, True]
            assert gradient.isnan().all(dim=1).tolist() == [False, True]
            assert gradient[0].isfinite().all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_cut_and_thread_count(backend, dtype, likelihood):
    if backend == "reference":
        pytest.skip("the reference is reproducible to round-off")
    B = 10 if backend == "triton" else 60  # the interpreter is slow
    out, x = case(B, 3, 1030, dtype=dtype)

    def run(rows=slice(0, B)):
        part = out[rows.start * 3 : rows.stop * 3]
        return log_likelihood(part, x[rows], **options_of(likelihood), backend=backend)

    whole = run()
    parts = [run(rows) for rows in (slice(0, 7), slice(7, 8), slice(8, B))]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3) if backend == "cpp" else (1,):
            torch.set_num_threads(threads)
            for result, pieces, expected in zip(run(), zip(*parts), whole):
                assert torch.equal(result, expected)
                assert torch.equal(torch.cat(pieces), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_any_layout(backend, likelihood):
    out, x = case(5, 2, 37)
    truth = log_likelihood(out, x, likelihood=likelihood, backend=backend)
    frames = [torch.full((len(t), 50), math.nan, dtype=t.dtype) for t in (out, x)]
    for frame, t in zip(frames, (out, x)):
        frame[:, 5:42] = t
    layouts = [
        [frame[:, 5:42] for frame in frames],
        [t.T.contiguous().T for t in (out, x)],
        [torch.stack((t, t), 2)[..., 1] for t in (out, x)],
    ]
    for a, pixels in layouts:
        result = log_likelihood(a, pixels, likelihood=likelihood, backend=backend)
        for found, expected in zip(result, truth):
            same(found, expected, backend)
    shared = log_likelihood(
        out[:1].expand(10, 37), x[:1].expand(5, 37), likelihood=likelihood, backend=backend
    )
    same(shared[0], truth[0][:1].expand(10), backend)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_empty(backend, shape):
    empty = torch.zeros(shape)
    logp, gradient = log_likelihood(empty, empty, likelihood="gaussian", backend=backend)
    assert logp.tolist() == [0.0] * shape[0]
    assert gradient.shape == shape


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


def gaussian(*parameters):
    return {"likelihood": "gaussian", "likelihood_params": parameters}


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
        (gaussian(0.0), ValueError, "std must be positive and finite, got 0.0"),
        (gaussian("1"), TypeError, "std must be a number, got str"),
        (gaussian(torch.ones(7)), TypeError, "std must be float64 like x"),
        (gaussian(torch.ones(3).double()), ValueError, r"std must be a scalar, \[D\] or \[B, D\]"),
        (gaussian(1.0, 2.0), ValueError, "likelihood 'gaussian' takes std, got 2"),
        ({"likelihood_params": [0.1]}, ValueError, "'bernoulli' takes no parameters, got 1"),
        (
            {"likelihood": "gaussian", "likelihood_params": 0.1},
            TypeError,
            r"likelihood_params must be a sequence, got float; pass \[std\]",
        ),
    ],
)
def test_errors_say_what_came_and_what_to_do(change, error, message):
    out, x = case()
    with pytest.raises(error, match=message):
        log_likelihood(**{"out": out, "x": x, "likelihood": "bernoulli", **change})


def stds(x):
    """A std in every form it may have, and what it is for each pixel."""
    generator = torch.Generator().manual_seed(9)
    whole = 0.3 + torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    strided = torch.stack((whole, whole), 2)[..., 0]
    return {"scalar": whole[0, 0], "[D]": whole[1], "[B, D]": whole, "strided": strided}


@pytest.mark.parametrize("form", ["scalar", "[D]", "[B, D]", "strided"])
@pytest.mark.parametrize("D", [1, 7, 130])
def test_the_std_of_every_pixel(backend, D, form):
    out, x = case(3, 2, D)
    std = stds(x)[form]
    like = {"likelihood": "gaussian", "likelihood_params": [std], "backend": backend}
    logp, gradient = log_likelihood(out, x, **like)
    out.requires_grad_()
    of_rows = std.expand_as(x).repeat_interleave(2, 0)
    expected = Normal(out, of_rows).log_prob(x.repeat_interleave(2, 0)).sum(1)
    torch.testing.assert_close(logp, expected.detach(), rtol=1e-12, atol=1e-12)
    (derivative,) = torch.autograd.grad(expected.sum(), out)
    torch.testing.assert_close(gradient, derivative, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -0.5])
def test_a_std_that_none_can_be_makes_its_row_nan(backend, bad):
    out, x = case(3, 2)
    std = stds(x)["[B, D]"]
    like = {"likelihood": "gaussian", "backend": backend}
    clean = log_likelihood(out, x, **like, likelihood_params=[std])
    std[1, 4] = bad
    logp, gradient = log_likelihood(out, x, **like, likelihood_params=[std])
    assert logp[2:4].isnan().all()
    assert gradient[2:4].isnan().all()
    others = [0, 1, 4, 5]
    assert torch.equal(logp[others], clean[0][others])
    assert torch.equal(gradient[others], clean[1][others])


def test_a_std_is_no_argument_of_a_derivative():
    out, x = case()
    std = torch.ones(7, dtype=torch.float64, requires_grad=True)
    like = {"likelihood": "gaussian", "likelihood_params": [std]}
    with pytest.raises(RuntimeError, match="not differentiable in likelihood_params; use backend="):
        log_likelihood(out, x, **like)
    assert torch.autograd.gradcheck(
        lambda s: log_likelihood(
            out, x, likelihood="gaussian", likelihood_params=[s], backend="reference"
        )[0],
        std,
    )
