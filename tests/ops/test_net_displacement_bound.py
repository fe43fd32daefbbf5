"""net_displacement_bound: exact where a network is affine, never below what can happen."""

from fractions import Fraction
from functools import partial
from itertools import pairwise

import pytest
import torch
from displacement_points import NETS, assert_above, assert_exact, cases, draw, inside, made

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import network
from vaefast.functional import network as passes
from vaefast.functional.displacement import FORMS, Displacement
from vaefast.functional.displacement_layers import LayerMap
from vaefast.functional.multipliers import trace_bound
from vaefast.functional.remainder import remainder
from vaefast.types import Network, parse_layer

FORM = pytest.mark.parametrize("form", FORMS)
RADII = (1e-6, 0.05, 0.4, 3.0)
every = pytest.mark.parametrize("name", NETS)


@every
@pytest.mark.parametrize("radius", [0.05, 3.0])
def test_no_displacement_exceeds_the_bound(name, radius):
    for net, x, scale in cases(name):
        assert_above(net, x, scale, torch.full((3,), radius).double(), 300)


@pytest.mark.proof
@every
@pytest.mark.parametrize("radius", RADII)
def test_ten_thousand_points_a_ball(name, radius):
    for net, x, scale in cases(name):
        assert_above(net, x, scale, torch.full((3,), radius).double(), 10_000, steps=60)


@FORM
@pytest.mark.parametrize("widths", [(9, 4), (9, 7, 5, 4), (3, 8, 4)])
def test_exact_on_affine_networks(widths, form):
    net = network(widths, ",".join(["identity"] * (len(widths) - 1)))
    assert_exact(net, draw(0, 5, widths[0]), torch.linspace(0.01, 9, 5).double(), form)


@FORM
def test_exact_where_no_relu_switches(form):
    net = made("relu")
    x = draw(0, 200, 12)
    tape = passes.forward(x, net)
    margin = torch.stack([a.abs().amin(1) for a in tape.pre[:2]]).amin(0)
    x = x[margin.argsort(descending=True)[:5]]
    assert_exact(net, x, torch.full((5,), 1e-3).double(), form)


@every
def test_the_bound_tends_to_the_jacobian_s(name):
    """As the radius shrinks, away from kinks."""
    net, x = made(name), draw(7, 4, NETS[name][0][0])
    radius = torch.full((4,), 1e-6).double()
    J = torch.func.vmap(torch.func.jacrev(lambda t: passes.evaluate(t[None], net)[0]))(x)
    exact = radius * torch.linalg.matrix_norm(J, 2)
    for form in FORMS:
        bound = ops.net_displacement_bound(x, radius, net, form=form)[:, 0]
        torch.testing.assert_close(bound, exact, rtol=1e-3, atol=0)


def exact_displacement(net, x, there):
    """‖net(there) − net(x)‖² of a relu network in rational numbers."""

    def run(h):
        for W, b, text in zip(net.weights, net.biases, net.layers):
            h = [sum(Fraction(w) * v for w, v in zip(row, h)) for row in W.tolist()]
            h = h if b is None else [v + Fraction(c) for v, c in zip(h, b.tolist())]
            h = [max(v, Fraction(0)) for v in h] if "relu" in text else h
        return h

    pair = run(list(map(Fraction, there))), run(list(map(Fraction, x)))
    return sum((p - q) ** 2 for p, q in zip(*pair))


@FORM
def test_rounded_up_where_everything_cancels(form):
    """Outputs of round-off only, in rational numbers: 3·fl(v/3) − v, and 0.1 + 0.2 − 0.3."""
    v = draw(0, 1, 6)
    first = torch.cat((v, v / 3, 0.1 * v, 0.2 * v, 0.3 * v))
    second = torch.tensor([[-1.0, 3.0, 0, 0, 0], [0, 0, 1.0, 1.0, -1.0]]).double()
    for bias in (50.0, 1e-9):
        bias = torch.full((5,), bias).double()
        net = Network.mlp([first, second], [bias, None], "relu,identity")
        x = 0.01 * draw(1, 8, 6)
        for radius in (1e-12, 1e-3, 0.5):
            bound = ops.net_displacement_bound(x, radius, net, form=form)[:, 0]
            for row, there, most in zip(x, inside(x, torch.full((8,), radius).double(), 12), bound):
                for point in there:
                    moved = exact_displacement(net, row.tolist(), point.tolist())
                    assert moved <= Fraction(most.item()) ** 2
            assert (bound < 1e-9).all() or bias[0] < 1  # and by little where none switches


