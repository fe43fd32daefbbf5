"""Networks made of others: side by side, in a chain, in another dtype; and what lacks kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.runtime import backends, refusals
from vaefast.types import Network

__all__ = ["chained", "followed_by", "in_float32", "joined", "missing_kernel"]


def joined(first: Network, second: Network) -> Network | None:
    """Two networks that differ in their last layer's parameters only, as one with both outputs."""
    same = first.layers == second.layers and len(first.weights) == len(second.weights)
    before = [[*net.weights[:-1], *net.biases[:-1]] for net in (first, second)]
    if not same or not _stacks(first) or not all(_is_same(a, b) for a, b in zip(*before)):
        return None
    biases = [_bias(m) for m in (first, second)]
    return Network(
        [*first.weights[:-1], torch.cat([first.weights[-1], second.weights[-1]])],
        [*first.biases[:-1], torch.cat(biases)],
        first.layers,
    )


def _stacks(net: Network) -> bool:
    """Whether outputs of the last layer can be added below each other, one weight for each."""
    last = net.layer(len(net.layers) - 1)
    dense = last.kind == "linear" or (last.kind == "conv" and last.groups == 1)
    return dense and last.residual is None


def _is_same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is b or a is None or b is None:
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape


def _bias(net: Network) -> Tensor:
    bias, weight = net.biases[-1], net.weights[-1]
    return weight.new_zeros(len(weight)) if bias is None else bias


def chained(first: Network, second: Network) -> Network:
    """second ∘ first."""
    return Network(
        [*first.weights, *second.weights],
        [*first.biases, *second.biases],
        [*first.layers, *(_shifted(layer, len(first.layers)) for layer in second.layers)],
    )


def _shifted(layer: str, count: int) -> str:
    """The layer behind ``count`` others: what it adds has moved too, and the input is the last."""
    words = layer.split()
    return " ".join(f"+{int(word) + count}" if word.startswith("+") else word for word in words)


def followed_by(net: Network, activation: str) -> Network:
    """activation ∘ net: its epilogue, or a layer of the identity where it has one already."""
    if net.activations[-1] == "identity":
        return net.with_epilogue(activation)
    like = net.weights[-1]
    unit = torch.eye(net.out_features, dtype=like.dtype, device=like.device)
    return chained(net, Network.mlp([unit], [None], activation))


def in_float32(net: Network) -> Network:
    """The same network with float32 parameters."""
    biases = [None if b is None else b.float() for b in net.biases]
    return Network([w.float() for w in net.weights], biases, net.layers)


def missing_kernel(net: Network, like: Tensor, backend: str | None) -> str:
    """Why no backend runs the network on such tensors; one asked for by name says so itself."""
    name = backends.named(backend)
    if name and not refusals.of_layers(name, net.layers):
        return ""
    support = backends.fused(net, like, backend)
    return "" if support else f"lowers, but {support.reason}"
