"""What all ops on networks take alike: a pack beside the weights, a precision, a tile; dtypes."""

import inspect

import pytest
import torch

from vaefast import ops
from vaefast.bench.cases import network, posterior
from vaefast.runtime import backends
from vaefast.types import Network

NETWORK_OPS = [*sorted(op for op in backends.ops() if op.startswith("net_")), "decode_distance"]
ACTIVATIONS = "tanh,silu,identity"


def run(op, net, **options):
    """An op on a small case, with whatever it needs beside the network."""
    z, x, _ = posterior(2, 2, dtype=net.weights[0].dtype)
    target = {"likelihood": "bernoulli", **options}
    call, ones = getattr(ops, op), torch.ones_like(z)
    if op in ("net_forward", "net_jacobian_gram"):
        return call(z, net, **options)
    if op in ("net_jvp", "net_vjp"):
        return call(z, (z if op == "net_jvp" else x)[:1], net, **options)
    if op == "net_displacement_bound":
        return call(z, 0.1, net, **options)
    if op == "net_potential":
        return call(z, x, net, **target)
    if op in ("net_trajectory", "net_trajectory_vjp"):
        return call(z, z, z, x, net, step=0.1, leapfrog=2, **target)
    if op == "net_chain":
        U = torch.zeros(4, dtype=torch.float64)
        return call(z, U, z, x, net, step=0.1, leapfrog=2, steps=2, **target)
    return call(z, ones, x.repeat_interleave(2, 0), 1.0, net, samples=3, **options)


def decoder(dtype=torch.float32):
    return network((3, 8, 6, 10), ACTIVATIONS, dtype=dtype)


@pytest.mark.parametrize("op", NETWORK_OPS)
def test_schemas_agree(op):
    arguments = [a.name for a in getattr(torch.ops.vaefast, op).default._schema.arguments]
    start = arguments.index("weights")
    assert arguments[start : start + 4] == ["weights", "biases", "layers", "packed"]
    assert arguments[-3:] == ["precision", "tile", "backend"]
    parameters = inspect.signature(getattr(ops, op)).parameters
    assert [parameters[name].default for name in arguments[-3:]] == ["ieee", None, None]


@pytest.mark.parametrize("op", NETWORK_OPS)
def test_the_cpu_ignores_tiles(op):
    found = [run(op, decoder(), tile=tile) for tile in (None, 16, 128)]
    torch.testing.assert_close(found[1:], [found[0]] * 2, rtol=0, atol=0)


@pytest.mark.parametrize("op", NETWORK_OPS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tile": 8}, ValueError, "tile must be one of 16, 32, 64, 128, got 8"),
        ({"tile": 48}, ValueError, "tile must be one of 16, 32, 64, 128, got 48"),
        ({"tile": 32.0}, TypeError, "tile must be a whole number, got float"),
        ({"precision": "fp8"}, ValueError, "precision must be one of 'ieee', 'tf32', 'bf16'"),
    ],
)
def test_options_that_no_op_takes(op, options, error, message):
    with pytest.raises(error, match=message):
        run(op, decoder(), **options)


@pytest.mark.parametrize("op", NETWORK_OPS)
def test_a_pack_is_a_tensor_on_the_device_of_the_rows(op):
    with pytest.raises(TypeError, match=r"net.packed must be a torch.Tensor, got str"):
        run(op, decoder()._replace(packed="no"))
    with pytest.raises(ValueError, match=r"net.packed is on meta"):
        run(op, decoder()._replace(packed=torch.empty(8, device="meta")))


def test_the_reference_needs_no_pack():
    net, z = decoder(), torch.ones(2, 3)
    beside = net._replace(packed=torch.full((4,), torch.nan))
    result = ops.net_forward(z, beside, backend="reference")
    assert torch.equal(result, ops.net_forward(z, net, backend="reference"))


def test_a_pack_stays_with_its_weights():
    packed = torch.zeros(4)
    net = Network([torch.ones(2, 2)], [None], ["linear tanh"], packed)
    assert Network(*net[:3]).packed is None
    assert net.with_epilogue("sigmoid") == ([net.weights[0]], [None], ["linear sigmoid"], packed)
    assert net._replace(layers=["linear relu"]).packed is packed
    assert net._replace(weights=[torch.zeros(2, 2)]).packed is None
    assert net._replace(biases=[torch.ones(2)]).packed is None
    assert net._replace(biases=[torch.ones(2)], packed=packed).packed is packed


def test_a_tile_is_a_matter_of_speed(backend, require):
    """Rows in several tiles, the last one short, are the rows in one tile but for round-off."""
    require("net_chain", backend)
    case = posterior(7, 5, widths=(3, 40, 6, 10))
    like = {"likelihood": "bernoulli", "backend": backend}
    U, grad = ops.net_potential(*case, **like)
    runs = []
    for tile in (None, 16):
        out = ops.net_forward(case.z, case.net, backend=backend, tile=tile)
        energy, slope = ops.net_potential(*case, **like, tile=tile)
        end = ops.net_trajectory(
            case.z, case.z, grad, case.x, case.net, step=0.1, leapfrog=2, **like, tile=tile
        )
        chain = ops.net_chain(
            case.z, U, grad, case.x, case.net, step=0.1, leapfrog=2, steps=2, **like, tile=tile
        )
        runs.append([out, energy, slope, *end, chain.z, chain.U])
    for one, many in zip(*runs):
        torch.testing.assert_close(one, many, rtol=1e-10, atol=1e-10)
