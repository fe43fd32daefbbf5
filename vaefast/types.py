"""Plain-tensor descriptions that every floor shares: an MLP and the likelihood names."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["LIKELIHOODS", "MLP"]

LIKELIHOODS = ("bernoulli", "gaussian", "continuous_bernoulli", "clamped_bernoulli")


class MLP(NamedTuple):
    """A multilayer perceptron as plain tensors, ``h ← activation(W h + b)`` layer by layer.

    Args:
        weights: one [out, in] matrix per layer, as in ``nn.Linear``.
        biases: one [out] vector or ``None`` per layer.
        activations: one name per layer, comma separated; parameters follow a colon,
            as in ``"leaky_relu:0.01,tanh,sigmoid"``. The last one is the epilogue.
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    activations: str

    @property
    def in_features(self) -> int:
        return self.weights[0].shape[1]

    @property
    def out_features(self) -> int:
        return self.weights[-1].shape[0]

    def with_epilogue(self, activation: str) -> MLP:
        """The same network with another activation after its last layer."""
        names = self.activations.split(",")
        return self._replace(activations=",".join([*names[:-1], activation]))
