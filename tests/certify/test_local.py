"""The sound margins of ordinary VAEs: exact where the encoder is affine, never attacked below."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import vaefast as vf
from vaefast.certify import Budget, Guarantee, anchors, distance, empirical_margin, margin
from vaefast.models import MLPVAE, VAE

METHODS = ("local", "anchors", "best")
QUICK = {"steps": 10, "restarts": 2, "noise_samples": 4}


@pytest.fixture
def affine(linear):
    torch.manual_seed(0)
    return linear(torch.randn(3, 6) / 2, [0.3, 0.5, 0.4], torch.randn(8, 3)[:6])


@pytest.fixture
def points():
    return torch.rand(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mlp(activation: str, *, fixed: bool = False, seed: int = 0) -> MLPVAE:
    std = {"fixed_std": 0.3} if fixed else {}
    return MLPVAE((1, 4, 4), (14, 12), 3, activation, **std, seed=seed).double().eval()


def images(n: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float64)


def far(vae: VAE, x: torch.Tensor, share: float = 0.9) -> torch.Tensor:
    """r [B] within which so much of the draws stay."""
    radii = torch.linspace(0.05, 3.0, 60).double()
    p = torch.stack([vf.certify.robust_probability(vae, x, float(r), samples=500).p for r in radii])
    return radii[(p >= share).long().argmax(0)]


@pytest.mark.parametrize("form", ["affine", "multiplier", "smaller"])
def test_of_an_affine_encoder_it_is_the_whitened_margin(affine, points, form):
    """‖SJδ‖ < q is exactly what Neyman and Pearson ask for; the search ends within 1 %."""
    own = margin(affine, points, 2.5, method="local", samples=800, form=form)
    first = margin(affine, points, 2.5, method="whitened", samples=800)
    assert bool((own.margin > 0).all())
    assert own.p_lower.tolist() == first.p_lower.tolist()
    assert bool((own.margin <= first.margin * (1 + 1e-9)).all())
    assert bool((own.margin >= first.margin * 0.99).all())
    assert own.guarantee is Guarantee.LOCAL
    assert own.guarantee.sound


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu", "maxmin"])
@pytest.mark.parametrize("method", METHODS)
def test_no_attack_inside_the_certified_ball_takes_the_majority(activation, method):
    fixed = activation != "relu"  # where σ moves, groups of anchors take ten times as long
    fixed = activation != "relu"
    vae, x = mlp(activation, fixed=fixed), images(5 if fixed else 2)
    r = far(vae, x, 0.99)
    own = margin(vae, x, r, method=method, samples=12_000, alpha=1e-4)
    assert int((own.margin > 0).sum()) >= len(x) // 2
    broken = empirical_margin(vae, x, r, r_max=4.0, low=-9.0, high=9.0, certified=own, **QUICK)
    assert bool((broken.margin >= own.margin).all())
    direction = torch.randn(len(x), 40, 16, generator=torch.Generator().manual_seed(2)).double()
    delta = own.margin[:, None, None] * torch.nn.functional.normalize(direction, dim=2)
    moved = (x.flatten(1)[:, None] + delta).view(-1, 1, 4, 4)
    mean, std = vae.posterior(moved)
    noise = torch.randn(300, len(moved), 3, generator=torch.Generator().manual_seed(4)).double()
    apart = vae.g((mean + std * noise).flatten(0, 1)).view(300, len(x), 40, 16)
    centre = vae.reconstruct(x).flatten(1)[None, :, None]
    inside = ((apart - centre).norm(dim=3) <= r[:, None]).double().mean(0)
    assert float(inside.min()) > 0.5


def test_a_moving_scale_is_paid_for():
    vae, x = mlp("tanh"), images()
    whole = margin(vae, x, 0.8, method="local", samples=500)
    first = margin(vae, x, 0.8, method="whitened", samples=500)
    sure = whole.p_lower > 0.5
    assert bool((whole.margin[sure] < first.margin[sure]).all())


def test_rows_do_not_depend_on_their_batch():
    vae, x = mlp("relu"), images(14)  # as many rows as the first layer has units
    r = far(vae, x)
    for method in METHODS[:2]:
        whole = margin(vae, x, r, method=method, samples=600).margin
        index = torch.tensor([5, 6])
        part = margin(vae, x[5:7], r[5:7], method=method, samples=600, index=index).margin
        torch.testing.assert_close(part, whole[5:7], rtol=1e-9, atol=1e-12)


def test_float32_inputs_certify_no_more_than_float64_ones():
    vae, x = mlp("tanh"), images()
    probability = vf.certify.robust_probability(vae, x, 0.8, samples=400)
    wide = margin(vae, x, 0.8, method="local", probability=probability).margin
    narrow = margin(MLPVAE.float(mlp("tanh")), x.float(), 0.8, method="local", samples=400).margin
    same = (narrow > 0) & (wide > 0)
    assert int(same.sum()) >= 3
    torch.testing.assert_close(narrow[same], wide[same], rtol=0.05, atol=0.0)


def test_what_says_nothing_says_why(affine, points):
    points[1, 2] = torch.nan
    own = margin(affine, points, torch.tensor([2.5, 2.5, 1e-6, 2.5, 2.5, 2.5]), method="local")
    assert own.margin[1].isnan()
    assert own.margin[2] == 0.0
    assert own.reasons[1] == "x or r is not finite"
    assert own.reasons[2] == "p_lower is at most 1/2"
    assert own.abstain.tolist() == [False, True, True, False, False, False]
    assert own.samples[2] == 1000  # no hope, no more draws


def test_auto_draws_until_it_stops_paying(affine, points):
    budget = Budget(samples=4000)
    own = margin(affine, points, 2.5, method="local", budget=budget)
    one = margin(affine, points, 2.5, method="local", samples=1000)
    assert own.alpha == one.alpha == 1e-3
    assert bool((own.samples >= 1000).all())
    assert float(own.margin.median()) >= float(one.margin.median())


def test_best_is_the_larger_of_both_at_half_of_alpha():
    vae, x = mlp("relu", fixed=True), images()
    r = far(vae, x)
    whole = margin(vae, x, r, method="best", samples=1500)
    given = {"samples": 1500, "alpha": 5e-4}
    parts = [margin(vae, x, r, method=m, **given).margin for m in ("local", "anchors")]
    torch.testing.assert_close(whole.margin, torch.maximum(*parts))
    assert whole.alpha == 1e-3
    assert whole.samples.tolist() == [3000] * 5
    assert whole.guarantee is Guarantee.LOCAL


class Attending(nn.Module):
    def encode(self, x):
        return torch.softmax(x, 1)[:, :3] * x[:, :3], x[:, 3:6] - 3.0

    def decode(self, z):
        return torch.cat([z, z.sin()], 1)


def test_what_is_not_bounded_is_refused_in_one_line(affine, points):
    user = vf.as_vae(Attending(), likelihood="gaussian").eval()
    with pytest.raises(ValueError, match='"local" takes encoders that lower, this one does not'):
        margin(user, points, 1.0, method="local")
    with pytest.raises(ValueError, match='form is of method "local", "best", got method="whit'):
        margin(affine, points, 1.0, method="whitened", form="affine")
    with pytest.raises(ValueError, match='precision is of method "first_order", "whitened", got'):
        margin(affine, points, 1.0, method="local", precision="bf16")
    with pytest.raises(ValueError, match='samples must be a number or "auto", got "many"'):
        margin(affine, points, 1.0, method="local", samples="many")


@pytest.mark.parametrize("kind", ["mlp", "gaussian"])
def test_a_certified_distance_is_one_at_which_the_radius_is_certified(build, kind):
    """The same draws at that r have at least ``rank`` hits, so its margin is the radius or more."""
    vae, x = build(kind), images()
    radius = torch.tensor([0.0, 0.01, 0.03, 0.05, 50.0], dtype=torch.float64)
    found = distance(vae, x, radius, samples=1500)
    assert found.abstain.tolist() == [False] * 4 + [True]
    assert found.distance[4] == torch.inf
    assert "too far" in found.reasons[4] or "too few" in found.reasons[4]
    wider = distance(vae, x[:4], radius[:4] + 0.02, samples=1500)
    assert bool((wider.distance >= found.distance[:4]).all())
    at = found.distance[:4] * (1 + 1e-12)
    again = margin(vae, x[:4], at, method="local", samples=1500)
    assert bool((again.margin >= radius[:4] * 0.98 - 1e-9).all())
    p = vf.certify.clopper_pearson(found.rank[:4], 1500, 1e-3)
    assert bool((p >= found.p_required[:4]).all())


def test_a_distance_says_how_many_draws_it_takes(build):
    vae, x = build("gaussian"), images()
    few = distance(vae, x, 0.05, samples=8)
    assert bool(few.abstain.all())
    assert all("too few draws" in reason for reason in few.reasons)
    enough = distance(vae, x, 0.05, samples=int(few.samples_required.max()))
    assert not bool(enough.abstain.any())


@pytest.mark.parametrize("method", ["local", "anchors"])
def test_a_scale_that_alone_decides_is_bounded(method):
    """μ = 0, σ = exp(2x₁), g(z) = z, r = 2: P = 2Φ(2/σ) − 1 is ½ at x₁ = .543."""
    vae = VAE(
        encoder_mean=nn.Linear(2, 1),
        encoder_logvar=nn.Linear(2, 1),
        decoder=nn.Linear(1, 2),
        likelihood="gaussian",
    )
    vae = vae.double().eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        vae.encoder.logvar.weight[0, 0] = 4.0
        vae.decoder.weight[0, 0] = 1.0
    x = torch.zeros(1, 2, dtype=torch.float64)
    own = margin(vae, x, 2.0, method=method, samples=20_000)
    assert 0.05 < float(own.margin) <= 0.543


class Cut(nn.Module):
    def forward(self, a):
        return a.clamp(-50.0, 0.0)


class Ratio(nn.Module):
    """Far from g(0) = 0 where |z₂| > 2e^(−3/2)|z₁|: P = 2/π·atan(2e^(−3/2)σ₁/σ₂)."""

    def forward(self, z):
        out = z[:, 1].abs() > 2.0 * math.exp(-1.5) * z[:, 0].abs()
        return torch.stack([out * 10.0, 0.0 * z[:, 0]], 1).to(z.dtype)


def test_a_clamp_of_the_scale_stays_within_what_anchors_allow():
    """σ₁ stays at its clamp while its layer moves as σ₂ does: a set of displacements without the
    clamp would take the ratio for constant. P(x − Re₁) = ½ at R = 2 log 2.
    """
    base = nn.Linear(2, 2)
    vae = VAE(
        encoder_mean=nn.Linear(2, 2),
        encoder_logvar=nn.Sequential(base, Cut()),
        decoder=Ratio(),
        likelihood="gaussian",
    )
    vae = vae.double().eval()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        base.weight.copy_(torch.tensor([[-1.0, 0.0], [-1.0, 1e-6]]))
        base.bias.copy_(torch.tensor([6.0, -3.0]))
    x = torch.zeros(1, 2, dtype=torch.float64)
    for method in ("anchors", "local"):
        own = margin(vae, x, 1.0, method=method, samples=300_000, alpha=0.05)
        assert float(own.margin) <= 2 * math.log(2.0)
        assert method == "anchors" or float(own.margin) > 0.1


def test_a_dead_encoder_and_a_scale_of_zero_stop_nobody_else():
    vae, x = mlp("relu", fixed=True), images()
    with torch.no_grad():
        next(p for p in vae.encoder.parameters()).zero_()
        for p in vae.encoder.parameters():
            p.clamp_(max=0.0)
    dead = margin(vae, x, 1.0, method="anchors", samples=2000)
    assert bool((dead.margin >= 0).all())
    vae = mlp("tanh")
    narrow = [p for name, p in vae.encoder.named_parameters() if "bias" in name][-1]
    with torch.no_grad():
        narrow.fill_(-3000.0)
    own = margin(vae, x, 1.0, method="anchors", samples=500)
    assert own.abstain.all()


@pytest.mark.parametrize("method", METHODS)
def test_no_rows_are_no_margins(method):
    own = margin(mlp("relu", fixed=True), images()[:0], 1.0, method=method, samples=200)
    assert own.margin.shape == (0,)


def test_a_pilot_without_a_radius_says_so():
    own = margin(mlp("relu"), images(1), 0.05, method="anchors", samples=1500)
    assert own.samples.tolist() == [0]
    assert own.reasons[0].startswith("the pilot found no radius")


def test_numbers_that_are_no_python_integers_are_numbers(affine, points):
    one = margin(affine, points, 2.5, method="local", samples=np.int64(600))
    assert one.samples.tolist() == [600] * 6
    with pytest.raises(TypeError, match="samples"):
        margin(affine, points, 2.5, method="local", samples=1.5)
    with pytest.raises(ValueError, match="alpha must lie in"):
        margin(affine, points, 2.5, method="best", alpha=1.5)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_the_affine_form_s_margins_repeat_to_the_bit(activation):
    """For any cut, where the encoder's bounds come from the C++ kernels; others say round-off."""
    vae, x = mlp(activation), images(14)
    if not (support := vf.supports("net_displacement_bound", "cpp")):
        pytest.skip(support.reason)
    r = far(vae, x)
    whole = margin(vae, x, r, method="local", samples=600, form="affine")
    assert whole.reproducible == "bits"
    assert int((whole.margin > 0).sum()) >= 10
    for begin, end in ((0, 1), (1, 4), (4, 13), (13, 14)):
        rows = slice(begin, end)
        own = {"index": torch.arange(14)[rows], "samples": 600, "form": "affine"}
        part = margin(vae, x[rows], r[rows], method="local", **own)
        assert torch.equal(part.margin, whole.margin[rows])
    other = margin(vae, x[:2], r[:2], method="local", samples=600)
    assert other.reproducible == "round-off"
    with vf.same_bits():
        whole, part = (margin(vae, x[:n], r[:n], method="local", samples=600) for n in (2, 1))
    assert whole.reproducible == "blocks"
    assert torch.equal(whole.margin[:1], part.margin)


