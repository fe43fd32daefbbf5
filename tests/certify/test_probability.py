"""Clopper-Pearson bounds, and hit counts whose law is known."""

import numpy as np
import pytest
import torch
from scipy import stats

import vaefast as vf
from vaefast.certify import clopper_pearson, robust_probability


@pytest.mark.parametrize("samples", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-10])
def test_clopper_pearson_is_scipys(samples, alpha):
    hits = torch.unique(torch.linspace(0, samples, 12).round().long())
    expected = [
        stats.binomtest(int(k), samples, alternative="greater")
        .proportion_ci(confidence_level=1 - alpha, method="exact")
        .low
        for k in hits
    ]
    bound = clopper_pearson(hits, samples, alpha)
    assert bound.dtype == torch.float64
    np.testing.assert_allclose(bound.numpy(), expected, rtol=1e-6, atol=1e-14)


def test_clopper_pearson_at_the_ends():
    """k = 0 proves nothing, k = S proves α^{1/S}; S = 1000, α = 1e-3 is mathematics.md's 0.9931."""
    bound = clopper_pearson(torch.tensor([1000, 0, 1000]), 1000, 1e-3)
    assert bound.tolist() == pytest.approx([1e-3**1e-3, 0.0, 1e-3**1e-3])
    assert bound[0].item() == pytest.approx(0.9931, abs=1e-4)


def test_clopper_pearson_grows_with_hits_and_alpha():
    bounds = torch.stack(
        [clopper_pearson(torch.arange(101), 100, alpha) for alpha in (1e-6, 1e-3, 0.05)]
    )
    assert (bounds.diff(dim=1) > 0).all()
    assert (bounds[:, 1:].diff(dim=0) > 0).all()


@pytest.mark.parametrize("p", [0.3, 0.9, 0.99])
def test_clopper_pearson_covers(p):
    """P(p_lower > p) ≤ α over the draws."""
    rng = np.random.default_rng(0)
    alpha, trials = 0.05, 20_000
    hits = torch.from_numpy(rng.binomial(200, p, trials))
    misses = int((clopper_pearson(hits, 200, alpha) > p).sum())
    assert misses <= stats.binom.ppf(1 - 1e-6, trials, alpha)


def test_the_law_of_a_linear_decoder(linear):
    """g(z) = Qz with orthonormal columns and σ = s: ‖Δ‖ = s·χ_d."""
    d, s, r = 3, 0.5, 1.1
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(8, d, generator=generator, dtype=torch.float64)).Q
    vae = linear(torch.randn(d, 8, generator=generator), torch.full((d,), s), Q)
    x = torch.rand(4000, 8, generator=generator, dtype=torch.float64)
    p = stats.chi2.cdf((r / s) ** 2, d)
    samples, alpha = 50, 0.05
    result = robust_probability(vae, x, r, samples=samples, alpha=alpha)
    total = stats.binomtest(int(result.hits.sum()), samples * len(x), p)
    assert total.pvalue > 1e-4
    counts = np.bincount(result.hits.numpy(), minlength=samples + 1)
    law = stats.binom.pmf(np.arange(samples + 1), samples, p) * len(x)
    kept = law > 5
    chi = ((counts - law) ** 2 / law)[kept].sum()
    assert stats.chi2.sf(chi, kept.sum()) > 1e-4  # rows are independent binomials
    assert int((result.p_lower > p).sum()) <= stats.binom.ppf(1 - 1e-6, len(x), alpha)
    torch.testing.assert_close(result.p, result.hits.double() / samples)


def test_the_centre_is_the_reconstruction_of_the_mean(linear):
    """With σ → 0 every sample is the centre, whatever r."""
    vae = linear(torch.eye(2, 4), torch.full((2,), 1e-12), torch.eye(4, 2))
    x = torch.rand(3, 4).double()
    assert robust_probability(vae, x, 1e-9, samples=20).hits.tolist() == [20] * 3
    assert robust_probability(vae, x, 0.0, samples=20).hits.tolist() == [0] * 3


@pytest.mark.parametrize(("lowered", "plain"), [("mlp", "plain"), ("gaussian", "plain_gaussian")])
def test_lowered_and_plain_models_draw_and_count_the_same(build, lowered, plain):
    x = torch.rand(20, 1, 4, 4).double()
    options = {"samples": 200, "seed": 5, "index": torch.arange(20) * 2**33}
    r = 0.5 if lowered == "mlp" else 1.0
    fast = robust_probability(build(lowered), x, r, **options)
    slow = robust_probability(build(plain), x, r, **options)
    assert ((fast.hits > 0) & (fast.hits < 200)).any()
    assert torch.equal(fast.hits, slow.hits)


