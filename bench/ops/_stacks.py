"""Networks with pixels in plain torch, by its own convolutions, in either memory format."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vaefast.bench.ops._activate import activate, pull
from vaefast.types import Layer, Network

__all__ = ["Stack", "by_hand", "flop", "forward", "stack", "transposed"]

KINDS = ("linear", "conv", "conv_transpose")


class Stack(NamedTuple):
    """Linear layers and convolutions without residual sums, their texts read beforehand.

    Args:
        weights, biases, activations: one of each per layer.
        layers: with their shapes, which torch.compile takes as constants.
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    activations: list[str]
    layers: list[Layer]


def stack(net: Network, *, channels_last: bool = False) -> Stack:
    """The network for the functions below; torch follows the layout of a convolution's weights.

    Raises:
        ValueError: a layer that they do not know.
    """
    layers = net.parsed()
    if any(layer.kind not in KINDS or layer.residual is not None for layer in layers):
        raise ValueError(f"layers must be {', '.join(KINDS)} without sums, got {net.layers}")
    weights = [
        weight.to(memory_format=torch.channels_last)
        if channels_last and weight.ndim == 4
        else weight
        for weight in net.weights
    ]
    return Stack(weights, net.biases, net.activations, layers)


def _through(h: Tensor, net: Stack, at: int) -> Tensor:
    """Layer ``at`` of [..., features] or [..., channels, height, width], before its activation."""
    layer, weight, bias = net.layers[at], net.weights[at], net.biases[at]
    if layer.kind == "linear":
        return F.linear(h, weight, bias)
    if at == 0 or net.layers[at - 1].kind == "linear":
        h = h.unflatten(-1, layer.in_shape)
    where = layer.stride, layer.padding
    if layer.kind == "conv":
        return F.conv2d(h, weight, bias, *where, layer.dilation, layer.groups)
    options = layer.output_padding, layer.groups, layer.dilation
    return F.conv_transpose2d(h, weight, bias, *where, *options)


def transposed(g: Tensor, net: Stack, at: int) -> Tensor:
    """The cotangent of layer ``at``'s input, from that of its output, each in its layer's shape."""
    layer, weight = net.layers[at], net.weights[at]
    if layer.kind == "linear":
        return g @ weight
    where = layer.stride, layer.padding
    if layer.kind == "conv_transpose":
        back = F.conv2d(g, weight, None, *where, layer.dilation, layer.groups)
    else:
        axes = range(2)
        beyond = [  # input pixels that the last window does not reach
            layer.in_shape[1 + i]
            - (layer.out_shape[1 + i] - 1) * layer.stride[i]
            + 2 * layer.padding[i]
            - layer.dilation[i] * (layer.kernel[i] - 1)
            - 1
            for i in axes
        ]
        options = beyond, layer.groups, layer.dilation
        back = F.conv_transpose2d(g, weight, None, *where, *options)
    flat = at == 0 or net.layers[at - 1].kind == "linear"
    return back.flatten(-3) if flat else back


def forward(z: Tensor, net: Stack) -> Tensor:
    """[..., features] to [..., features], in the weights' dtype."""
    h = z.to(net.weights[0].dtype)
    for at, kind in enumerate(net.activations):
        h = activate(kind, _through(h, net, at))
    return h if net.layers[-1].kind == "linear" else h.flatten(-3)


def tape(z: Tensor, net: Stack) -> tuple[Tensor, list[tuple[str, Tensor, Tensor]]]:
    """The last layer's argument in its shape; (activation, argument, value) of the others."""
    h, before = z, []
    for at, kind in enumerate(net.activations[:-1]):
        a = _through(h, net, at)
        h = activate(kind, a)
        before.append((kind, a, h))
    return _through(h, net, len(before)), before


def back(g: Tensor, net: Stack, before: list[tuple[str, Tensor, Tensor]]) -> Tensor:
    """The cotangent of the network's input [n, features], from that of its last layer."""
    g = transposed(g, net, len(before))
    for at in range(len(before) - 1, -1, -1):
        kind, a, h = before[at]
        g = transposed(pull(kind, g, a, h), net, at)
    return g


def by_hand(z: Tensor, x: Tensor, net: Stack, energy: bool = True) -> tuple[Tensor | None, Tensor]:
    """U less its constant where asked, and ∇U, without autograd."""
    logits, before = tape(z, net)
    image = x.view(logits.shape)
    grad = back(torch.sigmoid(logits) - image, net, before) + z
    if not energy:
        return None, grad
    loss = F.binary_cross_entropy_with_logits(logits, image, reduction="none").flatten(1).sum(1)
    return loss + 0.5 * z.square().sum(1), grad


def flop(net: Network, rows: int) -> int:
    """Multiplications and additions of one pass over the rows, none of them with padding."""
    return 2 * rows * sum(_multiplications(layer) for layer in net.parsed())


def _multiplications(layer: Layer) -> int:
    """Of a row; pairs of an input and an output pixel that a tap joins, times their channels."""
    if layer.kind == "linear":
        return layer.in_features * layer.out_features
    small, large = layer.in_shape, layer.out_shape
    if layer.kind == "conv":
        small, large = large, small
    joined = 1
    for i in range(len(small) - 1):
        joined *= sum(
            0 <= pixel * layer.stride[i] - layer.padding[i] + tap * layer.dilation[i] < large[1 + i]
            for pixel in range(small[1 + i])
            for tap in range(layer.kernel[i])
        )
    return math.prod((layer.in_shape[0], layer.out_shape[0], joined)) // layer.groups
