"""Plain-tensor descriptions that every floor shares: a network and the likelihood names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["LIKELIHOODS", "Network"]

LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli")


class _Fields(NamedTuple):
    weights: list[Tensor]
    biases: list[Tensor | None]
    layers: list[str]
    packed: Tensor | None = None


class Network(_Fields):
    """A network as plain tensors, ``h ← activation(layer(h))`` layer by layer.

    Args:
        weights: one tensor per layer: [out, in] of a linear layer, as in ``nn.Linear``.
        biases: one [out] vector or ``None`` per layer.
        layers: one description per layer, its kind and its activation, as in ``"linear tanh"``;
            an activation's parameters follow a colon, as in ``"linear leaky_relu:0.01"``. The last
            activation is the epilogue.
        packed: the layers as one backend's kernels stream them, from ``pack``; None: packed anew in
            each call. It holds weights and biases, so the activations may change beside it.
    """

    __slots__ = ()

    @classmethod
    def mlp(
        cls, weights: Sequence[Tensor], biases: Sequence[Tensor | None], activations: str
    ) -> Network:
        """A multilayer perceptron; ``activations`` names one per layer, comma separated."""
        layers = [f"linear {name.strip()}" for name in activations.split(",")]
        return cls(list(weights), list(biases), layers)

    @property
    def in_features(self) -> int:
        return self.weights[0].shape[1]

    @property
    def out_features(self) -> int:
        return self.weights[-1].shape[0]

    @property
    def activations(self) -> list[str]:
        """One activation per layer, with its parameter."""
        return [layer.split()[-1] for layer in self.layers]

    def with_epilogue(self, activation: str) -> Network:
        """The same network with another activation after its last layer."""
        *before, last = self.layers
        layers = [*before, " ".join([*last.split()[:-1], activation])]
        return Network(self.weights, self.biases, layers, self.packed)

    def _replace(self, **changes: Any) -> Network:
        """As for any named tuple, but other weights or biases leave the pack of these behind."""
        if changes.keys() & {"weights", "biases"}:
            changes.setdefault("packed", None)
        return super()._replace(**changes)
