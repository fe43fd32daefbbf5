"""Secants and relaxations of every activation: exact where they say so, and never crossed."""

import mpmath
import pytest
import torch

from vaefast.functional.activations import ACTIVATIONS
from vaefast.functional.relaxations import affine, lipschitz, moves, secant_range
from vaefast.functional.secants import curve

NAMES = (
    *("relu", "leaky_relu:0.1", "leaky_relu:-0.3", "leaky_relu:2", "tanh", "sigmoid", "softplus"),
    *("elu:1", "elu:0.5", "elu:1.7", "elu:0", "selu", "silu", "gelu", "gelu_tanh", "mish"),
    *("exp_half", "clamp:-0.8:1.1", "clamp:0:0", "hardswish", "maxmin"),
)
EXACT = ("relu", "leaky_relu:0.1", "elu:1", "elu:0.5", "tanh", "sigmoid", "softplus", "exp_half")
POINTS = 6000
every = pytest.mark.parametrize("name", NAMES)


def mp_value(name):
    """φ with 60 digits."""
    kind, *given = name.split(":")
    p = [mpmath.mpf(float(v)) for v in given]
    exp, root = mpmath.exp, mpmath.sqrt(2 / mpmath.pi)
    alpha, scale = mpmath.mpf("1.6732632423543772848"), mpmath.mpf("1.0507009873554804934")
    low = lambda a: exp(min(a, 0)) - 1  # noqa: E731
    return {
        "relu": lambda a: max(a, 0),
        "maxmin": lambda a: max(a, 0),
        "leaky_relu": lambda a: a if a > 0 else p[0] * a,
        "elu": lambda a: a if a > 0 else p[0] * low(a),
        "selu": lambda a: scale * (a if a > 0 else alpha * low(a)),
        "tanh": mpmath.tanh,
        "sigmoid": lambda a: 1 / (1 + exp(-a)),
        "softplus": lambda a: mpmath.log1p(exp(a)),
        "silu": lambda a: a / (1 + exp(-a)),
        "gelu": lambda a: a * mpmath.ncdf(a),
        "gelu_tanh": lambda a: a / (1 + exp(-2 * root * (a + mpmath.mpf(0.044715) * a**3))),
        "mish": lambda a: a * mpmath.tanh(mpmath.log1p(exp(a))),
        "exp_half": lambda a: exp(a / 2),
        "clamp": lambda a: min(max(a, p[0]), p[1]),
        "hardswish": lambda a: a * min(max(a + 3, 0), 6) / 6,
    }[kind]


