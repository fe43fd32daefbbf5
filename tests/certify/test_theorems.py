"""Bounds from Lipschitz constants: the published numbers, the simulated truth, their order."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from vaefast.certify.events import Event
from vaefast.certify.theorems import BOUNDS, Setting, largest_shift, misses, published_tail
from vaefast.models import Constants

# mathematics.md 4.4: r = 8, m = 10, ‖σ‖ = 0.1 in one coordinate, a = b = c = L
TABLE = {
    5: (0.1387, 0.0422, 0.1491, 0.868, 0.873),
    6: (0.0932, 0.0250, 0.1018, 0.601, 0.605),
    7: (0.0661, 0.0152, 0.0735, 0.441, 0.444),
    8: (0.0487, 0.0093, 0.0553, 0.336, 0.340),
    9: (0.0370, 0.0054, 0.0429, 0.265, 0.268),
    10: (0.0287, 0.0028, 0.0341, 0.214, 0.217),
}


def setting(a, b, c, s, S=None, r=8.0, m=10, *, ball=math.inf, isotropic=False):
    s, S, r = (torch.tensor([float(v)]).double() for v in (s, s if S is None else S, r))
    return Setting(Constants(a, b, c, ball), s, S, r, m, isotropic)


def margins(at, event=Event.TWO_DRAWS):
    return {name: value.item() for name, value in largest_shift(at, event).items()}


@pytest.mark.parametrize("L", TABLE)
def test_the_table(L):
    plain, slack = (margins(setting(a, L, a, 0.1)) for a in (L, L / 4))
    found = (
        plain["theorem 2, m1"],
        plain["theorem 2, m2"],
        max(plain["T1"], plain["T2"]),
        slack["theorem 2, m1"],
        max(slack["T1"], slack["T2"]),
    )
    for value, published, digits in zip(found, TABLE[L], (4, 4, 4, 3, 3), strict=True):
        assert value == pytest.approx(published, abs=0.6 * 10**-digits)


def test_theorem_3_at_a_fixed_std():
    """γ = 0.1, m = 10, a = b = 10, r = 8: the second line of the table."""
    gamma = 0.1
    at = setting(10, 10, 0, gamma * math.sqrt(10), gamma, isotropic=True)
    found = margins(at)
    assert found["T2"] == pytest.approx(0.0368, abs=5e-5)
    assert found["T3"] == pytest.approx(0.0677, abs=5e-5)
    assert found["T1"] == pytest.approx(0.0346, abs=5e-5)
    assert found["theorem 2, m1"] == 0.0
    sharper = setting(10, 10, 0, gamma / math.sqrt(2))  # (2s)² is the variance 2γ²
    code = optimize.brentq(
        lambda d: published_tail(sharper, torch.tensor([[d]]).double()).item() - 0.5, 1e-6, 0.07
    )
    assert code == pytest.approx(0.0322, abs=5e-5)


@pytest.mark.parametrize(("a", "b", "c", "s"), [(5, 5, 5, 0.1), (1, 3, 0, 0.4), (2, 0.5, 4, 1.0)])
def test_m1_is_the_root_of_its_quadratic(a, b, c, s):
    """m₁ = [−2cs + √((b² + c²)r²/(2a²) − 4b²s²)]/(b² + c²)."""
    square = b**2 + c**2
    root = (-2 * c * s + math.sqrt(square * 64 / (2 * a**2) - 4 * b**2 * s**2)) / square
    assert margins(setting(a, b, c, s))["theorem 2, m1"] == pytest.approx(root, rel=1e-8)


def test_m1_needs_a_narrow_posterior():
    """It is 0 unless s ≤ r/(a√8)."""
    edge = 8.0 / (5 * math.sqrt(8))
    assert margins(setting(5, 5, 5, edge * 1.001))["theorem 2, m1"] == 0.0
    assert margins(setting(5, 5, 5, edge * 0.999))["theorem 2, m1"] > 0.0


SIZES = st.floats(0.1, 10.0)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.floats(0.0, 5.0), st.floats(0.01, 1.0), st.integers(1, 64), SIZES)
def test_bounds_never_fall_as_the_input_moves_and_are_nested(a, b, c, s, m, r):
    at = setting(a, b, c, s, r=r, m=m)
    d = torch.linspace(0, 1.2 * r / (a * b), 40).double()[None]
    for event in BOUNDS:
        found = misses(at, event, d)
        for name, p in found.items():
            assert (p.diff(dim=1) >= -1e-12).all(), name
            assert ((p >= 0) & (p <= 1)).all(), name
    two, one = misses(at, Event.TWO_DRAWS, d), misses(at, Event.FIXED_CENTRE, d)
    slack = 1e-12
    assert (two["T1"] <= two["theorem 2, m1"] + slack).all()
    assert (two["T2"] <= two["theorem 2, m2"] + slack).all()
    assert (one["variance"] <= two["T1"] + slack).all()
    assert (one["tail"] <= two["T2"] + slack).all()


@settings(max_examples=30, deadline=None)
@given(SIZES, SIZES, st.floats(0.01, 3.0), st.floats(0.01, 1.0), SIZES)
def test_margins_shrink_with_every_constant_and_grow_with_r(a, b, c, s, r):
    at = margins(setting(a, b, c, s, r=r))
    larger = [(1.1 * a, b, c, s), (a, 1.1 * b, c, s), (a, b, 1.1 * c, s), (a, b, c, 1.1 * s)]
    for values in larger:
        for name, value in margins(setting(*values, r=r)).items():
            assert value <= at[name] * (1 + 1e-9)
    for name, value in margins(setting(a, b, c, s, r=1.1 * r)).items():
        assert value >= at[name]
    in_ball = margins(setting(a, b, c, s, r=r, ball=s))
    assert in_ball["T1"] >= at["T1"]
    assert in_ball["theorem 2, m1"] == at["theorem 2, m1"]


def worst(at, d, event, draws, seed):
    """P(miss) of the worst maps: μ moves by b·d, σ by c·d, both as the constants allow, g = a·z.

    Noise and shift lie along one latent where σ is in one coordinate.
    """
    own, m = at.constants, at.latents
    generator = torch.Generator().manual_seed(seed)
    std = torch.zeros(m).double()
    std[0] = at.norm.item()
    moved = std.clone()
    moved[0] = min(at.norm.item() + own.c * d, own.std_norm)
    if at.isotropic:
        std = moved = torch.full((m,), at.largest.item()).double()
    z = moved * torch.randn(draws, m, generator=generator, dtype=torch.float64)
    z[:, 0] += own.b * d
    if event is Event.TWO_DRAWS:
        z -= std * torch.randn(draws, m, generator=generator, dtype=torch.float64)
    return int((own.a * z.norm(dim=1) > at.r.item()).sum())


CASES = {
    "learned": setting(2.0, 3.0, 1.0, 0.4, r=4.0, m=5),
    "ball": setting(2.0, 3.0, 2.0, 0.4, r=4.0, m=5, ball=0.5),
    "wide": setting(1.0, 1.0, 1.0, 0.8, r=4.0, m=3),
    "fixed": setting(2.0, 3.0, 0.0, 0.3 * math.sqrt(5), 0.3, r=4.0, m=5, isotropic=True),
    "one latent": setting(1.0, 2.0, 0.5, 0.3, r=2.0, m=1),
    "noise alone": setting(1.0, 0.01, 2.0, 0.3, r=2.0, m=1),
    "many latents": setting(1.0, 1.0, 0.0, 0.2 * 8, 0.2, r=4.0, m=64, isotropic=True),
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("name", CASES)
def test_no_bound_is_below_the_simulated_miss(name, event):
    """At the worst maps, where a half of all draws is missed soonest."""
    at, draws = CASES[name], 20_000
    top = at.r.item() / (at.constants.a * at.constants.b)
    top = min(top, 2.0 * max(margins(at, event).values()))
    for step, d in enumerate(torch.linspace(0, top, 8).tolist()):
        missed = worst(at, d, event, draws, seed=step)
        for bound, p in misses(at, event, torch.tensor([[d]]).double()).items():
            # chance of as many misses or more if P(miss) were the bound
            assert stats.binom.sf(missed - 1, draws, p.item()) > 1e-6, (bound, d)


def test_the_isotropic_bound_is_exact():
    for name in ("fixed", "many latents"):
        at = CASES[name]
        for event, bound in ((Event.FIXED_CENTRE, "isotropic"), (Event.TWO_DRAWS, "T3")):
            shift = largest_shift(at, event)[bound].item()
            missed = worst(at, shift, event, 100_000, seed=1)
            assert missed / 100_000 == pytest.approx(0.5, abs=0.01)


def test_a_constant_of_zero_is_no_division():
    for a, b in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
        for value in margins(setting(a, b, 1.0, 0.1), Event.FIXED_CENTRE).values():
            assert value > 1.0
            assert math.isfinite(value)
