"""Certified margins: sound against attacks and draws, of one event, and blind to nothing."""

import dataclasses
import math

import pytest
import torch
from scipy import stats
from torch import nn

import vaefast as vf
from vaefast.certify import Event, Guarantee, best, empirical_margin, margin, robust_probability
from vaefast.models import MLPVAE, LipschitzVAE

VARIANTS = {None: Event.FIXED_CENTRE, "barrett2022": Event.TWO_DRAWS}
R = 2.0


def build(kind, seed=0):
    how = {
        "learned": {"c": 0.3},
        "ball": {"c": 0.5, "std_norm": 0.3},
        "fixed": {"fixed_std": 0.15},
        "gaussian": {"c": 0.3, "likelihood": "gaussian"},
    }[kind]
    vae = LipschitzVAE((1, 4, 4), 0.8, 1.5, hidden=(16, 16), latent=4, seed=seed, **how)
    if "std_norm" not in how and "fixed_std" not in how:
        with torch.no_grad():
            vae.encoder.logvar[-3].bias -= 2.5 / vae.encoder.logvar[-3].scale  # narrow posteriors
    return vae.double().export()


@pytest.fixture(params=["learned", "ball", "fixed", "gaussian"])
def vae(request):
    return build(request.param)


@pytest.fixture
def x():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(5)).double()


def certified(vae, x, r=R, **options):
    return margin(vae, x, r, method="lipschitz", **options)


