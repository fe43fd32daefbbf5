"""The slopes that net_forward keeps for net_vjp: no bit differs from passing forward again."""

import math

import pytest
import torch
from samples import SHAPES, same
from stacks import stack

import vaefast as vf
from vaefast.bench.cases import ACTIVATIONS, network, posterior
from vaefast.models.packs import Packs
from vaefast.models.products import NetworkMap
from vaefast.ops import net_forward, net_vjp
from vaefast.ops._cpp import tape_width
from vaefast.ops._pack import pack
from vaefast.ops._register import registered
from vaefast.ops.net_forward import with_tape
from vaefast.ops.net_vjp import pulled

pytestmark = pytest.mark.usefixtures("cpp_and_threads")
DTYPES = {"argvalues": [torch.float32, torch.float64], "ids": ["float32", "float64"]}
SLICES = [slice(0, 1), slice(1, 3), slice(3, 20), slice(20, 41)]


@pytest.fixture
def nan_in_new_tensors():
    """What a tape holds before it is written, and where nothing is."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def tapes(monkeypatch):
    """Shapes of the tapes that net_vjp was given, None for none."""
    seen, implementations = [], registered["net_vjp"].implementations
    run = implementations["cpp"]

    def spy(call):
        seen.append(None if call.tape is None else tuple(call.tape.shape))
        return run(call)

    monkeypatch.setitem(implementations, "cpp", spy)
    return seen


def draw(rows, width, dtype):
    generator = torch.Generator().manual_seed(rows + width)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype)


def again(x, u, net):
    """Jᵀu with a pass forward of its own."""
    return net_vjp(x, u[:, None], net, full=True)[2][:, 0]


def assert_same_bits(net, rows=41):
    dtype = net.weights[0].dtype
    x, u = draw(rows, net.in_features, dtype), draw(rows, net.out_features, dtype)
    torch.set_num_threads(2)
    expected = again(x, u, net)
    assert expected.isfinite().all()
    for threads in (2, 1, 3):
        torch.set_num_threads(threads)
        out, tape = with_tape(x, net)
        assert same(out, net_forward(x, net))
        assert same(pulled(x, u, net, tape), expected), (threads, net.layers)
        for cut in SLICES:
            own = with_tape(x[cut], net)[1]
            assert tape is None or same(own, tape[cut]), (cut, net.layers)
            assert same(pulled(x[cut], u[cut], net, own), expected[cut]), (cut, net.layers)


@pytest.mark.usefixtures("nan_in_new_tensors")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", **DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_gradients_have_the_bits_of_two_passes(name, dtype, packed):
    s = SHAPES[name]
    net = posterior(s.B, s.C, widths=s.widths, activations=s.activations, dtype=dtype).net
    assert_same_bits(pack(net, backward=True) if packed else net)


@pytest.mark.usefixtures("nan_in_new_tensors")
@pytest.mark.parametrize("dtype", **DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name, dtype):
    assert_same_bits(network((40, 34, 70, 12), f"{name},{name},{name}", dtype=dtype))


@pytest.mark.usefixtures("nan_in_new_tensors")
@pytest.mark.parametrize("dtype", **DTYPES)
def test_any_stack_of_layers(dtype):
    for seed in range(16):
        assert_same_bits(stack(seed, dtype), rows=23)


@pytest.mark.parametrize("dtype", **DTYPES)
def test_a_tape_holds_slopes_and_nothing_for_the_identity(dtype):
    net = network((5, 40, 30, 7), "tanh,identity,sigmoid", dtype=dtype)
    x = draw(3, 5, dtype)
    _, tape = with_tape(x, net)
    assert tape.shape == (3, tape_width(net))
    slope = 1 - (x @ net.weights[0].T + net.biases[0]).tanh().square()
    torch.testing.assert_close(tape[:, :40], slope)
    _, bytes_of = with_tape(x, net._replace(layers=["linear relu", *net.layers[1:]]))
    assert bytes_of.shape[1] < tape.shape[1]
    active = x @ net.weights[0].T + net.biases[0] > 0
    assert torch.equal(bytes_of.view(torch.int8)[:, :40] != 0, active)
    _, none = with_tape(x, net._replace(layers=["linear identity"] * 3))
    assert none is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["odd widths", "convolutions"])
def test_bad_rows_are_nan_and_the_others_are_untouched(name, bad):
    s = SHAPES[name]
    z, _, net = posterior(9, 1, widths=s.widths, activations=s.activations, dtype=torch.float32)
    u = draw(9, net.out_features, torch.float32)
    clean = again(z, u, net)
    z[2, 0], u[5, 1] = bad, bad
    out, tape = with_tape(z, net)
    found = pulled(z, u, net, tape)
    assert out[2].isnan().all()
    assert found[[2, 5]].isnan().all()
    good = [n for n in range(9) if n not in (2, 5)]
    assert same(found[good], clean[good])


def leaf(net, rows=4):
    return draw(rows, net.in_features, net.weights[0].dtype).requires_grad_()


@pytest.mark.parametrize("name", ["odd widths", "convolutions"])
def test_autograd_passes_forward_once(name, tapes):
    s = SHAPES[name]
    net = posterior(2, 2, widths=s.widths, activations=s.activations, dtype=torch.float64).net
    z = leaf(net)
    out = net_forward(z, net)
    found = [torch.autograd.grad(out.sin().sum(), z, retain_graph=True)[0] for _ in range(2)]
    assert tapes == [(4, tape_width(net))] * 2
    expected = torch.autograd.grad(net_forward(z, net, backend="reference").sin().sum(), z)
    torch.testing.assert_close(found, [*expected] * 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("what", ["nothing", "no_grad", "weights"])
def test_no_tape_where_no_derivative_takes_one(what, monkeypatch):
    kept, implementations = [], registered["net_forward"].implementations
    run = implementations["cpp"]
    monkeypatch.setitem(implementations, "cpp", lambda call: kept.append(call.keep) or run(call))
    net = network((3, 8, 6), "tanh,identity")
    z = leaf(net)
    if what == "weights":
        net.weights[0].requires_grad_()
        torch.autograd.grad(net_forward(z, net).sum(), [z, net.weights[0]])
    elif what == "no_grad":
        with torch.no_grad():
            net_forward(z, net)
    else:
        net_forward(z.detach(), net)
    assert kept == [False]


def test_the_reference_keeps_none(tapes):
    net = network((3, 8, 6), "tanh,identity")
    z, u = leaf(net).detach(), draw(4, 6, torch.float64)
    with vf.use_backend("reference"):
        out, tape = with_tape(z, net)
    assert tape is None
    torch.testing.assert_close(out, net_forward(z, net))
    _, tape = with_tape(z, net)
    with vf.use_backend("reference"):  # another backend than its own passes forward again
        found = pulled(z, u, net, tape)
    assert not tapes
    torch.testing.assert_close(found, again(z, u, net))


def flat(op, *arguments):
    return getattr(torch.ops.vaefast, op).default, arguments


@pytest.mark.parametrize("name", ["odd widths", "convolutions"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(name, requires_grad):
    s = SHAPES[name]
    net = posterior(2, 2, widths=s.widths, activations=s.activations, dtype=torch.float64).net
    z, how = leaf(net).requires_grad_(requires_grad), ("ieee", 0, "cpp")
    torch.library.opcheck(*flat("net_forward", z, *net, True, *how))
    _, tape = with_tape(z.detach(), net)
    u = draw(4, net.out_features, torch.float64).unsqueeze(1)
    torch.library.opcheck(*flat("net_vjp", z.detach(), u, *net, True, tape, *how))


@pytest.mark.parametrize("name", ["odd widths", "convolutions"])
def test_a_compiled_gradient_passes_forward_once(name, tapes):
    torch._dynamo.reset()
    s = SHAPES[name]
    net = posterior(2, 2, widths=s.widths, activations=s.activations, dtype=torch.float64).net
    z = leaf(net)
    compiled = torch.compile(
        lambda z: net_forward(z, net).sin().sum(), fullgraph=True, backend="aot_eager"
    )
    (found,) = torch.autograd.grad(compiled(z), z)
    assert tapes == [(4, tape_width(net))]
    assert torch.equal(found, torch.autograd.grad(net_forward(z, net).sin().sum(), z)[0])


def test_a_tape_of_something_else_is_refused():
    net = network((3, 8, 6), "tanh,identity")
    x, u = leaf(net).detach(), draw(4, 6, torch.float64)
    op, how = torch.ops.vaefast.net_vjp.default, ("ieee", 0, "cpp")
    _, tape = with_tape(x, net)
    refused = r"tape must be \[4, \d+\] of net_forward at x, .* pass tape=None"
    for cotangents, full, own in (
        (u[:, None], True, tape[:3]),
        (u[:, None], True, tape[:, 1:]),
        (u[:, None], False, tape),
        (u, True, tape),
    ):
        with pytest.raises(ValueError, match=refused):
            op(x, cotangents, *net, full, own, *how)


def test_the_memory_budget_counts_a_tape():
    net = posterior(2, 1, widths=(9, 784), activations="published", dtype=torch.float32).net
    narrow = NetworkMap(net, "", Packs()).bytes_per_row(4)
    with vf.use_backend("reference"):
        assert NetworkMap(net, "", Packs()).bytes_per_row(4) == narrow - 4 * tape_width(net)