@FORM
def test_products_of_round_off(form):
    """Without biases at 0, where nothing but the products is rounded, and they cancel."""
    for seed in range(12):
        first = draw(seed, 8, 5)
        second = torch.linalg.svd(first.mT).Vh[-1:]  # a null vector
        net = Network.mlp([first, second], [None] * 2, "identity,identity")
        x, exact = torch.zeros(1, 5).double(), exact_displacement
        row = [exact(net, [0] * 5, unit) for unit in torch.eye(5).tolist()]
        bound = ops.net_displacement_bound(x, 1.0, net, form=form).item()
        assert 0 < sum(row) <= Fraction(bound) ** 2


@FORM
def test_units_whose_sign_is_lost_in_rounding(form):
    """In exact arithmetic they are on, by less than rounding; as computed they are off."""
    x, lost = draw(1, 1, 8), 0
    x[0, 7] = 0.0  # where points as near as that have numbers
    for row in draw(0, 400, 8):
        bias = torch.nextafter(-(x @ row), torch.tensor(-torch.inf).double())
        net = Network.mlp([row[None], torch.eye(1).double()], [bias, None], "relu,identity")
        computed = passes.forward(x, net).pre[0].item()
        product = sum(Fraction(a) * Fraction(b) for a, b in zip(row.tolist(), x[0].tolist()))
        if computed < 0 < product + Fraction(bias.item()):
            point, radius = x.clone(), -0.1 * computed
            point[0, 7] = radius * row[7].sign()
            bound = ops.net_displacement_bound(x, radius, net, form=form).item()
            moved = exact_displacement(net, x[0].tolist(), point[0].tolist())
            assert 0 < moved <= Fraction(bound) ** 2
            lost += 1
    assert lost


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("n", [1, 7, 300])
def test_bounds_of_eigenvalues_are_rounded_up(n, precision):
    """Whatever float32 products are rounded to; flat, decaying, rank-one, zero, tiny spectra."""
    basis = torch.linalg.qr(draw(n, n, n)).Q
    ramp = torch.arange(n).double()
    spectra = torch.stack(
        (ramp * 0 + 1, 0.9**ramp, (ramp == 0).double(), ramp * 0, 1e-60 / (1 + ramp))
    )
    Q = (basis * spectra.unsqueeze(1)) @ basis.mT
    root = 1.0 + draw(3, 5, n).abs()
    exact = torch.linalg.eigvalsh(root.unsqueeze(2) * Q * root.unsqueeze(1))[:, -1]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        bound = trace_bound(Q, root)
    finally:
        torch.set_float32_matmul_precision(before)
    assert (bound >= exact * (1 - 1e-13)).all()
    assert (bound[1:] <= exact[1:].clamp(min=0) * 1.2).all()


def test_magnitudes_through_pairs():
    layer_map = LayerMap(parse_layer("linear maxmin", (6, 6)), torch.eye(6))
    a, u = draw(0, 500, 6), draw(1, 500, 6)
    sort = lambda t: t.unflatten(1, (-1, 2)).sort(2, descending=True).values.flatten(1)  # noqa: E731
    moved = (sort(a + u) - sort(a)).abs()
    assert (moved <= layer_map.steepened(u.abs(), None) + 1e-14).all()


def test_the_remainder_is_the_sum_of_all_magnitudes():
    """√(εᵀ|NᵀN|ε) per group, columns without error left out."""
    parts = [draw(i, 3, 6, units) for i, units in enumerate((5, 9, 4))]
    parts[1][:, :, ::2] = 0.0
    parts[2][1] = 0.0
    whole = torch.cat(parts, 2).unflatten(1, (2, 3))
    expected = (whole.mT @ whole).abs().sum((2, 3)).sqrt()
    torch.testing.assert_close(remainder(parts, 2), expected)


