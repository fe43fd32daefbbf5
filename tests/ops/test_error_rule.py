"""The C++ ops err at most twice as much as eager torch at the same dtype, both against float64."""

import pytest
import torch

import vaefast as vf
from vaefast import ops
from vaefast.bench.cases import network, posterior

ULPS = 16  # of the largest entry, beside twice eager's error
DECODERS = {
    "32-512-512-784": ((32, 512, 512, 784), "tanh,tanh,identity"),
    "17-101-334-300": ((17, 101, 334, 300), "relu,maxmin,identity"),
    "8-64-1100": ((8, 64, 1100), "silu,identity"),
}
ENCODERS = {
    "784-512-512-32": ((784, 512, 512, 32), "tanh,tanh,identity"),
    "300-333-100-17": ((300, 333, 100, 17), "relu,relu,identity"),
    "1100-64-8": ((1100, 64, 8), "gelu,identity"),
}
ROWS = (1, 3, 40)  # one row and few take other routes than many


def forward(case, **options):
    return (ops.net_forward(case.z, case.net, **options),)


def potential(case, **options):
    return ops.net_potential(*case, likelihood="bernoulli", **options)


def trajectory(case, **options):
    z, x, net = case
    like = {"likelihood": "continuous_bernoulli", "step": 1e-3, "leapfrog": 4}
    return ops.net_trajectory(z, z.flip(1), z.cos(), x, net, **like, **options)


def chain(case, **options):
    z, x, net = case
    U, grad = (t.to(z.dtype) for t in ops.net_potential(*case, likelihood="gaussian", **options))
    like = {"likelihood": "gaussian", "step": 1e-4, "leapfrog": 3, "steps": 2}
    result = ops.net_chain(z, U.double(), grad, x, net, **like, **options)
    return result.z, result.U, result.grad


def tangents(case, **options):
    return ops.net_jvp(case.z, case.z.flip(0).cos(), case.net, full=True, **options)


def cotangents(case, **options):
    u = case.x.sin()[:5]
    return ops.net_vjp(case.z, u, case.net, full=True, **options)


DECODING = {f.__name__: f for f in (forward, potential, trajectory, chain, tangents, cotangents)}


@pytest.fixture(autouse=True)
def _needs_cpp():
    if not (support := vf.supports("net_forward", "cpp")):
        pytest.skip(support.reason)


def assert_errs_little(run, narrow, wide, scale=1.0):
    truth = run(wide, backend="reference")
    ours, eager = run(narrow, backend="cpp"), run(narrow, backend="reference")
    for exact, found, plain in zip(truth, ours, eager):
        exact, size = exact.double(), exact.abs().max().double()
        error, allowed = (found.double() - exact).abs().max(), (plain.double() - exact).abs().max()
        ulps = ULPS * torch.finfo(narrow[0].dtype).eps * size
        assert error <= 2 * allowed + ulps, f"{error / ulps * ULPS:.1f} ulp, eager {allowed:.2g}"


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("run", DECODING.values(), ids=DECODING)
def test_decoders(run, name, rows):
    widths, activations = DECODERS[name]
    options = {"widths": widths, "activations": activations}
    narrow = posterior(rows, 1, dtype=torch.float32, **options)
    net = narrow.net._replace(
        weights=[w.double() for w in narrow.net.weights],
        biases=[b.double() for b in narrow.net.biases],
    )
    assert_errs_little(run, narrow, type(narrow)(narrow.z.double(), narrow.x.double(), net))


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_gram(name, whitened):
    widths, activations = ENCODERS[name]
    narrow = network(widths, activations, dtype=torch.float32)
    x = torch.rand(9, widths[0], generator=torch.Generator().manual_seed(0))
    inv_std = 1 + torch.rand(9, widths[-1], generator=torch.Generator().manual_seed(1))

    def run(inputs, **options):
        x, inv_std, net = inputs
        return (ops.net_jacobian_gram(x, net, inv_std=inv_std if whitened else None, **options),)

    wide = narrow._replace(
        weights=[w.double() for w in narrow.weights], biases=[b.double() for b in narrow.biases]
    )
    assert_errs_little(run, (x, inv_std, narrow), (x.double(), inv_std.double(), wide))
