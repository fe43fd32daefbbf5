"""The layer kinds: values, Jacobian products both ways and their derivatives are the modules'."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaefast import ops
from vaefast.functional import network
from vaefast.ops._inputs import check_network
from vaefast.runtime import backends
from vaefast.types import Layer, Network, parse_layer

EMPTY = torch.empty(0, dtype=torch.float64)
SPATIAL = {
    "conv": (
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        "conv in=2x7x6 stride=2x1 padding=1x2 dilation=1x2 groups=1",
    ),
    "conv that leaves pixels out": (
        nn.Conv2d(2, 4, 3, stride=3),
        "conv in=2x7x9 stride=3x3 padding=0x0 dilation=1x1 groups=1",
    ),
    "grouped conv": (nn.Conv2d(4, 6, 3, groups=2, bias=False), "conv in=4x5x5 groups=2"),
    "conv, one axis": (nn.Conv1d(3, 4, 4, stride=2, padding=1), "conv in=3x9 stride=2 padding=1"),
    "transposed conv": (
        nn.ConvTranspose2d(2, 3, (4, 3), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
        "conv_transpose in=2x4x3 stride=2x3 padding=1x0 output_padding=1x2",
    ),
    "transposed conv, dilated and grouped": (
        nn.ConvTranspose2d(4, 6, 2, dilation=3, output_padding=2, groups=2),
        "conv_transpose in=4x3x3 dilation=3x3 output_padding=2x2 groups=2",
    ),
    "transposed conv, one axis": (
        nn.ConvTranspose1d(3, 2, 3, stride=2),
        "conv_transpose in=3x5 stride=2",
    ),
    "average pooling": (nn.AvgPool2d(2), "avg_pool in=3x5x4 kernel=2x2 stride=2x2"),
    "average pooling with padding": (
        nn.AvgPool2d(3, 2, 1),
        "avg_pool in=2x6x5 kernel=3x3 stride=2x2 padding=1x1",
    ),
    "average pooling, one axis": (nn.AvgPool1d(3), "avg_pool in=2x7 kernel=3 stride=3"),
    "upsampling": (
        nn.Upsample(scale_factor=(2, 3)),
        "upsample_nearest in=2x3x4 scale=2x3",
    ),
    "upsampling, one axis": (nn.Upsample(scale_factor=3), "upsample_nearest in=2x5 scale=3"),
}


def of_one(module, text):
    weight = getattr(module, "weight", EMPTY)
    return Network([weight.detach()], [getattr(module, "bias", None)], [f"{text} tanh"])


def made(name):
    torch.manual_seed(0)
    module, text = SPATIAL[name]
    net = of_one(module.double(), text)
    shape = net.layer(0).in_shape
    return net, lambda x: torch.tanh(module(x.unflatten(1, shape))).flatten(1)


@pytest.mark.parametrize("name", SPATIAL)
def test_values_and_products_are_the_module_s(name):
    net, function = made(name)
    x = torch.randn(3, net.in_features, dtype=torch.float64)
    out, pull = torch.func.vjp(function, x)
    assert net.out_features == out.shape[1]
    torch.testing.assert_close(network.evaluate(x, net), out)
    tape = network.forward(x, net)
    torch.testing.assert_close(tape.out, out)
    v, u = torch.randn_like(x), torch.randn_like(out)
    expected = torch.func.jvp(function, (x,), (v,))[1]
    torch.testing.assert_close(network.pushforward(tape, v, net), expected)
    torch.testing.assert_close(network.pullback(tape, u, net), pull(u)[0])
    probes, own = torch.randn(4, net.in_features).double(), tape.beside_probes()
    along = network.pushforward(own, probes.expand(3, 4, -1), net)
    assert torch.allclose(along[:, 2], network.pushforward(tape, probes[2].expand(3, -1), net))


def residual():
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return 0.5 * torch.randn(*shape, dtype=torch.float64, generator=generator)

    weights = [normal(2, 2, 3, 3), normal(2, 2, 1, 1), EMPTY, normal(32, 32)]
    biases = [normal(2), None, None, normal(32)]
    texts = [
        "conv in=2x4x4 padding=1x1 +-1 tanh",
        "conv in=2x4x4 +0 silu",
        "avg_pool in=2x4x4 kernel=1x1 stride=1x1 softplus",
        "linear +1 identity",
    ]
    return Network(weights, biases, texts)


def by_hand(x, net):
    (w0, w1, _, w3), (b0, _, _, b3) = net.weights, net.biases
    images = x.unflatten(1, (2, 4, 4))
    h0 = torch.tanh(F.conv2d(images, w0, b0, padding=1) + images)
    h1 = F.silu(F.conv2d(h0, w1) + h0)
    return F.linear(F.softplus(h1).flatten(1), w3, b3) + h1.flatten(1)


def test_residual_sums():
    net, x = residual(), torch.randn(3, 32, dtype=torch.float64)
    torch.testing.assert_close(network.evaluate(x, net), by_hand(x, net))
    tape, v = network.forward(x, net), torch.randn(3, 32, dtype=torch.float64)
    expected = torch.func.jvp(lambda x: by_hand(x, net), (x,), (v,))[1]
    torch.testing.assert_close(network.pushforward(tape, v, net), expected)
    pulled = torch.func.vjp(lambda x: by_hand(x, net), x)[1](v)[0]
    torch.testing.assert_close(network.pullback(tape, v, net), pulled)
    pre = network.pull_to_first(tape, v, net)
    onto = F.conv_transpose2d(pre.unflatten(1, (2, 4, 4)), net.weights[0], padding=1).flatten(1)
    torch.testing.assert_close(onto + pre, pulled)


def test_both_passes_are_differentiable():
    net = residual()

    def products(x, v):
        tape = network.forward(x, net)
        return network.pushforward(tape, v, net), network.pullback(tape, v, net)

    inputs = [torch.randn(1, 32, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(products, inputs)


@pytest.mark.parametrize(
    "text",
    [
        "linear +2 leaky_relu:0.1",
        "conv in=1x28x28 stride=2x2 padding=1x1 dilation=1x1 groups=1 relu",
        "conv_transpose in=8x7 stride=2 padding=1 dilation=1 output_padding=1 groups=2 +-1 tanh",
        "avg_pool in=64x8x8 kernel=2x2 stride=2x2 padding=0x0 identity",
        "upsample_nearest in=64x4x4 scale=2x2 clamp:-1.0:1.0",
    ],
)
def test_texts_are_canonical(text):
    assert str(parse_layer(text)) == text


def test_fields_that_are_left_out_take_their_defaults():
    full = parse_layer(
        "conv in=1x8x8 stride=1x1 padding=0x0 dilation=1x1 groups=1 relu", (4, 1, 3, 3)
    )
    assert parse_layer("conv in=1x8x8 relu", (4, 1, 3, 3)) == full
    assert full == Layer(
        "conv", (1, 8, 8), (4, 6, 6), (1, 1), (0, 0), (1, 1), kernel=(3, 3), activation="relu"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dense relu", "layers must be among linear, conv, .*, got 'dense relu'"),
        ("linear", "must end in its activation, as in 'linear identity'"),
        ("linear stride=2 relu", "takes no stride"),
        ("conv relu", "must give in"),
        ("conv in=8 relu", "must have in=CxL or in=CxHxW, got 8"),
        ("conv in=1x8x8 stride=2 relu", "must give 2 sizes for stride"),
        ("conv in=1xax8 relu", "has a malformed word 'in=1xax8'"),
        ("avg_pool in=1x8x8 relu", "must give kernel, stride"),
        ("linear +x relu", r"has a malformed word '\+x'"),
    ],
)
def test_malformed_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_layer(text)


def changed(index, **change):
    net = residual()
    fields = {name: list(getattr(net, name)) for name in change}
    for name, value in change.items():
        fields[name][index] = value
    return net._replace(**fields)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (changed(0, layers="conv in=2x4x5 padding=1x1 relu"), "layer 0 must take the 32 features"),
        (changed(0, weights=EMPTY), r"net.weights\[0\] must be \[out, in/groups, ...\] of a layer"),
        (changed(2, weights=torch.ones(1).double()), r"net.weights\[2\] must be \[0\]"),
        (changed(0, biases=torch.ones(3).double()), r"net.biases\[0\] must be \[2\]"),
        (changed(1, layers="conv in=2x4x4 +1 silu"), "layer 1 must add an earlier layer"),
        (changed(3, layers="linear +5 relu"), "layer 3 must add an earlier layer"),
        (
            changed(1, weights=torch.ones(3, 2, 1, 1).double()),
            "layer 1 has 48 features, it adds 32",
        ),
        (changed(0, weights=torch.ones(2, 2, 3, 3)), "must be float64 like x"),
    ],
)
def test_networks_whose_layers_do_not_fit_are_refused(net, message):
    with pytest.raises((ValueError, TypeError), match=message):
        check_network(net, torch.ones(3, 32, dtype=torch.float64), "x")


def test_ops_take_any_network():
    net, x = residual(), torch.randn(3, 32, dtype=torch.float64)
    for backend in ("reference", "cpp"):
        if ops.supports("net_forward", backend):
            out = ops.net_forward(x, net, backend=backend)
            torch.testing.assert_close(out, by_hand(x, net))
            assert backends.fused(net, x, backend)
    assert backends.fused(net, x, "reference")
    linear = Network.mlp([torch.ones(2, 3)], [None], "relu")
    assert backends.fused(linear, x.float(), "cpp")
    assert "takes float32 or float64" in backends.fused(linear, x.half(), "cpp").reason