def hits(vae, x, moved, event, draws, seed):
    """Draws within R after the move, of one row."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(point):
        mean, std = (t.detach() for t in vae.posterior(point))
        noise = torch.randn(draws, mean.shape[1], generator=generator, dtype=torch.float64)
        return vae.g(mean + std * noise).detach().flatten(1)

    centre = vae.reconstruct(x).detach().flatten(1)
    other = centre if event is Event.FIXED_CENTRE else drawn(x)
    return int(((drawn(moved) - other).norm(dim=1) <= R).sum())


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_attack_inside_the_margin_wins(vae, x, variant):
    """At the certified radius itself, by the strongest attack there is and by random moves."""
    result = certified(vae, x, variant=variant)
    event = VARIANTS[variant]
    assert result.event is event
    assert (result.margin > 0).all()
    attack = vf.attacks.max_damage(vae, x, eps=result.margin, norm="l2", restarts=3, steps=20)
    away = (attack.x_adv - x).flatten(1)
    away = away / away.norm(dim=1, keepdim=True)
    for row in range(len(x)):
        for move in (away[row], torch.randn(16, dtype=torch.float64)):
            step = (result.margin[row] * move / move.norm()).view(1, 1, 4, 4)
            found = hits(vae, x[row : row + 1], x[row : row + 1] + step, event, 2000, row)
            assert stats.binom.cdf(found, 2000, 0.5) > 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_curve_is_below_the_simulated_probability(vae, x, variant):
    radii = (0.0, 0.2, 0.5, 1.0)
    found = robust_probability(vae, x, R, method="lipschitz", radii=radii, variant=variant)
    assert found.p_lower.shape == (6, 4)
    assert (found.p_lower.diff(dim=1) <= 0).all()
    assert found.event is VARIANTS[variant]
    assert found.guarantee.sound
    for row in range(2):
        for k, d in enumerate(radii):
            step = torch.randn(1, 1, 4, 4, dtype=torch.float64)
            moved = x[row : row + 1] + d * step / step.norm()
            n = hits(vae, x[row : row + 1], moved, found.event, 2000, k)
            assert stats.binom.cdf(n, 2000, found.p_lower[row, k].item()) > 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_empirical_margin_is_never_below(vae, x, variant):
    result = certified(vae, x[:3], 1.0, variant=variant)
    search = {"grid": 6, "bisections": 3, "restarts": 2, "steps": 10, "samples": 100}
    found = empirical_margin(
        vae, x[:3], 1.0, event=result.event, certified=result, r_max=6.0, low=-9, high=9, **search
    )
    assert (found.margin >= result.margin).all()
    assert found.event is result.event
    assert torch.equal(found.ratio, result.margin / found.margin)
    assert (found.ratio <= 1).all()


def test_two_draws_break_where_one_does_not(x):
    """r is below what two draws of x mostly differ by, above what one differs from its centre."""
    vae = build("fixed")
    mean, std = vae.posterior(x[:1])
    noise = torch.randn(2, 500, 4, generator=torch.Generator().manual_seed(0)).double()
    one, two = (vae.g(mean + std * eta).detach().flatten(1) for eta in noise)
    r = float((one - two).norm(dim=1).median()) * 0.9
    search = {"grid": 2, "bisections": 1, "restarts": 1, "steps": 5, "samples": 200, "r_max": 0.1}
    found = {e: empirical_margin(vae, x[:1], r, event=e, **search).margin.item() for e in Event}
    assert found[Event.TWO_DRAWS] == 0.0
    assert found[Event.FIXED_CENTRE] > 0.0


def test_numbers_by_hand(x):
    """Of one linear layer each: every constant is a spectral norm."""
    torch.manual_seed(0)
    W, A = torch.randn(2, 16).double(), torch.randn(16, 2).double()
    mean, decoder = nn.Linear(16, 2).double(), nn.Linear(2, 16).double()
    mean.weight.data, decoder.weight.data = W, A
    vae = vf.VAE(
        encoder_mean=nn.Sequential(nn.Flatten(), mean),
        encoder_logvar=2 * torch.tensor([0.1, 0.3], dtype=torch.float64).log(),
        decoder=decoder,
        likelihood="gaussian",
    ).eval()
    result = certified(vae, x, 5.0)
    a, b = (float(torch.linalg.matrix_norm(m, 2)) for m in (A, W))
    s = math.hypot(0.1, 0.3)
    expected = math.sqrt(25 / (2 * a * a) - s * s) / b
    assert result.bounds["variance"].tolist() == pytest.approx([expected] * 6, rel=1e-7)
    u = stats.chi2.isf(0.5, 2)
    tail = (5.0 / a - 0.3 * math.sqrt(u)) / b
    assert result.bounds["tail"].tolist() == pytest.approx([tail] * 6, rel=1e-7)
    assert torch.equal(result.margin, torch.stack([*result.bounds.values()]).amax(0))
    assert result.constants == pytest.approx((a, b, 0.0, s), rel=1e-8)
    assert result.p_lower.tolist() == pytest.approx(
        [1 - min((a * s / 5) ** 2, stats.chi2.sf((5 / a / 0.3) ** 2, 2))] * 6
    )
    assert result.guarantee is Guarantee.LIPSCHITZ
    assert result.method == "lipschitz"


def test_the_sigmoid_counts_a_quarter(x):
    one = certified(build("learned"), x).constants
    assert one.a == pytest.approx(0.8, rel=1e-3)
    assert one.c == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_monotone_in_r_and_larger_layers_are_caught(vae, x, variant):
    margins = [certified(vae, x, r, variant=variant).margin for r in (0.5, 1.0, 2.0, 4.0)]
    assert (torch.stack(margins).diff(dim=0) >= 0).all()
    vae.decoder[0].weight.data.mul_(1.5)
    assert (certified(vae, x, 4.0, variant=variant).margin < margins[-1]).all()
    before = certified(vae, x, 4.0, variant=variant).margin
    vae.encoder.mean[1].weight.data[0, 0] += 50.0
    assert (certified(vae, x, 4.0, variant=variant).margin < before).all()


def test_single_precision_is_certified_as_the_weights_are(vae, x):
    double = certified(vae, x).margin
    single = certified(vae.float(), x.float()).margin
    assert single.dtype == torch.float64
    torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-6)


def test_rows_that_say_nothing_have_a_reason(vae, x):
    x[1] = torch.nan
    r = torch.tensor([R, R, 1e-3, math.nan, 0.0, R])
    result = certified(vae, x, r)
    assert result.abstain.tolist() == [False, True, True, True, True, False]
    assert result.margin.isnan().tolist() == [False, True, False, True, False, False]
    assert result.reasons[1] == result.reasons[3] == "x or r is not finite"
    assert result.reasons[2].startswith("the constants and σ(x) leave the event")
    assert result.reasons[0] == ""
    assert certified(vae, x[:0]).margin.shape == (0,)


def test_ordinary_models_have_margins_too(x):
    """Sound, if small: any network that lowers has constants."""
    vae = MLPVAE((1, 4, 4), (8,), 3, "relu", fixed_std=0.05).double().eval()
    result = certified(vae, x, 3.0)
    assert (result.margin > 0).all()
    assert {*result.bounds} == {"variance", "tail", "isotropic"}


class TestEvents:
    def test_nothing_combines_two(self, x):
        vae = build("ball")
        one, two = (certified(vae, x, variant=v) for v in VARIANTS)
        with pytest.raises(ValueError, match="cannot be compared or combined"):
            best(one, two)
        with pytest.raises(ValueError, match="cannot be compared or combined"):
            empirical_margin(vae, x, R, certified=two)
        probability = robust_probability(vae, x, R, method="lipschitz", variant="barrett2022")
        with pytest.raises(TypeError, match="must be a RobustProbability of draws"):
            margin(vae, x, R, probability=probability)

    def test_the_other_methods_have_the_fixed_centre(self, x):
        vae = build("learned")
        assert margin(vae, x, R, samples=20).event is Event.FIXED_CENTRE
        assert robust_probability(vae, x, R, samples=20).event == Event.FIXED_CENTRE

    def test_best_takes_the_larger_of_one_kind(self, x):
        vae = build("fixed")
        one, two = certified(vae, x), certified(vae, x)
        other = torch.linspace(0, 2, 6).double()
        two = dataclasses.replace(two, margin=other, abstain=other == 0)
        found = best(one, two)
        assert torch.equal(found.margin, torch.maximum(one.margin, other))
        assert not found.abstain.any()
        assert found.guarantee.sound
        assert best(one).margin.equal(one.margin)
        with pytest.raises(ValueError, match="would be neither"):
            best(one, margin(vae, x, R, samples=20))
        with pytest.raises(ValueError, match=r"must be \[6\] like the first margin"):
            best(one, certified(vae, x[:2]))
        with pytest.raises(TypeError, match=r"takes results of certify\.margin"):
            best(one.margin)
        with pytest.raises(ValueError, match="at least one"):
            best()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 5}, 'method "lipschitz" draws nothing; leave out samples'),
        ({"precision": "bf16"}, "leave out precision"),
        ({"variant": "camuto2021"}, "variant must be one of 'barrett2022'"),
    ],
)
def test_mistakes_are_named(x, options, message):
    with pytest.raises(ValueError, match=message):
        certified(build("fixed"), x, **options)
    with pytest.raises(ValueError, match='variant is of method "lipschitz"'):
        margin(build("fixed"), x, R, variant="barrett2022")
    with pytest.raises(ValueError, match="r must be finite"):
        certified(build("fixed"), x, math.inf)
    with pytest.raises(ValueError, match="radii must be numbers"):
        robust_probability(build("fixed"), x, R, method="lipschitz", radii=(-1.0,))
    with pytest.raises(ValueError, match="has no Lipschitz constant"):
        certified(MLPVAE((1, 4, 4), (8,), 3).double().eval(), x)
