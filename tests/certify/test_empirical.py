"""The attack's upper bound on the margin: closed forms, witnesses, and the bounds below it."""

import math

import pytest
import torch
from scipy import optimize, stats

import vaefast as vf
from vaefast import data, training
from vaefast.attacks import AttackResult
from vaefast.certify import empirical, empirical_margin, margin
from vaefast.models import MLPVAE
from vaefast.philox import Use, normal

QUICK = {"steps": 10, "restarts": 2, "noise_samples": 4}


def true_margin(r, std, slope):
    """Where Φ((r−t)/s) − Φ((−r−t)/s) = ½ for g(z) = z, as ‖δ‖ = t/slope."""

    def excess(t):
        return stats.norm.cdf((r - t) / std) - stats.norm.cdf((-r - t) / std) - 0.5

    return optimize.brentq(excess, 0, 5 * r) / slope


def test_a_linear_model_with_one_latent(linear):
    """The only direction that matters is W's; the attack must find the exact margin there."""
    W = torch.tensor([[3.0, 0.0, -4.0]])
    vae = linear(W, [0.2], torch.tensor([[1.0], [0.0], [0.0]]))
    x = torch.rand(6, 3).double()
    exact = true_margin(r=0.5, std=0.2, slope=5.0)
    result = empirical_margin(vae, x, 0.5, r_max=0.4, grid=10, samples=4000, bisections=6)
    assert result.found.all()
    assert result.margin.tolist() == pytest.approx([exact] * 6, rel=0.08)  # 4000 draws and alpha
    assert torch.equal(result.searched_to, result.margin)
    lower = margin(vae, x, 0.5, method="whitened").margin
    assert (lower <= result.margin).all()


def test_bisection_narrows_to_the_stated_width(linear):
    vae = linear(torch.eye(1, 3), [0.01], torch.eye(3, 1))
    x = torch.rand(1, 3).double()
    exact = true_margin(r=0.5, std=0.01, slope=1.0)
    for bisections in (0, 1, 5):
        found = empirical_margin(vae, x, 0.5, r_max=1.8, grid=6, bisections=bisections, **QUICK)
        width = 0.3 / 2**bisections
        assert exact - 0.01 <= found.margin.item() <= exact + width + 0.01


@torch.no_grad()
def distances(vae, at, centre):
    """‖g(μ(at) + σ(at)η) − g(μ(centre))‖ of 4000 draws, [B, 4000]."""
    generator = torch.Generator().manual_seed(1)
    mean, std = (t[:, None] for t in vae.posterior(at))
    noise = torch.randn(len(at), 4000, mean.shape[2], generator=generator, dtype=torch.float64)
    image = vae.g((mean + std * noise).flatten(0, 1)).view(len(at), 4000, -1)
    return (image - vae.reconstruct(centre).flatten(1)[:, None]).norm(dim=2)


def test_witnesses_break_robustness_at_the_stated_radius(vae, x):
    r = distances(vae, x, x).quantile(0.65, dim=1)
    result = empirical_margin(vae, x, r, r_max=20.0, grid=4, bisections=2, **QUICK)
    assert result.found.any()
    assert (result.margin > 0).all()
    length = (result.x_adv - x).flatten(1).norm(dim=1)[result.found]
    torch.testing.assert_close(length, result.margin[result.found])
    hits = (distances(vae, result.x_adv, x) <= r[:, None]).double().mean(1)[result.found]
    assert (hits < 0.5 + 4 * math.sqrt(0.25 / 200)).all()  # S = 200 draws decided
    assert result.x_adv[~result.found].isnan().all()


def test_not_found_is_infinite_and_says_how_far(vae, x):
    result = empirical_margin(vae, x, 100.0, r_max=0.5, grid=2, **QUICK)
    assert not result.found.any()
    assert result.margin.tolist() == [math.inf] * 5
    assert result.searched_to.tolist() == [0.5] * 5


