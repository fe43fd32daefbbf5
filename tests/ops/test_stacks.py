"""Networks with pixels in C++: every op's numbers are the reference's, for any stack of layers."""

import os

import pytest
import torch
from samples import same
from stacks import stack

import vaefast as vf
from vaefast import ops
from vaefast.types import Network

COUNT = int(os.environ.get("VAEFAST_FUZZ", "32"))
SHAPES = {  # kernel, text
    "one pixel": ((4, 3, 1, 1), "conv in=3x1x1 relu"),
    "a kernel larger than the image": ((4, 3, 5, 5), "conv in=3x2x3 padding=2x2 relu"),
    "a stride larger than the kernel": ((4, 3, 2, 2), "conv in=3x7x8 stride=3x4 relu"),
    "transposed, a stride larger than the kernel": (
        (3, 4, 2, 2),
        "conv_transpose in=3x3x2 stride=4x3 output_padding=3x1 relu",
    ),
    "output padding past a stride": (
        (3, 4, 2, 2),
        "conv_transpose in=3x3x2 stride=1x2 dilation=3x2 output_padding=2x1 relu",
    ),
    "an asymmetric kernel": ((4, 3, 1, 5), "conv in=3x4x6 stride=2x1 padding=0x2 relu"),
    "one channel": ((1, 1, 3, 3), "conv in=1x5x5 padding=1x1 relu"),
    "prime channels": ((37, 31, 3, 3), "conv in=31x5x4 padding=1x1 relu"),
    "as many groups as channels": ((19, 1, 3, 3), "conv in=19x5x4 padding=1x1 groups=19 relu"),
    "dilation": ((4, 3, 3, 3), "conv in=3x7x7 dilation=3x2 relu"),
    "padding wider than the kernel": ((4, 3, 2, 2), "conv in=3x3x3 padding=3x4 relu"),
    "a signal": ((5, 3, 4), "conv in=3x11 stride=3 padding=1 relu"),
}


@pytest.fixture(autouse=True)
def _needs_cpp():
    if not (support := vf.supports("net_forward", "cpp")):
        pytest.skip(support.reason)


def calls(net: Network, rows: int = 5, C: int = 2):
    """Every op on the network, by name, as a function of the backend."""
    generator = torch.Generator().manual_seed(rows)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=net.weights[0].dtype)

    net = net.with_epilogue("identity") if net.activations[-1] == "sigmoid" else net
    d, D, n = net.in_features, net.out_features, rows * C
    z, x, like = draw(n, d), draw(rows, D).sigmoid(), {"likelihood": "bernoulli"}
    shared, own, std = draw(3, d), draw(n, 2, D), 1 + draw(n, D).abs()
    centre, r, index = draw(n, D), draw(n).abs() + D**0.5, torch.arange(n)
    step, mass = torch.full((rows,), 1e-2, dtype=z.dtype), 1 + draw(rows, d) ** 2
    chain = {"step": step, "inv_mass": mass, "leapfrog": 2, "steps": 3, "seed": 3, "thin": 1}
    path = {"step": step.repeat_interleave(C), "inv_mass": mass, "leapfrog": 2}
    U, grad = ops.net_potential(z, x, net, **like, backend="reference")
    own_index = {"index": torch.arange(rows)}
    found = {
        "net_forward": lambda k: (ops.net_forward(z, net, backend=k),),
        "net_potential": lambda k: ops.net_potential(z, x, net, **like, backend=k),
        "net_trajectory": lambda k: ops.net_trajectory(
            z, z.flip(0), grad, x, net, **path, **like, backend=k
        ),
        "net_trajectory_vjp": lambda k: ops.net_trajectory_vjp(
            z, z.flip(0), z.sin(), x, net, upstream_p=z.cos(), **path, **like, backend=k
        ),
        "net_chain": lambda k: ops.net_chain(
            z, U, grad, x, net, **chain, **own_index, **like, backend=k
        ),
        "net_jvp": lambda k: ops.net_jvp(z, shared, net, full=True, backend=k),
        "net_vjp": lambda k: ops.net_vjp(z, own, net, full=True, backend=k),
        "decode_distance": lambda k: (
            ops.decode_distance(z, z.abs(), centre, r, net, index=index, samples=7, backend=k),
        ),
    }
    if D <= 150:
        found["net_jacobian_gram"] = lambda k: (
            ops.net_jacobian_gram(z, net, inv_std=std, backend=k),
        )
    return found


def assert_agree(net):
    for name, call in calls(net).items():
        for a, b in zip(call("cpp"), call("reference"), strict=True):
            scale = b.abs().nan_to_num(0, 0, 0).max().item() if b.numel() else 0
            torch.testing.assert_close(
                a, b, rtol=1e-8, atol=1e-10 * (1 + scale), msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_break_things(name):
    shape, text = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64) / 3
    net = Network([weight], [None], [text])
    out = net.layer(0).out_features
    last = torch.randn(6, out, generator=generator, dtype=torch.float64) / out**0.5
    assert_agree(net)
    assert_agree(Network([weight, last], [None, None], [text, "linear identity"]))


@pytest.mark.parametrize("between", [(40, 1, 1), (10, 2, 2), (20, 1, 2)])
def test_images_whose_shape_changes_between_convolutions(between):
    """A view costs nothing for a module: here the features lie as callers count them."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 3

    channels, height, width = between
    middle = 5 * height * width
    weights = [draw(10, 3, 2, 2), draw(channels, 5, 1, 1), draw(40, middle, 1, 1)]
    layers = [
        "conv in=3x4x4 stride=2x2 tanh",
        f"conv_transpose in={channels}x{height}x{width} relu",
        f"conv in={middle}x1x1 silu",
        "conv in=10x2x2 padding=1x1 identity",
    ]
    assert_agree(Network([*weights, draw(7, 10, 2, 2)], [None] * 4, layers))


def test_any_stack_of_layers():
    before = torch.get_num_threads()
    for seed in range(COUNT):
        torch.set_num_threads(1 + seed % 3)
        net = stack(seed)
        try:
            assert_agree(net)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {net.layers}: {error}") from None
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_row_depends_on_its_neighbours(dtype):
    """Few rows take each tap singly, many all taps of a pixel: the sums are the same."""
    for seed in range(COUNT // 4):
        net = stack(seed, dtype)
        z = torch.randn(
            23, net.in_features, dtype=dtype, generator=torch.Generator().manual_seed(1)
        )
        whole = ops.net_forward(z, net, backend="cpp")
        for rows in (slice(0, 1), slice(1, 4), slice(4, 9), slice(9, 23)):
            assert same(ops.net_forward(z[rows], net, backend="cpp"), whole[rows]), net.layers


def test_a_row_that_is_not_finite_spoils_no_other():
    net = stack(3)
    z = torch.randn(9, net.in_features, dtype=torch.float64)
    whole = ops.net_forward(z, net, backend="cpp")
    for bad in (torch.nan, torch.inf):
        z[4, 0] = bad
        out = ops.net_forward(z, net, backend="cpp")
        assert out[4].isnan().all()
        good = torch.arange(9) != 4
        assert same(out[good], whole[good])
