"""A pack stands for the weights it was made from, in the calls it was made for, or says so."""

import pytest
import torch
import torch.nn.functional as F

import vaefast as vf
from vaefast.bench.cases import network, posterior
from vaefast.ops import net_chain, net_forward, net_potential, net_trajectory
from vaefast.ops._pack import pack
from vaefast.types import Network

WIDTHS, ACTIVATIONS = (3, 40, 18, 10), "tanh,silu,identity"


@pytest.fixture(autouse=True)
def _cpp(require):
    require("net_forward", "cpp")


def decoder(dtype=torch.float32, widths=WIDTHS):
    return network(widths, ",".join(["tanh"] * (len(widths) - 2) + ["identity"]), dtype=dtype)


def energies(net):
    z, x, _ = posterior(2, 2, widths=WIDTHS, dtype=net.weights[0].dtype)
    like = {"likelihood": "bernoulli"}
    U, grad = net_potential(z, x, net, **like)
    end = net_trajectory(z, z, grad, x, net, **like, step=0.1, leapfrog=2)
    chain = net_chain(z, U, grad, x, net, **like, step=0.1, leapfrog=2, steps=2)
    return torch.cat([t.double().flatten() for t in (U, grad, *end, *chain)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_with_a_pack_are_not_read_again(dtype):
    net = decoder(dtype)
    ready = pack(net)
    unread = [torch.full_like(w, torch.nan) for w in net.weights]
    assert torch.equal(energies(Network(unread, *ready[1:])), energies(net))


def test_biases_and_activations_may_change_beside_a_pack():
    net, z = decoder(), torch.randn(4, 3)
    ready = pack(net)
    other = Network.mlp(net.weights, [b + 1 for b in net.biases], "relu,tanh,sigmoid")
    assert torch.equal(net_forward(z, other._replace(packed=ready.packed)), net_forward(z, other))


def test_what_a_pack_lacks_is_added_in_place():
    net = decoder()
    half = pack(net, backward=False)
    expected = energies(net)
    assert torch.equal(energies(half), expected)  # the call packs the rest itself
    whole = pack(half)
    assert whole.packed is half.packed
    for w in net.weights:
        w.fill_(torch.nan)
    assert torch.equal(energies(whole), expected)
    assert torch.equal(energies(pack(whole)), expected)  # nothing is read where nothing lacks


OTHERS = [
    (lambda: pack(decoder(torch.float64)), "got [^,]*, float64, 3-40-18-10"),
    (lambda: pack(decoder(widths=(3, 40, 10))), "got [^,]*, float32, 3-40-10"),
    (lambda: pack(decoder(widths=(3, 40, 18, 11))), "got [^,]*, float32, 3-40-18-11"),
    (lambda: of_another_level(pack(decoder())), "got another, float32, 3-40-18-10"),
    (lambda: decoder()._replace(packed=torch.zeros(40)), "got something else"),
    (lambda: decoder()._replace(packed=torch.zeros(4)), "got something else"),
    (lambda: cut(pack(decoder()), 64), "got something else"),
    (lambda: cut(pack(decoder()), -1), "got a part of it"),
]


def of_another_level(net):
    net.packed[8:24] = torch.tensor(list(b"another".ljust(16, b"\0")), dtype=torch.uint8)
    return net


def cut(net, size):
    return net._replace(packed=net.packed[:size].clone())


@pytest.mark.parametrize(("other", "message"), OTHERS)
def test_a_pack_for_something_else_is_refused(other, message):
    with pytest.raises(ValueError, match=f"must be a whole pack for .*{message}; pass packed=None"):
        net_forward(torch.zeros(2, 3), decoder()._replace(packed=other().packed))
    with pytest.raises(ValueError, match="must be a whole pack"):
        pack(decoder()._replace(packed=other().packed))


@pytest.mark.parametrize("change", [{"dtype": torch.float16}, {"device": "meta"}])
def test_no_pack_reads_past_a_layer_of_another_kind(change):
    net = decoder()
    mixed = Network([net.weights[0], *(w.to(**change) for w in net.weights[1:])], *net[1:3])
    assert pack(mixed).packed is None
    with pytest.raises((TypeError, ValueError), match=r"net.weights\[1\]"):
        net_forward(torch.zeros(2, 3), pack(mixed))


@pytest.mark.parametrize(("at", "byte"), [(39, 0x1F), (32, 0), (39, 0xFF), (8, 0xFF), (23, 1)])
def test_a_spoilt_header_is_refused(at, byte):
    ready = pack(decoder()).packed.clone()
    ready[at] = byte
    if at == 23:
        ready[8:23] = ord("x")  # a name without an end
    with pytest.raises(ValueError, match=r"must be a whole pack for .*, got"):
        net_forward(torch.zeros(2, 3), decoder()._replace(packed=ready))


def test_a_pack_may_lie_anywhere():
    net, z = pack(decoder()), torch.randn(4, 3)
    expected = net_forward(z, net)
    for shift in (1, 4, 32):
        room = torch.empty(len(net.packed) + shift, dtype=torch.uint8)
        room[shift:] = net.packed
        assert torch.equal(net_forward(z, net._replace(packed=room[shift:])), expected)
    apart = torch.stack([net.packed, net.packed], dim=1)[:, 0]
    assert torch.equal(net_forward(z, net._replace(packed=apart)), expected)


def negated(w):
    """A view whose minus sign is only a flag."""
    return torch.complex(torch.zeros_like(w), -w).conj().imag


LAYOUTS = [lambda w: w.t().contiguous().t(), lambda w: w.repeat(1, 3)[:, ::3], negated]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packs_of_views(layout):
    views = decoder()._replace(weights=[layout(w) for w in decoder().weights])
    assert torch.equal(energies(pack(views)), energies(views))


def test_where_no_pack_is_taken():
    net = decoder()
    assert pack(net, backend="reference").packed is None
    with vf.use_backend("reference"):
        assert pack(net).packed is None
    assert pack(decoder(torch.float16)).packed is None
    meta = net._replace(weights=[w.to("meta") for w in net.weights], biases=[None] * 3)
    assert pack(meta).packed is None


def test_derivatives_pass_by_the_pack():
    net = decoder(torch.float64)
    tensors = [torch.randn(4, 3, dtype=torch.float64), *net.weights, *net.biases]
    expected_of = [t.requires_grad_() for t in tensors]
    with torch.inference_mode():
        ready = pack(net)
    for leaves in (expected_of[:1], expected_of):
        found = torch.autograd.grad(net_forward(tensors[0], ready).sin().sum(), leaves)
        h = tensors[0]
        for w, b, act in zip(net.weights, net.biases, (torch.tanh, torch.tanh, lambda a: a)):
            h = act(F.linear(h, w, b))
        torch.testing.assert_close(found, torch.autograd.grad(h.sin().sum(), leaves))


@pytest.mark.parametrize("grad", [False, True])
def test_opcheck_with_a_pack(grad):
    z, net = torch.randn(4, 3, dtype=torch.float64).requires_grad_(grad), decoder(torch.float64)
    arguments = (z, *pack(net), grad, "ieee", 0, "cpp")
    torch.library.opcheck(torch.ops.vaefast.net_forward.default, arguments)


def test_compiles_with_a_pack():
    torch._dynamo.reset()
    net, z = pack(decoder()), torch.randn(4, 3)
    compiled = torch.compile(net_forward, fullgraph=True, backend="aot_eager", dynamic=False)
    assert torch.equal(compiled(z, net), net_forward(z, net))
    replaced = torch.compile(
        lambda z: net_forward(z, net._replace(biases=net.biases)), fullgraph=True, backend="eager"
    )
    assert torch.equal(replaced(z), net_forward(z, net))


def test_kernels_of_any_backend_take_its_packs(backend, require):
    require("net_chain", backend)
    net = decoder()
    with vf.use_backend(backend):
        ready = pack(net, backend=backend)
        assert (ready.packed is None) == (backend == "reference")
        assert torch.equal(energies(ready), energies(net))


def test_triton_refuses_another_network_s_pack(backend, require):
    if backend != "triton":
        pytest.skip("the C++ kernels' refusals are tested above")
    require("net_forward", "triton")
    wide = pack(decoder(widths=(3, 200, 10)), backend=backend)
    with pytest.raises(ValueError, match="another network or backend; pack it again"):
        net_forward(torch.randn(2, 3), decoder()._replace(packed=wide.packed), backend=backend)