def test_an_input_that_is_broken_by_itself_has_margin_0(vae, x):
    result = empirical_margin(vae, x, 1e-9, r_max=0.5, grid=2, **QUICK)
    assert result.found.all()
    assert result.margin.tolist() == [0.0] * 5
    assert torch.equal(result.x_adv, x)


def test_nan_stays_in_its_row_and_rows_do_not_mix(linear):
    """Each row has its own r and r_max; a NaN row, a chunk or the batch changes no other."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(2, 6, generator=generator)
    vae = linear(W, [0.1, 0.2], torch.randn(6, 2, generator=generator))
    x = torch.rand(4, 6, generator=generator, dtype=torch.float64)
    r = torch.tensor([0.5, 1.0, 2.0, 50.0]).double()
    options = {"r_max": torch.tensor([0.5, 1.0, 2.0, 2.0]).double(), "grid": 3, **QUICK}
    clean = empirical_margin(vae, x, r, **options)
    assert clean.found.tolist() == [True, True, True, False]

    bad = x.clone()
    bad[1, 2] = torch.nan
    vf.set_memory(20_000)
    result = empirical_margin(vae, bad, r, **options)
    assert result.margin.isnan().tolist() == [False, True, False, False]
    assert not result.found[1]
    good = [0, 2, 3]
    torch.testing.assert_close(result.margin[good], clean.margin[good])

    options["r_max"] = options["r_max"][2:]
    alone = empirical_margin(vae, x[2:], r[2:], index=torch.tensor([2, 3]), **options)
    torch.testing.assert_close(alone.margin, clean.margin[2:])


def test_a_row_depends_on_its_index_and_the_seed_only(build):
    """Few draws and one short restart, so that the margin of one input is a random number."""
    vae, r = build("mlp"), 0.3
    x = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(3)).double()
    options = {"r_max": 8.0, "grid": 8, "bisections": 8, "restarts": 1, "steps": 1, "samples": 31}
    options["alpha"] = 0.4
    whole = empirical_margin(vae, x.expand(6, -1, -1, -1), r, **options)
    assert len(whole.margin.unique()) > 3
    alone = empirical_margin(vae, x, r, index=torch.tensor([4]), **options)
    torch.testing.assert_close(alone.margin, whole.margin[4:5])
    torch.testing.assert_close(alone.x_adv, whole.x_adv[4:5])
    assert not torch.allclose(
        empirical_margin(vae, x, r, seed=1, **options).margin, whole.margin[:1]
    )


def test_a_break_is_decided_by_draws_of_its_own(linear):
    """At radius 0 an input is broken iff most of |η_s| exceed r, η from Use.FRESH (alpha > ½)."""
    vae = linear(torch.eye(1, 2), [1.0], torch.eye(2, 1))
    index = torch.arange(200) + 2**34
    samples, r = 9, 0.67
    noise = [normal(1, seed=5, index=index, step=s, use=Use.FRESH)[:, 0] for s in range(samples)]
    broken = (torch.stack(noise).abs() > r).sum(0) > samples / 2
    options = {"r_max": 0.0, "samples": samples, "alpha": 0.6, "seed": 5, "index": index, **QUICK}
    result = empirical_margin(vae, torch.rand(200, 2).double(), r, **options)
    assert torch.equal(result.found, broken)


def test_noise_is_not_taken_for_a_break(linear):
    """μ ignores x and P = 0.52 everywhere: every break would be a false one."""
    vae = linear(torch.zeros(1, 2), [1.0], torch.eye(2, 1))
    r = stats.norm.ppf(0.5 + 0.52 / 2)
    x = torch.rand(400, 2).double()
    result = empirical_margin(vae, x, r, r_max=1.0, grid=2, **QUICK)
    assert result.found.sum() <= 5  # three radii at alpha = 1e-3 each: 1.2 expected at most


def test_a_restart_that_failed_breaks_nothing(linear, monkeypatch):
    """Only the finite candidate counts, and where there is none nothing was found."""
    vae, x = linear(torch.eye(1, 3), [0.1], torch.eye(3, 1)), torch.rand(2, 3).double()

    def attack(prepared, x, options):
        x_adv = torch.full((2, 2, 3), torch.nan).double()
        x_adv[0, 1] = x[0] + torch.tensor([1.0, 0.0, 0.0])
        none = torch.zeros(2)
        return AttackResult(x_adv, none, none, none.long(), none.bool())

    monkeypatch.setattr(empirical, "damage", attack)
    result = empirical_margin(vae, x, 0.5, r_max=2.0, grid=1, bisections=0, restarts=2)
    assert result.found.tolist() == [True, False]
    torch.testing.assert_close(result.x_adv[0], x[0] + torch.tensor([2.0, 0.0, 0.0]))


def test_a_box_is_kept_and_never_helps_the_attack(build):
    vae = build("mlp")
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    options = {"r_max": 8.0, "grid": 8, "bisections": 3, **QUICK}
    free = empirical_margin(vae, x, 0.35, **options)
    boxed = empirical_margin(vae, x, 0.35, low=0.0, high=1.0, **options)
    assert (boxed.margin >= free.margin - 0.2).all()
    inside = boxed.x_adv[boxed.found]
    assert ((inside >= 0) & (inside <= 1)).all()
    assert ((inside - x[boxed.found]).flatten(1).norm(dim=1) <= boxed.margin[boxed.found]).all()


@pytest.mark.parametrize("method", ["first_order", "whitened"])
def test_margins_of_a_trained_vae_lie_below_the_attack(trained, method):
    """Claim 1 of mathematics.md 2.7: the bound is below the estimated margin for every input."""
    vae, x, found = trained
    bound = margin(vae, x, 2.0, method=method)
    assert found.found.double().mean() > 0.9
    assert not bound.abstain.any()
    assert (bound.margin <= found.margin).all()
    assert (bound.margin > 0.02 * found.margin).all()  # not below it for being absurdly small


@pytest.fixture(scope="module")
def trained():
    digits = data.load("digits")
    vae = MLPVAE((1, 8, 8), hidden=(64,), latent=6)
    training.fit(vae, digits.x_train, epochs=30, lr=3e-3, progress=False)
    x = digits.x_test[:24]
    found = empirical_margin(vae.eval(), x, 2.0, r_max=6.0, grid=8, steps=20, restarts=3)
    return vae, x, found


def test_refuses(vae, x):
    for name in ("grid", "restarts", "samples"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            empirical_margin(vae, x, 1.0, **{name: 0})
    with pytest.raises(TypeError, match="seed must be a whole number"):
        empirical_margin(vae, x, 1.0, seed=1.5)
    with pytest.raises(ValueError, match="r_max must be finite"):
        empirical_margin(vae, x, 1.0, r_max=math.inf)
    with pytest.raises(ValueError, match=r"x must (lie|be) in"):
        empirical_margin(vae, x + 2, 100.0, low=0.0, high=1.0)
    with pytest.raises(TypeError, match="must be float32 or float64"):
        empirical_margin(vae, x.half(), 1.0)


def test_empty_batch(vae, x):
    result = empirical_margin(vae, x[:0], 1.0)
    assert result.margin.shape == result.found.shape == (0,)
    assert result.x_adv.shape == x[:0].shape


def test_perturbations_stay_in_the_box_of_the_model(linear):
    vae = linear(torch.eye(1, 3), [0.1], torch.eye(3, 1))
    x = torch.full((2, 3), -0.01).double()
    vae.box = (-0.2, 0.2)  # μ moves by 0.2 at most, and the margin is about 0.5
    assert not empirical_margin(vae, x, 0.5, r_max=1.0, grid=4, **QUICK).found.any()
    assert empirical_margin(vae, x, 0.5, r_max=1.0, grid=4, low=-2, high=2, **QUICK).found.all()