def drawn(points=POINTS, seed=0):
    """Anchors and intervals: tiny to huge, ends at 0, anchors on and beside kinks and turns."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def spread(low, high):
        return 10.0 ** (low + (high - low) * rand(points))

    a = (2 * rand(points) - 1).sign() * spread(-4, 1.7)
    lo, hi = -spread(-9, 1.8), spread(-9, 1.8)
    kinks = torch.tensor([0.0, 0.0, -3.0, 3.0, -0.8, 1.1, 1.4142135623730951, 2.3993571998642737])
    a[-5:], lo[-5:], hi[-5:] = 300.0, -750.0, 750.0  # far into saturation
    a[-2:] = -300.0
    every, kinks = points // 40, kinks.double()
    a[:every] = kinks[torch.arange(every) % 8]
    lo[every : 2 * every], hi[2 * every : 3 * every] = 0.0, 0.0
    lo[3 * every : 4 * every] = hi[3 * every : 4 * every] = 0.0
    a[4 * every : 5 * every] = -lo[4 * every : 5 * every]  # the kink at an end
    a[5 * every : 6 * every] = -hi[5 * every : 6 * every]
    lo[6 * every : 7 * every] = -hi[6 * every : 7 * every]
    inside = torch.cat((rand(points, 12), spread(-6, 0)[:, None], torch.ones(points, 1)), 1)
    return a, lo, hi, torch.cat((lo[:, None] * inside, hi[:, None] * inside), 1)


@every
def test_secants_have_all_their_digits(name):
    bent, phi = curve(name), mp_value(name)
    a, _, _, u = drawn(80)
    u = u[:, ::5]
    found = bent.secant(a[:, None].expand_as(u), u)
    with mpmath.workdps(60):
        for i in range(len(a)):
            at, there = mpmath.mpf(a[i].item()), phi(mpmath.mpf(a[i].item()))
            for j, step in enumerate(u[i].tolist()):
                if step:
                    exact = (phi(at + mpmath.mpf(step)) - there) / mpmath.mpf(step)
                    error = abs(mpmath.mpf(found[i, j].item()) - exact)
                    assert error <= bent.error * (1 + abs(exact)), (at, step)


@every
@pytest.mark.parametrize("seed", [0, pytest.param(range(1, 40), marks=pytest.mark.proof)], ids=str)
def test_no_point_leaves_a_range(name, seed):
    bent = curve(name)
    for one in [seed] if isinstance(seed, int) else seed:
        a, lo, hi, u = drawn(seed=one)
        least, most = secant_range(bent, a, lo, hi)
        line = affine(bent, a, lo, hi)
        low, high = moves(bent, line, a, lo, hi)
        assert not torch.stack((least, most, *line, low, high)).isnan().any()
        secant = bent.secant(a[:, None].expand_as(u), u)
        moved = u * secant
        slack = 4 * bent.error * (1 + secant.abs())
        real = u != 0
        assert ((secant <= most[:, None] + slack) | ~real).all()
        assert ((secant >= least[:, None] - slack) | ~real).all()
        rest = (moved - line.slope[:, None] * u - line.shift[:, None]).abs()
        assert (rest <= line.error[:, None] + slack * u.abs()).all()
        assert (moved <= high[:, None] + slack * u.abs()).all()
        assert (moved >= low[:, None] - slack * u.abs()).all()
        assert (secant.abs().amax(1) <= lipschitz(bent, a, hi) * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("name", EXACT)
def test_ranges_are_attained(name):
    """Between the extreme points of a fine grid and the range little fits."""
    bent = curve(name)
    a, lo, hi, _ = drawn(400)
    a, wide = a.clamp(-8, 8), (hi - lo > 1e-2) & (hi - lo < 10)
    a, lo, hi = a[wide], lo[wide], hi[wide]
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:]
    u = torch.cat((lo[:, None] * t, hi[:, None] * t), 1)
    secant = bent.secant(a[:, None].expand_as(u), u)
    least, most = secant_range(bent, a, lo, hi)
    line = affine(bent, a, lo, hi)
    assert (most - secant.nan_to_num(-9).amax(1) <= 2e-3 * (most - least) + 1e-9).all()
    assert (secant.nan_to_num(9).amin(1) - least <= 2e-3 * (most - least) + 1e-9).all()
    rest = u * secant - line.slope[:, None] * u
    half = 0.5 * (rest.amax(1).clamp(min=0) - rest.amin(1).clamp(max=0))
    assert (line.error <= 1.01 * half + 1e-9).all()


def test_a_unit_that_stays_on_one_side_of_its_kink_has_no_error():
    a, r = torch.tensor([2.0, -2.0, 1e-9, -1e-9]).double(), torch.tensor([1.0, 2.0, 1e-9, 1e-10])
    least, most = secant_range(curve("relu"), a, -r.double(), r.double())
    assert torch.equal(least, most)
    assert torch.equal(affine(curve("relu"), a, -r.double(), r.double()).error, torch.zeros(4))


def test_every_activation_has_a_rule():
    needs = {"leaky_relu": ":0.1", "elu": ":1", "clamp": ":-1:1"}
    for name in ACTIVATIONS:
        assert (curve(name + needs.get(name, "")) is None) == (name == "identity")


def test_an_activation_without_one_is_named(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, "wave", ACTIVATIONS["tanh"])
    with pytest.raises(ValueError, match=r"^activation 'wave' has no range of secants; there is"):
        curve("wave")
    with pytest.raises(ValueError, match=r"'elu:-0.5' has no range of secants"):
        curve("elu:-0.5")