def test_after_its_seconds_anchors_begin_no_input_and_change_none(affine, points, monkeypatch):
    """A clock that has two inputs' time: theirs are the margins of no limit, the others' none."""
    plain = margin(affine, points, 2.5, method="anchors", samples=2000)
    late = iter([False] * 4 + [True] * 50)
    monkeypatch.setattr(anchors.Plan, "late", property(lambda plan: next(late)))
    budget = Budget(seconds=60.0)
    cut = margin(affine, points, 2.5, method="anchors", samples=2000, budget=budget)
    assert torch.equal(cut.margin[:2], plain.margin[:2])
    assert bool((plain.margin[:2] > 0).all())
    assert cut.margin[2:].tolist() == [0.0] * 4
    assert cut.samples.tolist() == [2000, 2000, 0, 0, 0, 0]
    assert set(cut.reasons[2:]) == {"the seconds of the budget were over before its draws began"}


def test_the_best_of_both_keeps_to_its_seconds(affine, points):
    own = margin(affine, points, 2.5, method="best", samples=2000, budget=Budget(seconds=1e-9))
    by_local = margin(affine, points, 2.5, method="local", samples=2000, alpha=5e-4)
    assert torch.equal(own.margin, by_local.margin)  # which draws at once, at one size
    assert own.alpha == 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_margin_may_be_longer_than_the_diagonal_of_a_cube(linear, points, method):
    """An encoder of slope 1/1000: every radius up to the whitened margin's thousands holds."""
    vae = linear(1e-3 * torch.eye(3, 6), [1.0, 1.0, 1.0], torch.eye(6, 3))
    own = margin(vae, points, 3.5, method=method, samples=2000).margin
    first = margin(vae, points, 3.5, method="whitened", samples=1000).margin
    assert bool((own > 100 * math.sqrt(6)).all())
    assert bool((own > 0.9 * first).all())


@pytest.mark.parametrize("method", ["local", "anchors"])
def test_a_unit_that_is_nearly_dead_at_x_does_not_lead_the_search_astray(method, linear):
    """μ = leaky(30x₁ − 30) with a slope of 3e-8 at 0: first order says millions."""
    vae = linear(torch.tensor([[30.0, 0.0]]), [1.0], torch.ones(2, 1))
    mean = nn.Sequential(nn.Linear(2, 1), nn.LeakyReLU(1e-9)).double()
    mean[0].weight.data = torch.tensor([[30.0, 0.0]]).double()
    mean[0].bias.data.fill_(-30.0)
    vae.encoder.mean = mean
    own = margin(vae, torch.zeros(1, 2).double(), 2.0, method=method, samples=2000).margin
    assert 0.5 < float(own) < 1.05