@FORM
@pytest.mark.parametrize("B", [1, 4, 8, 10, 12, 40])
def test_a_row_depends_on_itself_alone(B, form):
    """Also where the batch is as large as a layer is wide."""
    net, x = made("leaky relu and elu"), draw(3, 40, 12)[:B]
    scale, radius = 0.5 + draw(4, 40, 4).abs()[:B], torch.linspace(0, 2, 40).double()[:B]
    bound = partial(ops.net_displacement_bound, form=form, groups=2)
    whole = bound(x, radius, net, scale=scale)
    for row in range(0, B, 7):
        one = slice(row, row + 1)
        alone = bound(x[one], radius[one], net, scale=scale[one])
        torch.testing.assert_close(alone, whole[one], rtol=1e-12, atol=1e-15)
    some = torch.arange(B - 1, -1, -2)
    engine = Displacement(x, net, scale, 2)
    torch.testing.assert_close(
        engine.bound(radius[some], form, some), whole[some], rtol=1e-12, atol=1e-15
    )


@FORM
def test_monotone_in_the_radius_and_no_larger_than_the_parts(form):
    net, x = made("tanh"), draw(3, 5, 12)
    bounds = [ops.net_displacement_bound(x, r, net, form=form) for r in (0.0, 0.01, 0.1, 0.5)]
    assert (bounds[0] == 0).all()
    assert all((a <= b).all() for a, b in pairwise(bounds))
    if form == "smaller":
        for other in ("affine", "multiplier"):
            assert (bounds[3] <= ops.net_displacement_bound(x, 0.5, net, form=other)).all()


@FORM
def test_bad_rows_and_overflow(form):
    net, x = made("relu"), draw(3, 6, 12)
    scale, radius = torch.ones(6, 4).double(), torch.full((6,), 0.1).double()
    clean = ops.net_displacement_bound(x, radius, net, scale=scale, form=form)
    x[0, 3], radius[1], scale[2, 1], radius[3] = torch.inf, torch.nan, -torch.inf, -0.1
    radius[4] = 1e300
    found = ops.net_displacement_bound(x, radius, net, scale=scale, form=form)
    assert found[:4].isnan().all()
    assert (found[4] > 1e300).all()
    torch.testing.assert_close(found[5], clean[5], rtol=1e-12, atol=0)


def test_float32_means_the_float64_values_of_what_came():
    net, x = made("tanh"), draw(3, 3, 12).float()
    narrow = net._replace(
        weights=[w.float() for w in net.weights], biases=[b.float() for b in net.biases]
    )
    wide = net._replace(
        weights=[w.float().double() for w in net.weights],
        biases=[b.float().double() for b in net.biases],
    )
    found = ops.net_displacement_bound(x, 0.1, narrow, scale=torch.ones(3, 4).double())
    assert torch.equal(found, ops.net_displacement_bound(x.double(), 0.1, wide))
    assert found.dtype == torch.float64


def test_convolutions():
    net = network((72, 5), "mixed")
    x = draw(0, 2, net.in_features)
    assert_above(
        net, x, torch.ones(2, net.out_features).double(), torch.tensor([0.01, 0.5]).double(), 60
    )


@FORM
def test_no_rows(form):
    found = ops.net_displacement_bound(draw(0, 0, 12), 0.1, made("relu"), groups=2, form=form)
    assert found.shape == (0, 2)


def test_one_row_at_a_time(one_row_at_a_time):
    net, x = made("pairs"), draw(3, 3, 12)
    found = ops.net_displacement_bound(x, 0.1, net)
    vf.set_memory(1 << 30)
    torch.testing.assert_close(found, ops.net_displacement_bound(x, 0.1, net), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"groups": 3}, ValueError, r"^groups must divide the 4 outputs of net, got 3$"),
        ({"radius": -1.0}, ValueError, r"^radius must be at least 0, got -1$"),
        (
            {"form": "S"},
            ValueError,
            r"^form must be one of 'affine', 'multiplier', 'smaller', 'joint', got 'S'",
        ),
        (
            {"scale": torch.ones(3, 4).half()},
            TypeError,
            r"^scale must be float64 like x or float64",
        ),
        (
            {"x": draw(0, 3, 8), "net": made("residual"), "backend": "cpp"},
            RuntimeError,
            r'^net_displacement_bound has no "cpp" kernel for the layer .linear \+-1 identity.; b',
        ),
    ],
)
def test_errors_say_what_came_and_what_to_do(changes, error, message):
    given = {"x": draw(0, 3, 12), "radius": 0.1, "net": made("relu"), **changes}
    with pytest.raises(error, match=message):
        ops.net_displacement_bound(**given)
