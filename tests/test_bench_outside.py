"""Outside methods beside our certificates: bounds that hold, radii where the truth is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import vaefast as vf
from vaefast.bench import certificates_outside, outside_methods
from vaefast.bench import outside_smoothing as smoothing
from vaefast.bench import outside_support as support
from vaefast.bench.outside_encoder import interval
from vaefast.bench.outside_mass import ellipsoid_mass, moved_mass, padding
from vaefast.bench.rows import append

ALPHA = 1e-6


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    monkeypatch.setattr(support, "STEEPNESS", (0.4, 2.0))
    monkeypatch.setattr(support, "SIZES", (1.0, 1.2, 1.5, 3.0))
    monkeypatch.setattr(support, "STEPS", 20)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def line(slope=1.4, std=0.5, pixels=6):
    """μ = wᵀx and g(z) = z·e·slope: one latent, so that the event is an interval of it."""
    mean, out = nn.Linear(pixels, 1, bias=False), nn.Linear(1, pixels, bias=False)
    mean.weight.data = torch.randn(1, pixels, generator=generator(1))
    e = torch.randn(pixels, 1, generator=generator(2))
    out.weight.data = slope * e / e.norm()
    logvar = torch.tensor([2 * math.log(std)]).double()
    vae = vf.VAE(
        encoder_mean=mean, encoder_logvar=logvar, decoder=out, likelihood="gaussian"
    ).double()
    return vae.eval(), float(mean.weight.detach().norm()) / std, slope * std


def mlp(activation, fixed, seed=0):
    std = {"fixed_std": 0.2} if fixed else {}
    vae = vf.models.MLPVAE((1, 8, 8), (14, 12), 3, activation, **std, seed=seed).double().eval()
    x = vf.data.load("digits").x_test[seed : seed + 1].double()
    return vae, x


def around(x, radius, n, seed=0):
    """Points of a sphere about x [1, *event]."""
    delta = torch.randn(n, x[0].numel(), generator=generator(seed)).double()
    return x + radius * nn.functional.normalize(delta, dim=1).view(n, *x.shape[1:])


@pytest.mark.parametrize("shift", [0.0, 0.7, 2.0])
def test_the_mass_of_a_ball_is_that_of_a_noncentral_chi_square(shift):
    shifts = np.array([shift**2, 0.0, 0.0, 0.0])
    for limit in (0.5, 4.0, 30.0):
        exact = stats.chi2.cdf(limit, 4) if shift == 0 else stats.ncx2.cdf(limit, 4, shift**2)
        own = ellipsoid_mass(np.ones(4), shifts, limit)
        assert exact - 2e-9 <= own <= exact + 1e-12


def test_the_mass_of_an_ellipsoid_is_that_of_draws():
    rng = np.random.default_rng(0)
    eta = rng.standard_normal((200_000, 5))
    for _ in range(4):
        weights, m = rng.uniform(0.05, 2.0, 5), rng.standard_normal(5)
        share = np.mean(((eta + m) ** 2) @ weights <= 6.0)
        assert abs(ellipsoid_mass(weights, m**2, 6.0) - share) < 5 * 0.5 / math.sqrt(len(eta))


def test_no_allowed_shift_has_less_than_the_moved_mass():
    rng = np.random.default_rng(1)
    weights, caps, limit, shift = np.array([1.0, 0.7, 0.2]), np.array([0.6, 0.9, 2.0]), 3.0, 1.3
    least = moved_mass(weights, limit, shift, caps)
    masses = []
    for _ in range(300):
        m = rng.standard_normal(3)
        m = np.clip(shift * m / np.linalg.norm(m), -caps, caps)
        masses.append(ellipsoid_mass(weights, m**2, limit))
    assert least <= min(masses)
    assert least > min(masses) - 0.02


def test_a_padded_interval_holds_its_mass_wherever_the_mean_is():
    width, std = torch.tensor([0.0, 0.3, 2.0]).double(), torch.tensor([0.5, 1.0, 0.2]).double()
    mass = torch.tensor([0.5, 0.93, 0.7]).double()
    pad = padding(width, std, mass)
    for at in torch.linspace(0, 1, 11):
        for scale in (0.3, 0.8, 1.0):
            law = torch.distributions.Normal(at * width, scale * std)
            held = law.cdf(width + pad) - law.cdf(-pad)
            assert bool((held >= mass - 1e-12).all())
            if at in (0, 1) and scale == 1.0:
                assert torch.allclose(held, mass, atol=1e-9)


@pytest.mark.parametrize("best", [False, True])
def test_a_box_is_exact_where_the_event_is_an_interval(best):
    """P(|m + η| ≤ c) = ½ says the margin, c = r/(slope·σ), m = R‖w‖/σ."""
    vae, steep, slope = line()
    encoder = support.Encoder(vae, torch.zeros(1, 6).double())
    box = support.Box(encoder, best)
    for c in (0.9, 1.5, 2.5):
        truth = shift_of_half(c) / steep
        found = box.radius(c * slope, 3.0)
        assert truth - 3.0 * 2.0**-13 <= found <= truth * (1 + 1e-6)
    assert box.radius(0.6 * slope, 3.0) == 0.0  # less than half at x itself


def test_an_ellipsoid_is_exact_where_the_event_is_an_interval():
    vae, steep, slope = line()
    sets = support.Ellipsoids(support.Encoder(vae, torch.zeros(1, 6).double()), 3.0 * slope)
    c = sets.shapes[0].sizes[2]
    found = sets.radius(c * slope * (1 + 1e-6), 3.0)
    truth = shift_of_half(c) / steep
    assert truth - 3.0 * 2.0**-13 <= found <= truth * (1 + 1e-6)
    assert sets.starts == pytest.approx(float(stats.norm.ppf(0.75)) * slope, rel=1e-5)
    assert sets.radius(0.99 * sets.starts, 3.0) == 0.0


QUICK = {"steps": 10, "restarts": 2, "bisections": 2}


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_sets_are_exact_where_one_end_is_the_furthest(side):
    """g(z) = sigmoid(z·w + b), w > 0, d = 1: of [−c, c] the end is towards which it is steeper."""
    mean, out = nn.Linear(6, 1, bias=False), nn.Linear(1, 6)
    out.weight.data, out.bias.data = (
        torch.rand(6, 1, generator=generator()) + 0.5,
        side * torch.ones(6),
    )
    logvar = torch.tensor([2 * math.log(0.8)]).double()
    given = {"encoder_logvar": logvar, "decoder": out, "decoder_output": "logits"}
    vae = vf.VAE(encoder_mean=mean, **given).double().eval()
    encoder = support.Encoder(vae, torch.zeros(1, 6).double())
    c = 0.8 * float(stats.norm.ppf(0.75))
    furthest = float(
        (vae.g(torch.tensor([[-side * c], [0.0]]).double()).detach().diff(dim=0)).norm()
    )
    for method in (support.Box(encoder, False), support.Ellipsoids(encoder, 9.0)):
        assert method.starts == pytest.approx(furthest, rel=1e-5)
        assert method.starts >= furthest


def test_a_small_ellipsoid_is_bounded_by_the_slope_at_the_mean(monkeypatch):
    monkeypatch.setattr(support, "SIZES", (1e-4,))
    vae, x = mlp("tanh", False)
    encoder = support.Encoder(vae, x + 2.0)  # where μ is not near 0
    assert float(encoder.mean.abs().max()) > 0.3
    slopes = (
        torch.autograd.functional.jacobian(lambda z: vae.g(z[None]).flatten(), encoder.mean)
        @ encoder.std.diag()
    )
    for shape in support.Ellipsoids(encoder, 9.0).shapes:
        size = torch.linalg.matrix_norm(slopes @ (shape.axes / torch.from_numpy(shape.steep)), 2)
        assert 1.0 <= shape.distances[0] / (shape.sizes[0] * float(size)) < 1.01


def shift_of_half(c):
    """m with P(|m + η| ≤ c) = ½."""
    low, high = 0.0, 2 * c
    for _ in range(60):
        m = 0.5 * (low + high)
        kept = stats.norm.cdf(c - m) - stats.norm.cdf(-c - m)
        low, high = (m, high) if kept > 0.5 else (low, m)
    return low


CASES = [("relu", True), ("relu", False), ("tanh", False), ("softplus", True)]


@pytest.mark.parametrize(("activation", "fixed"), CASES)
def test_bounds_over_latent_sets_are_not_left(activation, fixed):
    """By points of the set and ascent on the distance, projected back."""
    vae, x = mlp(activation, fixed)
    encoder = support.Encoder(vae, x)
    sets = support.Ellipsoids(encoder, 100.0)
    for shape in sets.shapes:
        steep = torch.from_numpy(shape.steep)
        for c, bound in zip(shape.sizes, shape.distances, strict=True):
            y = c * nn.functional.normalize(torch.randn(100, 3, generator=generator()).double())
            for _ in range(10):
                y.requires_grad_()
                z = encoder.mean + encoder.std * ((y / steep) @ shape.axes.mT)
                apart = (vae.g(z).flatten(1) - encoder.centre).norm(dim=1)
                assert bool((apart <= bound).all())
                (slope,) = torch.autograd.grad(apart.sum(), y)
                y = c * nn.functional.normalize(y.detach() + 0.3 * nn.functional.normalize(slope))
            assert bound < 40 * apart.max().item()


@pytest.mark.parametrize(("activation", "fixed"), CASES)
def test_the_box_and_its_mass_hold_in_the_ball(activation, fixed):
    vae, x = mlp(activation, fixed)
    encoder = support.Encoder(vae, x)
    points = around(x, 0.3, 300)
    mean, std = vae.posterior(points)
    plain, tight = (encoder.ranges(0.3, tight) for tight in (False, True))
    for low, high, top in (plain, tight):
        assert bool((mean >= low).all() and (mean <= high).all() and (std <= top).all())
    assert bool((tight[0] >= plain[0]).all() and (tight[2] <= plain[2]).all())
    low, high = tight[0] - tight[2], tight[1] + tight[2]
    z = low + (high - low) * torch.rand(500, 3, generator=generator()).double()
    ends = interval(encoder.decoder, low, high)
    assert bool((vae.g(z).flatten(1) >= ends[0]).all() and (vae.g(z).flatten(1) <= ends[1]).all())


@pytest.mark.parametrize(("activation", "fixed"), CASES[:3])
def test_no_attack_inside_a_support_set_s_radius_takes_the_majority(activation, fixed):
    vae, x = mlp(activation, fixed)
    encoder = support.Encoder(vae, x)
    sets, box = support.Ellipsoids(encoder, 100.0), support.Box(encoder, True)
    for method in (sets, box):
        r = 1.4 * method.starts
        radius = method.radius(r, 3.0)
        assert radius > 0
        found = vf.certify.empirical_margin(
            vae, x, r, r_max=4 * radius, low=-9.0, high=9.0, grid=8, **QUICK
        )
        assert bool((found.margin > radius).all())


def half_space(x, _):
    """f(x) = relu(wᵀx)·e: within r of 0 is a half-space of inputs; ‖w‖ = 2."""
    w = torch.tensor([2.0, 0.0, 0.0]).double()
    return (x @ w).clamp(min=0.0)[:, None] * torch.tensor([[0.6, 0.8]]).double()


def test_smoothing_is_exact_where_the_event_is_a_half_space():
    """σΦ⁻¹(p) = r/‖w‖, of which center smoothing keeps a third, less 0.1 σ."""
    x, sigma, r = torch.zeros(1, 3).double(), 0.4, 0.9
    apart = smoothing.smoothed_distances(
        half_space, x, torch.zeros(1, 2).double(), sigma, 200_000, generator()
    )[:, 0]
    plain = smoothing.ball(sigma, int((apart <= r).sum()), len(apart), ALPHA, 0.5)
    assert 0.97 * r / 2 < plain < r / 2
    center = smoothing.CenterSmoothing(half_space, sigma, ALPHA)
    centre = center.centre(x, generator(3))
    assert float(centre.norm()) == 0.0
    truth = r / 6 - sigma * float(stats.norm.ppf(0.5 + smoothing.SURPLUS))
    found = center.radius(apart, r)
    assert 0.9 * truth < found < truth
    at = torch.tensor([[found, 0.0, 0.0]]).double()  # where the ball's mass is least
    mass = float(stats.norm.cdf((r / 3 - 2 * found) / (2 * sigma)))
    assert mass > 0.5 + smoothing.SURPLUS
    moved = center.centre(at, generator(4))
    assert float((moved - centre).norm()) <= r


@pytest.mark.parametrize("posterior", [False, True])
def test_smoothed_statements_hold_at_attacked_points(posterior):
    """The ball's mass by fresh draws, and the distance of the smoothed centres."""
    vae, x = mlp("tanh", True)
    draw = smoothing.reconstructions(vae, posterior=posterior)
    center = smoothing.CenterSmoothing(draw, 0.3, ALPHA)
    centre = center.centre(x, generator())
    apart = smoothing.smoothed_distances(draw, x, centre, 0.3, 10_000, generator(1))[:, 0]
    r = 3.0 * float(apart.quantile(0.95))
    radius = center.radius(apart, r)
    assert radius > 0.2
    slope = vf.attacks.geometric(vae, x, eps=radius, low=-9.0, high=9.0).x_adv
    for at in (slope, 2 * x - slope, *around(x, radius, 3).split(1)):
        mass = smoothing.smoothed_distances(draw, at, centre, 0.3, 4_000, generator(2))[:, 0]
        assert float((mass <= r / 3).double().mean()) > 0.5 + smoothing.SURPLUS - 0.03
        assert float((center.centre(at, generator(3)) - centre).norm()) <= r


