"""Networks with pixels in JAX: ``lax.conv_general_dilated``, channels last as XLA's CPU wants."""

from __future__ import annotations

from torch import Tensor

from vaefast.bench.ops._stacks import Stack
from vaefast.types import Layer, parse_layer

__all__ = ["SEPARATOR", "forward", "text", "weights"]

SEPARATOR = "\n"  # of layers; ends the last one too
FORM = ("NHWC", "HWIO", "NHWC")


def weights(net: Stack) -> list[Tensor]:
    """[in, out] of linear layers, [height, width, in, out] of convolutions as XLA runs them."""
    return [_weight(layer, weight) for layer, weight in zip(net.layers, net.weights)]


def _weight(layer: Layer, weight: Tensor) -> Tensor:
    if layer.kind == "linear":
        return weight.T.contiguous()
    if layer.kind == "conv":
        return weight.permute(2, 3, 1, 0).contiguous()
    return weight.flip(2, 3).permute(2, 3, 0, 1).contiguous()


def text(net: Stack) -> str:
    return "".join(f"{layer}{SEPARATOR}" for layer in net.layers)


def forward(z, weights, biases, layers: str):
    """[n, features] or [features] to as many outputs, features in torch's order."""
    import jax

    if z.ndim == 1:
        return forward(z[None], weights, biases, layers)[0]

    functions = {"identity": lambda a: a, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
    h = z.astype(weights[0].dtype)
    for W, b, line in zip(weights, biases, layers.splitlines()):
        layer = parse_layer(line)
        h = functions[layer.activation](_through(h, W, b, layer))
    return h if h.ndim == 2 else h.transpose(0, 3, 1, 2).reshape(len(h), -1)


def _through(h, W, b, layer: Layer):
    import jax

    if layer.kind == "linear":
        return h @ W + b
    if h.ndim == 2:
        h = h.reshape(len(h), *layer.in_shape).transpose(0, 2, 3, 1)
    options = {"rhs_dilation": layer.dilation, "dimension_numbers": FORM}
    if layer.kind == "conv":
        around = [(padding, padding) for padding in layer.padding]
        return jax.lax.conv_general_dilated(h, W, layer.stride, around, **options) + b
    reach = [d * (k - 1) for d, k in zip(layer.dilation, W.shape)]
    around = [(r - p, r - p + q) for r, p, q in zip(reach, layer.padding, layer.output_padding)]
    options["lhs_dilation"] = layer.stride
    return jax.lax.conv_general_dilated(h, W, (1, 1), around, **options) + b
