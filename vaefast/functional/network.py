"""A network's two passes by hand: forward keeping what the backward loop needs, and back.

Plain torch operations throughout, so autograd differentiates them; nothing here needs a graph.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaefast.functional.activations import parse
from vaefast.functional.layers import adjoint, apply
from vaefast.types import Network

__all__ = [
    "Tape",
    "bytes_per_row",
    "evaluate",
    "forward",
    "pull_to_first",
    "pullback",
    "pushforward",
]


class Tape(NamedTuple):
    """What a forward pass leaves behind; the last ``post`` is the output."""

    pre: list[Tensor]  # a_l = layer_l(h_{l-1}) + h_k, one [n, H_l] per layer
    post: list[Tensor]  # h_l = φ_l(a_l)

    @property
    def out(self) -> Tensor:
        return self.post[-1]

    def beside_probes(self) -> Tape:
        """The same pass with a probe dimension: [n, 1, H_l], to broadcast against [n, K, H_l]."""
        return Tape([a.unsqueeze(1) for a in self.pre], [h.unsqueeze(1) for h in self.post])


def evaluate(x: Tensor, net: Network) -> Tensor:
    """The network's output on x [n, in], keeping nothing that no later layer adds."""
    layers = net.parsed()
    needed = {layer.residual for layer in layers}
    kept = {-1: x}
    for index, (layer, activation) in enumerate(zip(layers, parse(net.activations))):
        a = apply(layer, x, net.weights[index], net.biases[index])
        x = activation.value(a if layer.residual is None else a + kept[layer.residual])
        if index in needed:
            kept[index] = x
    return x


def forward(x: Tensor, net: Network) -> Tape:
    """Evaluate the network on x [n, in], keeping what the backward loop needs."""
    tape, h = Tape([], []), x
    for index, (layer, activation) in enumerate(zip(net.parsed(), parse(net.activations))):
        a = apply(layer, h, net.weights[index], net.biases[index])
        if layer.residual is not None:
            a = a + (x if layer.residual < 0 else tape.post[layer.residual])
        h = activation.value(a)
        tape.pre.append(a)
        tape.post.append(h)
    return tape


def pushforward(tape: Tape, tangent: Tensor, net: Network) -> Tensor:
    """J·tangent: tangent [..., in] to [..., out], beside the pass in ``tape``."""
    moving = [tangent]  # that of layer l at l + 1
    for index, (layer, activation) in enumerate(zip(net.parsed(), parse(net.activations))):
        rate = apply(layer, moving[-1], net.weights[index], None)
        if layer.residual is not None:
            rate = rate + moving[layer.residual + 1]
        moving.append(activation.multiply(tape.pre[index], tape.post[index], rate))
    return moving[-1]


def pullback(tape: Tape, cotangent: Tensor, net: Network) -> Tensor:
    """Jᵀ·cotangent: cotangent [..., out] to [..., in], through the pass in ``tape``."""
    into = _pull(tape, cotangent, net)
    pulled = adjoint(net.layer(0), into[0], net.weights[0])
    return pulled + into[-1] if -1 in into else pulled


def pull_to_first(tape: Tape, cotangent: Tensor, net: Network) -> Tensor:
    """The cotangent of the first layer's pre-activations, [..., out] to [..., H₁].

    A residual sum with the network's input goes around it and is not in the result.
    """
    return _pull(tape, cotangent, net)[0]


def _pull(tape: Tape, cotangent: Tensor, net: Network) -> dict[int, Tensor]:
    """Cotangents at 0 of the first pre-activations, at −1 of the sums with the input, if any."""
    activations = parse(net.activations)
    into = {len(net.layers) - 1: cotangent}  # of each layer's output
    for index in reversed(range(len(net.layers))):
        layer = net.layer(index)
        own = activations[index].multiply(tape.pre[index], tape.post[index], into.pop(index))
        if layer.residual is not None:
            _add(into, layer.residual, own)
        if index == 0:
            into[0] = own
        else:
            _add(into, index - 1, adjoint(layer, own, net.weights[index]))
    return into


def _add(into: dict[int, Tensor], index: int, cotangent: Tensor) -> None:
    into[index] = into[index] + cotangent if index in into else cotangent


def bytes_per_row(net: Network, like: Tensor) -> int:
    """Bytes that one row's forward and backward pass hold at once, in ``like``'s dtype."""
    widths = [net.in_features, *(layer.out_features for layer in net.parsed())]
    return like.element_size() * (2 * sum(widths) + 4 * max(widths))
