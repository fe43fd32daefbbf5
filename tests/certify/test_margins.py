"""Margins against an independent computation, closed forms, and the order of the bounds."""

import numpy as np
import pytest
import torch
from scipy import stats

import vaefast as vf
from vaefast import ops
from vaefast.certify import Guarantee, margin, robust_probability

METHODS = ("first_order", "whitened")


def by_hand(vae, x, p_lower, method):
    """mathematics.md 2.2 with autograd, numpy and scipy, one input at a time."""
    values = []
    for point, p in zip(x, p_lower.numpy()):
        J = torch.autograd.functional.jacobian(lambda v: vae.encode(v[None])[0][0], point)
        J = J.reshape(len(J), -1).numpy()
        std = vae.posterior(point[None])[1][0].detach().numpy()
        q = stats.norm.ppf(p)
        if method == "first_order":
            values.append(std.min() * q / np.sqrt((J**2).sum()))
        else:
            values.append(q / np.linalg.svd(J / std[:, None], compute_uv=False)[0])
    return torch.tensor(np.where(p_lower.numpy() > 0.5, values, 0.0))


@pytest.mark.parametrize("method", METHODS)
def test_margins_by_hand(vae, x, method):
    r = torch.linspace(0.1, 1.0, 5).double()
    result = margin(vae, x, r, method=method, samples=500, seed=3)
    probability = robust_probability(vae, x, r, samples=500, seed=3)
    assert torch.equal(result.p_lower, probability.p_lower)
    torch.testing.assert_close(result.margin, by_hand(vae, x, result.p_lower, method))
    assert torch.equal(result.abstain, probability.p_lower <= 0.5)
    assert result.margin.dtype == result.p_lower.dtype == torch.float64
    assert result.method == method


def test_the_bounds_are_nested(vae, x):
    for r in (0.3, 0.6, 2.0):
        published, whitened = (margin(vae, x, r, method=m, samples=200).margin for m in METHODS)
        assert (published <= whitened * (1 + 1e-9)).all()


@pytest.mark.parametrize("method", METHODS)
def test_linear_closed_form(linear, method):
    """W = diag(3, 4), σ = (.2, .5), g the embedding: ‖J‖_F = 5, ‖diag(1/σ)J‖₂ = 3/.2 = 15."""
    vae = linear(torch.diag(torch.tensor([3.0, 4.0])), [0.2, 0.5], torch.eye(2))
    x = torch.rand(3, 2).double()
    result = margin(vae, x, 50.0, method=method, samples=1000, alpha=1e-3)
    q = stats.norm.ppf(1e-3**1e-3)
    expected = {"first_order": 0.2 * q / 5, "whitened": q / 15}[method]
    assert result.margin.tolist() == pytest.approx([expected] * 3)


