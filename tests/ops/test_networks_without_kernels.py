"""Convolutions and residual sums where no kernel takes them: the reference, said once."""

import logging

import pytest
import torch
from samples import SAMPLES, Shape

import vaefast as vf
from vaefast import ops
from vaefast.functional import network
from vaefast.runtime import backends
from vaefast.types import Network

SHAPE = Shape(3, 2, (6, 5, 8), "tanh,identity")
IN_TRITON = {op for op, kernels in backends._implemented.items() if "triton" in kernels}
WITH_NETWORK = [s for s in SAMPLES if "net" in s.make(torch.float64, SHAPE) and s.op in IN_TRITON]
OPS = sorted({sample.op for sample in WITH_NETWORK})


def convolution(before, after):
    """A residual block of a 1-D convolution, then a linear layer."""
    weights = SHAPE.draw(torch.float64, 1, 1, 3), SHAPE.draw(torch.float64, after, before)
    layers = [f"conv in=1x{before} padding=1 +-1 tanh", "linear identity"]
    return Network([*weights], [weights[1].new_ones(1), None], layers)


def residual(before, after):
    """Linear layers only, with a sum."""
    weights = SHAPE.draw(torch.float64, before, before), SHAPE.draw(torch.float64, after, before)
    return Network([*weights], [None, None], ["linear +-1 tanh", "linear identity"])


@pytest.fixture(params=[convolution, residual])
def make(request):
    return request.param


@pytest.fixture
def net(make):
    return make(6, 8)


@pytest.fixture(params=WITH_NETWORK, ids=lambda s: f"{s.op} {s.label}".strip())
def call(request, make):
    """A sample with such a network, as a function of the backend."""
    arguments = request.param.make(torch.float64, SHAPE)
    mlp = arguments["net"]
    arguments["net"] = make(mlp.in_features, mlp.out_features)
    return lambda backend: request.param.call(arguments, backend)


@pytest.fixture
def log(caplog):
    backends._said.clear()
    with caplog.at_level(logging.INFO, logger="vaefast"):
        yield caplog
    backends._said.clear()


@pytest.fixture
def on_triton(monkeypatch):
    """As on a machine whose fast backend is triton, whose kernels take linear layers."""
    monkeypatch.setattr(backends, "availability", lambda *_: "")
    monkeypatch.setattr(backends, "fast", lambda _: "triton")


def test_the_predicates_say_so_before_a_call(net, on_triton):
    reason = (
        f'backend "triton" has no kernel for the layer {net.layers[0]!r} yet; public functions '
        "run the module, on CUDA in captured graphs"
    )
    for op in OPS:
        assert vf.supports(op, "triton", layers=net.layers) == (False, reason)
        assert vf.supports(op, "reference", layers=net.layers)
        assert vf.supports(op, "cpp", layers=net.layers)
    assert backends.fused(net, net.weights[1], "triton") == (False, reason)
    assert not backends.fused(net, net.weights[1])
    assert backends.fused(net, net.weights[1], "reference")


def test_without_a_name_the_reference_runs_and_says_why_once(call, log, on_triton):
    expected = call("reference")
    assert not log.messages
    for _ in range(2):
        torch.testing.assert_close(call(None), expected, rtol=0, atol=0)
    (message,) = log.messages
    assert "runs on the reference: " in message
    assert "has no kernel for the layer" in message


def test_a_fast_backend_by_name_is_refused(call, on_triton):
    with pytest.raises(RuntimeError, match=r'^backend "triton" has no kernel for the layer .*$'):
        call("triton")


def test_an_op_without_a_kernel_says_so_of_any_network(net, on_triton):
    reason = 'net_trajectory_vjp has no "triton" backend yet; its reference runs, on the way back '
    ok, said = vf.supports("net_trajectory_vjp", "triton", layers=net.layers)
    assert not ok
    assert said.startswith(reason)


def test_pairs_of_features_beside_pixels_are_the_reference_s():
    net = convolution(6, 8).with_epilogue("maxmin")
    reason = f'backend "cpp" has no kernel for {net.layers[-1]!r} beside layers with pixels'
    assert vf.supports("net_forward", "cpp", layers=net.layers) == (False, reason)


@pytest.mark.parametrize("leaf", ["z", "weights"])
@pytest.mark.parametrize("op", ["net_forward", "net_potential"])
def test_derivatives_of_the_reference_of_any_order(op, leaf, net):
    z, x = SHAPE.draw(torch.float64, 3, 6), SHAPE.draw(torch.float64, 3, 8).sigmoid()

    def energy(tensor, backend):
        given = (tensor, net) if leaf == "z" else (z, weighted(net, tensor))
        if op == "net_forward":
            return ops.net_forward(*given, backend=backend)
        return ops.net_potential(given[0], x, given[1], likelihood="bernoulli", backend=backend)[0]

    tensor = (z if leaf == "z" else net.weights[0]).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: energy(t, "reference"), tensor)
    assert torch.autograd.gradgradcheck(lambda t: energy(t, "reference"), tensor)
    with vf.use_backend("reference"):
        assert energy(tensor, None).requires_grad
    with torch.no_grad():
        assert not energy(tensor, None).requires_grad


def weighted(net, first):
    return net._replace(weights=[first, *net.weights[1:]])


def test_the_gram_matrix_is_that_of_the_whole_jacobian(make):
    """The input also goes around the first product, or there is none."""
    net, x = make(8, 6), SHAPE.draw(torch.float64, 3, 8)
    J = torch.func.vmap(torch.func.jacrev(lambda row: network.evaluate(row[None], net)[0]))(x)
    found = ops.net_jacobian_gram(x, net, backend="reference")
    torch.testing.assert_close(found, J @ J.mT)
