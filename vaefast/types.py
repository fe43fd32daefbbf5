"""Plain-tensor descriptions that every floor shares: an MLP and the likelihood names."""

from __future__ import annotations

from typing import Any, NamedTuple

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
        packed: the layers as one backend's kernels stream them, from ``pack``; None: packed anew in
            each call. It holds weights and biases, so the activations may change beside it.
    """

    weights: list[Tensor]
    biases: list[Tensor | None]
    activations: str
    packed: Tensor | None = None

    @property
    def in_features(self) -> int:
        return self.weights[0].shape[1]

    @property
    def out_features(self) -> int:
        return self.weights[-1].shape[0]

    def with_epilogue(self, activation: str) -> MLP:
        """The same network with another activation after its last layer."""
        names = self.activations.split(",")
        activations = ",".join([*names[:-1], activation])
        return MLP(self.weights, self.biases, activations, self.packed)


_plain_replace = MLP._replace


def _replace(self: MLP, **changes: Any) -> MLP:
    """As for any named tuple, but other weights or biases leave the pack of these behind."""
    if changes.keys() & {"weights", "biases"}:
        changes.setdefault("packed", None)
    return _plain_replace(self, **changes)


MLP._replace = _replace  # type: ignore[assignment]  # a NamedTuple's body may not define it
