"""An MLP's two passes by hand: forward keeping what the backward loop needs, and back.

Plain torch operations throughout, so autograd differentiates them; nothing here needs a graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from vaefast.functional.activations import parse
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

    pre: list[Tensor]  # a_l = W_l h_{l-1} + b_l, one [n, H_l] per layer
    post: list[Tensor]  # h_l = φ_l(a_l)

    @property
    def out(self) -> Tensor:
        return self.post[-1]

    def beside_probes(self) -> Tape:
        """The same pass with a probe dimension: [n, 1, H_l], to broadcast against [n, K, H_l]."""
        return Tape([a.unsqueeze(1) for a in self.pre], [h.unsqueeze(1) for h in self.post])


def evaluate(x: Tensor, net: Network) -> Tensor:
    """The network's output on x [n, in], keeping nothing else."""
    for weight, bias, activation in zip(net.weights, net.biases, parse(net.activations)):
        x = activation.value(F.linear(x, weight, bias))
    return x


def forward(x: Tensor, net: Network) -> Tape:
    """Evaluate the network on x [n, in], keeping what the backward loop needs."""
    tape = Tape([], [])
    h = x
    for weight, bias, activation in zip(net.weights, net.biases, parse(net.activations)):
        a = F.linear(h, weight, bias)
        h = activation.value(a)
        tape.pre.append(a)
        tape.post.append(h)
    return tape


def pushforward(tape: Tape, tangent: Tensor, net: Network) -> Tensor:
    """J·tangent: tangent [..., in] to [..., out], beside the pass in ``tape``."""
    layers = zip(net.weights, parse(net.activations), tape.pre, tape.post)
    for weight, activation, a, h in layers:
        tangent = activation.multiply(a, h, F.linear(tangent, weight))
    return tangent


def pullback(tape: Tape, cotangent: Tensor, net: Network) -> Tensor:
    """Jᵀ·cotangent: cotangent [..., out] to [..., in], through the pass in ``tape``."""
    return pull_to_first(tape, cotangent, net) @ net.weights[0]


def pull_to_first(tape: Tape, cotangent: Tensor, net: Network) -> Tensor:
    """The cotangent of the first layer's pre-activations, [..., out] to [..., H₁]."""
    layers = list(zip(net.weights, parse(net.activations), tape.pre, tape.post))
    for weight, activation, a, h in reversed(layers[1:]):
        cotangent = activation.multiply(a, h, cotangent) @ weight
    _, activation, a, h = layers[0]
    return activation.multiply(a, h, cotangent)


def bytes_per_row(net: Network, like: Tensor) -> int:
    """Bytes that one row's forward and backward pass hold at once, in ``like``'s dtype."""
    widths = [net.in_features, *(weight.shape[0] for weight in net.weights)]
    return like.element_size() * (2 * sum(widths) + 4 * max(widths))
