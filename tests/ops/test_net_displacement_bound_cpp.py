"""The C++ affine form: the reference's numbers, sound by itself, a row the same wherever it is."""

import pytest
import torch
from displacement_points import NETS, cases, displaced, draw, inside, made

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import network
from vaefast.functional import network as passes
from vaefast.ops.net_displacement_bound import displacement
from vaefast.runtime import backends
from vaefast.types import Network

OP = "net_displacement_bound"
TAKEN = [name for name in NETS if "residual" not in name and "pairs" not in name]
RADII = (1e-6, 0.05, 0.4, 3.0)
WIDE = {  # more units than pass a layer together, more rows than a block, odd widths
    "wide in": ((300, 70, 130, 6), "relu,silu,identity"),
    "narrow in": ((9, 61, 53, 50, 10), "tanh,elu:0.5,gelu,identity"),
    "deep sums": ((40, 290, 33, 4), "softplus,relu,sigmoid"),
    "one layer": ((33, 60), "mish"),
    "as wide as the input": ((40, 40, 24, 6), "tanh,relu,identity"),  # W₁ is no triangle
    "nothing moves up": ((20, 17, 2), "identity,identity"),
}


@pytest.fixture(autouse=True)
def _needs_cpp(require):
    require(OP, "cpp")


def both(x, radius, net, **options):
    """The reference's bound and ours."""
    return [
        ops.net_displacement_bound(x, radius, net, **options, backend=name)
        for name in ("reference", "cpp")
    ]


def assert_as_tight(net, x, radius, **options):
    """No more above than elementary functions' errors explain, no more below than round-off."""
    expected, found = both(x, radius, net, **options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert (found >= expected * (1 - 1e-12)).all()


@pytest.mark.parametrize("name", TAKEN)
def test_the_reference_s_bounds(name):
    for net, x, scale in cases(name):
        options = {"scale": scale, "groups": 2 - net.out_features % 2}
        for radius in RADII:
            assert_as_tight(net, x, radius, form="affine", **options)
    for form in ("multiplier", "smaller"):
        assert_as_tight(net, x, 0.4, form=form, **options)


@pytest.mark.parametrize("B", [1, 12, 29])
@pytest.mark.parametrize("name", WIDE)
def test_wide_deep_and_many_rows(name, B):
    widths, activations = WIDE[name]
    net, x = network(widths, activations), draw(1, B, widths[0])
    scale, radius = 0.2 + draw(2, B, widths[-1]).abs(), torch.linspace(0.001, 0.7, B).double()
    assert_as_tight(net, x, radius, scale=scale, groups=2, form="affine")
    assert_as_tight(net, x, radius, form="affine")


@pytest.mark.parametrize("name", TAKEN)
def test_units_and_outputs_stay_within_the_kernels_ranges(name):
    for net, x, scale in cases(name):
        radius = torch.tensor([0.02, 0.3, 2.0]).double()
        engine = displacement(x, net, scale, backend="cpp")
        points = inside(x, radius, 200)
        most = displaced(x, net, scale)(points).norm(dim=2).amax(1)
        assert (most <= engine.bound(radius, "affine")[:, 0]).all()
        known = engine._of_kernel(radius, "smaller", None)
        tape = passes.forward(points.flatten(0, 1), net)
        nonlinear = [(i, m) for i, m in enumerate(engine.walk.maps) if m.curve is not None]
        for (index, layer_map), (low, high) in zip(nonlinear, known.ends, strict=True):
            start = engine.walk.anchors(index, slice(None)).unsqueeze(1)
            there = layer_map.units(tape.pre[index]).unflatten(0, points.shape[:2])
            u, room = there - start, 1e-13 * (1 + there.abs() + start.abs())
            assert (u <= high.unsqueeze(1) + room).all()
            assert (u >= low.unsqueeze(1) - room).all()


def test_the_pass_at_the_centres():
    net, x = made("gelu_tanh, mish, selu"), draw(3, 15, 12)
    tape, expected = displacement(x, net, backend="cpp").walk.tape, passes.forward(x, net)
    for found, plain in zip((*tape.pre, *tape.post), (*expected.pre, *expected.post)):
        torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_row_of_an_engine_has_the_same_bits_wherever_it_stands(threads, cpp_and_threads):
    torch.set_num_threads(threads)
    widths, activations = WIDE["wide in"]
    net, x = network(widths, activations), draw(3, 29, widths[0])
    scale, radius = 0.5 + draw(4, 29, 6).abs(), torch.linspace(0.01, 2, 29).double()
    whole = displacement(x, net, scale, 2).bound(radius, "affine")
    some = torch.tensor([28, 3, 14, 3])
    engine = displacement(x, net, scale, 2)
    assert torch.equal(engine.bound(radius[some], "affine", some), whole[some])
    for row in (0, 11, 28):
        one = slice(row, row + 1)
        alone = displacement(x[one], net, scale[one], 2).bound(radius[one], "affine")
        assert torch.equal(alone, whole[one])


def test_a_row_that_overflows_is_infinite_in_every_form_and_alone():
    net, x = made("exp_half"), draw(3, 3, 12)
    radius = torch.tensor([0.1, 1e5, 0.2]).double()
    for form in ("affine", "multiplier", "smaller"):
        expected, found = both(x, radius, net, form=form)
        assert found[1].isinf().all()
        torch.testing.assert_close(found[::2], expected[::2], rtol=1e-9, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_weights_that_are_not_finite_bound_nothing(layer, bad):
    net, x = made("relu"), draw(3, 3, 12)
    net.weights[layer][0, 0] = bad
    found = ops.net_displacement_bound(x, 0.1, net, form="affine", backend="cpp")
    assert not found.isfinite().any()


def test_what_the_kernels_do_not_take():
    net = made("residual")
    support = vf.supports(OP, "cpp", layers=net.layers)
    assert not support
    assert "'linear +-1 identity'" in support.reason
    assert backends.resolve(OP, None, draw(0, 1, 8), net.layers) == "reference"
    assert backends.resolve(OP, None, draw(0, 1, 8), made("relu").layers) == "cpp"
    ops.net_displacement_bound(draw(0, 1, 8), 0.1, net)


def test_strided_inputs_and_weights():
    net = made("tanh")
    turned = Network.mlp(
        [w.mT.contiguous().mT for w in net.weights], net.biases, ",".join(net.activations)
    )
    x, scale = draw(3, 10, 24)[::2, ::2], draw(4, 5, 8).abs()[:, ::2]
    expected, found = (
        ops.net_displacement_bound(
            x.contiguous(), 0.2, net, scale=scale.contiguous(), form="affine", backend="cpp"
        ),
        ops.net_displacement_bound(x, 0.2, turned, scale=scale, form="affine", backend="cpp"),
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
