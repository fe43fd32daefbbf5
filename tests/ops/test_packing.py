"""Weights are read anew by every call, however they were written and however they lie in memory."""

import numpy as np
import pytest
import torch

from vaefast.bench.cases import network, posterior
from vaefast.ops import (
    decode_distance,
    net_chain,
    net_forward,
    net_jacobian_gram,
    net_jvp,
    net_potential,
    net_trajectory,
    net_vjp,
)
from vaefast.types import Network

WIDTHS, ACTIVATIONS = (3, 40, 18, 10), "tanh,silu,identity"
OPS = (
    "net_forward",
    "net_potential",
    "net_trajectory",
    "net_chain",
    "net_jvp",
    "net_vjp",
    "net_jacobian_gram",
    "decode_distance",
)


@pytest.fixture(params=OPS)
def op(request, require):
    require(request.param, "cpp")
    return request.param


def run(op, net):
    """All results of an op on the C++ backend, as one tensor of float64."""
    z, x, _ = posterior(2, 2, widths=WIDTHS, dtype=net.weights[0].dtype)
    like = {"likelihood": "bernoulli", "backend": "cpp"}
    if op == "net_forward":
        results = (net_forward(z, net, backend="cpp"),)
    elif op == "net_potential":
        results = net_potential(z, x, net, **like)
    elif op == "net_trajectory":
        results = net_trajectory(z, z, z, x, net, **like, step=0.1, leapfrog=2)
    elif op == "net_jvp":
        results = net_jvp(z, z.flip(0), net, full=True, backend="cpp")
    elif op == "net_vjp":
        results = net_vjp(z, x, net, full=True, backend="cpp")
    elif op == "net_jacobian_gram":
        results = (net_jacobian_gram(z, net, backend="cpp"),)
    elif op == "net_chain":
        start = net_potential(z, x, net, **like)
        results = net_chain(z, *start, x, net, **like, step=0.1, leapfrog=2, steps=3, thin=1)
    else:
        r = torch.linspace(1, 4, 4, dtype=z.dtype)
        centre = x.repeat_interleave(2, 0)
        samples = {"samples": 200, "backend": "cpp"}
        results = (decode_distance(z, torch.ones_like(z), centre, r, net, **samples),)
    return torch.cat([t.detach().double().flatten() for t in results])


def decoder(dtype=torch.float64):
    return network(WIDTHS, ACTIVATIONS, dtype=dtype)


def copied(net):
    """The same numbers in fresh contiguous memory."""

    def copy(t):
        return torch.from_numpy(np.ascontiguousarray(t.detach().resolve_neg().numpy()).copy())

    return Network([copy(w) for w in net.weights], [copy(b) for b in net.biases], net.layers)


def write_data(tensors):
    for t in tensors:
        t.data.mul_(1.5)


def write_numpy(tensors):
    for t in tensors:
        t.detach().numpy()[...] *= 1.5


def write_fused_adam(tensors):
    for t in tensors:
        t.grad = torch.ones_like(t)
    torch.optim.Adam(tensors, lr=0.3, fused=True).step()


@pytest.mark.parametrize("write", [write_data, write_numpy, write_fused_adam])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_next_call_sees_what_was_written(op, write, dtype):
    net = decoder(dtype)
    parameters = [t.requires_grad_() for t in (*net.weights, *net.biases)]
    with torch.no_grad():
        before = run(op, net)
        write(parameters)
        after = run(op, net)
    assert torch.equal(after, run(op, copied(net)))
    assert not torch.equal(after, before)


def test_inference_tensors(op):
    with torch.inference_mode():
        net = decoder()
        before = run(op, net)
        for t in (*net.weights, *net.biases):
            t.mul_(1.5)
        after = run(op, net)
    assert net.weights[0].is_inference()
    with torch.no_grad():
        assert torch.equal(run(op, net), after)
    assert torch.equal(after, run(op, decoder()._replace(**scaled(decoder(), 1.5))))
    assert not torch.equal(after, before)


def scaled(net, factor):
    return {
        "weights": [w * factor for w in net.weights],
        "biases": [b * factor for b in net.biases],
    }


def transposed(w):
    return w.t().contiguous().t()


def strided(w):
    wide = torch.full([3 * n for n in w.shape], torch.nan, dtype=w.dtype)
    view = wide[tuple(slice(1, None, 3) for _ in w.shape)]
    return view.copy_(w)


def sliced(w):
    wide = torch.full([n + 5 for n in w.shape], torch.nan, dtype=w.dtype)
    view = wide[tuple(slice(2, 2 + n) for n in w.shape)]
    return view.copy_(w)


def expanded(w):
    return w[:1].expand(w.shape)


def expanded_inputs(w):
    return w[..., :1].expand(w.shape)


def negated(w):
    """A view whose minus sign is only a flag."""
    return torch.complex(torch.zeros_like(w), -w).conj().imag


LAYOUTS = [transposed, strided, sliced, expanded, expanded_inputs, negated]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_and_biases_may_be_views(op, layout, dtype):
    net = decoder(dtype)
    views = Network([layout(w) for w in net.weights], [layout(b) for b in net.biases], net.layers)
    assert torch.equal(run(op, views), run(op, copied(views)))


def test_one_tensor_may_serve_several_layers(op):
    w = torch.randn(10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, bias = torch.ones(10, 3, dtype=torch.float64), w[0]
    shared = Network.mlp([first, w, w.T, w], [bias] * 4, "tanh,tanh,tanh,identity")
    assert torch.equal(run(op, shared), run(op, copied(shared)))