def test_a_row_depends_on_its_index_and_the_seed_only(vae, x):
    whole = robust_probability(vae, x, 0.4, samples=300, seed=2)
    part = robust_probability(vae, x[2:4], 0.4, samples=300, seed=2, index=torch.tensor([2, 3]))
    assert torch.equal(part.hits, whole.hits[2:4])
    same = robust_probability(vae, x[:1].expand_as(x), 0.4, samples=300)
    assert len(same.hits.unique()) > 1 or same.hits[0] in (0, 300)


def test_more_room_never_fewer_hits(vae, x):
    hits = [robust_probability(vae, x, r, samples=200).hits for r in (0.1, 0.3, 0.5, 1.0, 10.0)]
    assert (torch.stack(hits).diff(dim=0) >= 0).all()
    assert (hits[-1] == 200).all()
    per_row = robust_probability(vae, x, torch.tensor([0.1, 0.3, 0.5, 1.0, 10.0]), samples=200)
    assert per_row.hits.tolist() == [int(h[i]) for i, h in enumerate(hits)]


def test_nan_and_chunks(vae, x):
    clean = robust_probability(vae, x, 0.4, samples=100)
    x[1, 0, 0, 0] = torch.inf  # a saturated tanh would hide it
    r = torch.full((5,), 0.4).double()
    r[3] = torch.nan
    vf.set_memory(50_000)
    result = robust_probability(vae, x, r, samples=100)
    bad = [False, True, False, True, False]
    assert result.p.isnan().tolist() == bad
    assert result.p_lower.isnan().tolist() == bad
    assert result.hits[[1, 3]].tolist() == [0, 0]
    assert torch.equal(result.hits[[0, 2, 4]], clean.hits[[0, 2, 4]])


def test_no_call_of_the_model_exceeds_the_memory_budget(build):
    """The budget cuts rows and samples; what comes out is the same."""
    vae, x = build("unlowered"), torch.rand(40, 1, 8, 8).double()
    calls = []
    vae.decoder.register_forward_hook(lambda module, inputs, out: calls.append(len(out)))
    whole = robust_probability(vae, x, 0.4, samples=50)
    assert max(calls) == 40 * 12  # of the 50 samples, as many as 512 rows hold
    calls.clear()
    vf.set_memory(500_000)
    parts = robust_probability(vae, x, 0.4, samples=50)
    assert max(calls) < 100
    assert torch.equal(parts.hits, whole.hits)


def test_a_decoder_that_returns_nan_never_hits(build):
    vae = build("plain")
    layer = vae.decoder.module.inner.decoder[-2]
    layer.register_forward_hook(lambda module, inputs, out: out.where(out > out.mean(), torch.nan))
    result = robust_probability(vae, torch.rand(2, 1, 4, 4).double(), 100.0, samples=10)
    assert result.p_lower.tolist() == [0.0, 0.0]


def test_the_model_and_the_global_generator_are_left_alone(vae, x):
    state = {name: t.clone() for name, t in vae.state_dict().items()}
    generator = torch.get_rng_state()
    robust_probability(vae, x, 0.4, samples=10)
    assert torch.equal(torch.get_rng_state(), generator)
    for name, parameter in vae.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, state[name])


def test_empty_batch(vae, x):
    result = robust_probability(vae, x[:0], 1.0)
    assert result.hits.shape == result.p.shape == result.p_lower.shape == (0,)


def test_refuses(vae, x):
    with pytest.raises(ValueError, match="alpha must lie in"):
        robust_probability(vae, x, 1.0, alpha=0.0)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        robust_probability(vae, x, 1.0, samples=0)
    for endless in (float("inf"), torch.tensor([1.0, 1.0, torch.inf, 1.0, 1.0])):
        with pytest.raises(ValueError, match="r must be finite, got inf"):
            robust_probability(vae, x, endless)
    with pytest.raises(TypeError, match="seed must be a whole number"):
        robust_probability(vae, x, 1.0, seed=1.5)
    with pytest.raises(ValueError, match="r must be at least 0"):
        robust_probability(vae, x, -1.0)
    with pytest.raises(TypeError, match=r"x must be float32 or float64 .* got float16"):
        robust_probability(vae, x.half(), 1.0)
    with pytest.raises(TypeError, match=r"got bfloat16; pass vae.float\(\)"):
        robust_probability(vae.bfloat16(), x.float(), 1.0)
    with pytest.raises(TypeError, match=r"vae must be a vaefast\.VAE"):
        robust_probability(torch.nn.Linear(2, 2), x, 1.0)