def test_a_procedure_that_cannot_be_sure_abstains(monkeypatch):
    monkeypatch.setattr(smoothing, "CENTRING", 500)
    center = smoothing.CenterSmoothing(half_space, 0.4, ALPHA)
    assert center.centre(torch.zeros(1, 3).double(), generator()) is None


def test_every_method_is_measured_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(outside_methods, "SIGMAS", (0.3,))
    monkeypatch.setattr(outside_methods, "TIMES", (2.0,))
    vae = vf.models.MLPVAE((1, 8, 8), (12,), 3, fixed_std=0.5).eval()
    sizes = outside_methods.Sizes(2, 1_000, 1, 400, 1, 200)
    x = vf.data.load("digits").x_test[:20]
    rows = list(certificates_outside.measured("small", vae, x, sizes))
    at_r = [row for row in rows if row.times == 1.0]
    names = ["local", "anchors", *outside_methods.SMOOTHED, *outside_methods.SETS]
    assert [row.method for row in at_r] == names
    assert len(rows) == 2 * len(at_r)
    for row in at_r:
        assert row.inputs == 2
        assert (row.none == 0) == (row.margin > 0)
        if row.alpha == 0.0 or row.method in ("local", "anchors"):  # the event of the attack
            assert not row.of_attack > 1.0
    append(tmp_path / "rows.csv", rows)
    page = certificates_outside.table(tmp_path / "rows.csv")
    assert page.count("| small |") == 2 * len(names)