def test_whitened_is_exact_for_a_linear_half_space(linear):
    """One latent, decoded so that only one side leaves r: P falls to ½ at the margin itself.

    g(z) = z with a centre far from one end: shifting by q standard deviations turns p into ½.
    """
    vae = linear(torch.tensor([[2.0, 1.0]]), [0.1], torch.tensor([[1.0], [0.0]]))
    x, r = torch.rand(1, 2).double(), 0.35
    result = margin(vae, x, r, method="whitened", samples=100_000, alpha=1e-3)
    shift = result.margin * 5**0.5 / 0.1  # latent movement in units of σ
    after = stats.norm.cdf(r / 0.1 - shift) - stats.norm.cdf(-r / 0.1 - shift)
    assert after > 0.5
    assert shift.item() == pytest.approx(r / 0.1, rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_monotone(vae, x, method):
    """A larger r never shrinks a margin, nor a larger α, nor more draws of a sure event."""
    margins = torch.stack(
        [margin(vae, x, r, method=method, samples=200).margin for r in (0.2, 0.4, 0.8, 5.0)]
    )
    assert (margins.diff(dim=0) >= 0).all()
    assert (margins[-1] > 0).all()
    for name, values in (("alpha", (1e-9, 1e-3, 0.1)), ("samples", (50, 100, 400))):
        rising = torch.stack(
            [margin(vae, x, 50.0, method=method, **{name: value}).margin for value in values]
        )
        assert (rising.diff(dim=0) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_abstains_where_p_lower_is_at_most_half(vae, x, method):
    result = margin(vae, x, 1e-6, method=method, samples=50)
    assert result.abstain.all()
    assert torch.equal(result.margin, torch.zeros(5).double())
    few = margin(vae, x, 100.0, method=method, samples=1, alpha=0.5)  # p_lower = ½ exactly
    assert few.abstain.all()


@pytest.mark.parametrize("method", METHODS)
def test_nan_and_chunks(vae, x, method):
    clean = margin(vae, x, 1.0, method=method, samples=100)
    x[4, 0, 1, 1] = torch.inf
    vf.set_memory(50_000)
    result = margin(vae, x, 1.0, method=method, samples=100)
    assert result.margin[4].isnan()
    assert result.p_lower[4].isnan()
    assert result.abstain[4]
    torch.testing.assert_close(result.margin[:4], clean.margin[:4])
    assert torch.equal(result.abstain[:4], clean.abstain[:4])


def test_a_probability_is_shared_among_methods(vae, x):
    probability = robust_probability(vae, x, 0.8, samples=100, seed=9)
    for method in METHODS:
        shared = margin(vae, x, 0.8, method=method, probability=probability)
        drawn = margin(vae, x, 0.8, method=method, samples=100, seed=9)
        torch.testing.assert_close(shared.margin, drawn.margin)
    with pytest.raises(ValueError, match=r"probability\.p_lower must be"):
        margin(vae, x[:2], 0.8, probability=probability)


def test_abstains_where_the_encoder_does_not_move(linear):
    vae = linear(torch.zeros(2, 3), [0.1, 0.1], torch.zeros(3, 2))
    for method in METHODS:
        result = margin(vae, torch.rand(2, 3).double(), 1.0, method=method)
        assert result.abstain.all()
        assert result.margin.tolist() == [0.0] * 2
        assert all("first order says nothing" in reason for reason in result.reasons)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("logvar", [-2000.0, 2000.0])
@pytest.mark.parametrize("slope", [1.0, 0.0])
def test_abstains_where_std_is_0_or_infinite(method, logvar, slope):
    """Also where μ does not depend on x."""

    class Collapsed(torch.nn.Module):
        def encode(self, x):
            return x * torch.tensor([slope, 0.0]), x * 0 + logvar

        def decode(self, z):
            return z.nan_to_num(0.0, 0.0, 0.0)

    vae = vf.models.as_vae(Collapsed().eval(), likelihood="gaussian")
    result = margin(vae, torch.rand(3, 2), 9.0, method=method)
    assert (result.p_lower > 0.9).all()
    assert result.margin.tolist() == [0.0] * 3
    assert result.abstain.all()
    assert set(result.reasons) == {"the encoder's std is not positive and finite"}


def test_under_inference_mode(vae, x):
    expected = margin(vae, x, 1.0, samples=50).margin
    with torch.inference_mode():
        torch.testing.assert_close(margin(vae, x.clone(), 1.0, samples=50).margin, expected)


def test_no_first_order_guarantee_is_sound(build):
    for kind, words in (("gaussian", ""), ("mlp", "std held")):
        result = margin(build(kind), torch.rand(1, 1, 4, 4).double(), 1.0)
        assert isinstance(result.guarantee, Guarantee)
        assert not result.guarantee.sound
        assert str(result.guarantee).startswith("first order, not a certificate")
        assert words in str(result.guarantee)
    assert Guarantee.FIRST_ORDER == "first order, not a certificate"
    sound = [member for member in Guarantee if member.sound]
    assert sound == [Guarantee.LOCAL, Guarantee.LOCAL_RUN, Guarantee.LIPSCHITZ]


@pytest.mark.parametrize("method", ["jacobian", "exact"])
def test_methods_that_do_not_exist_are_refused(vae, x, method):
    with pytest.raises(ValueError, match="method must be one of 'first_order', 'whitened', 'loc"):
        margin(vae, x, 1.0, method=method)


def test_float32_margins_stay_below_the_float64_ones(build):
    """Norms are rounded up, so rounding never lengthens a margin of the same probability."""
    vae, x = build("gaussian"), torch.rand(50, 1, 4, 4)
    probability = robust_probability(vae, x.double(), 5.0)
    for method in METHODS:
        exact = by_hand(vae, x.double(), probability.p_lower, method)
        single = margin(build("gaussian").float(), x, 5.0, method=method, probability=probability)
        assert (single.margin <= exact).all()
        torch.testing.assert_close(single.margin, exact, rtol=1e-4, atol=0)


def test_half_precision_is_refused(vae, x):
    with pytest.raises(TypeError, match="must be float32 or float64 for a margin"):
        margin(vae, x.bfloat16(), 1.0)


def test_empty_batch(vae, x):
    assert margin(vae, x[:0], 1.0).margin.shape == (0,)


def test_reduced_precision_is_an_estimate(build):
    x = torch.rand(2, 1, 4, 4).double()
    vae = build("mlp")
    result = margin(vae, x, 1.0, samples=50, precision="bf16")
    assert result.guarantee is Guarantee.ESTIMATE
    assert not result.guarantee.sound
    shared = robust_probability(vae, x, 1.0, samples=50, precision="tf32")
    assert shared.precision == "tf32"
    assert margin(vae, x, 1.0, probability=shared).guarantee is Guarantee.ESTIMATE
    shared = robust_probability(vae, x, 1.0, samples=50)
    for method in METHODS:
        result = margin(vae, x, 1.0, method=method, probability=shared, precision="tf32")
        assert result.guarantee is Guarantee.ESTIMATE
        with pytest.raises(ValueError, match="precision must be"):
            margin(vae, x, 1.0, method=method, probability=shared, precision="fp16")


@pytest.mark.parametrize("method", METHODS)
def test_the_norm_is_computed_in_the_precision_asked_for(build, monkeypatch, method):
    vae, x, seen = build("mlp"), torch.rand(2, 1, 4, 4), []
    gram = ops.net_jacobian_gram
    monkeypatch.setattr(
        ops, "net_jacobian_gram", lambda *a, **o: (seen.append(o["precision"]), gram(*a, **o))[1]
    )
    for precision in ("ieee", "tf32", "bf16"):
        margin(vae.float(), x, 1.0, method=method, samples=20, precision=precision)
    assert seen == ["ieee", "tf32", "bf16"]
    with pytest.raises(ValueError, match="precision must be"):
        robust_probability(vae, x, 1.0, precision="fp16")
