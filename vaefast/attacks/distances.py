"""Distances of sampled reconstructions from a centre, and their mean as an objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast.attacks.search import ClosedForm
from vaefast.functional.rows import repeated
from vaefast.models.maps import Maps

__all__ = ["Distances", "MeanDistance"]


@dataclass(frozen=True)
class Distances:
    """[b·k, S] float64 distances of the reconstructions of ``point`` [b·k, *event]."""

    maps: Maps

    def __call__(self, point: Tensor, centre: Tensor, noise: Tensor) -> Tensor:
        return _length(_moved(self.images(point, noise), centre))

    def images(self, point: Tensor, noise: Tensor) -> Tensor:
        """[b·k, S, *event]."""
        mean, std = self.maps.posterior(point)
        inputs, samples, latents = noise.shape
        mean, std = (t.reshape(inputs, -1, 1, latents) for t in (mean, std))
        z = mean + std * noise[:, None]  # [b, k, S, d]
        return self.maps.g(z.flatten(0, 2)).unflatten(0, (len(point), samples))


@dataclass(frozen=True)
class MeanDistance(ClosedForm):
    """Its constants are the centres [b, *event] and the noise [b, S, d]."""

    distances: Distances

    def outputs(self, point: Tensor, *constants: Tensor) -> tuple[Tensor, ...]:
        return (self.distances.images(point, constants[1]),)

    def sloped(
        self, outputs: tuple[Tensor, ...], *constants: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """∂g: (g − centre) / (S‖g − centre‖), 0 where that is 0."""
        (images,) = outputs
        moved = _moved(images, constants[0])
        length = _length(moved)
        per_length = (1.0 / (length.shape[1] * length)).masked_fill(length == 0, 0.0)
        return length.mean(1), ((moved * per_length.unsqueeze(-1)).view(images.shape),)


def _moved(images: Tensor, centre: Tensor) -> Tensor:
    """What images [b·k, S, *event] differ by from their centres [b, *event]: [b·k, S, D]."""
    restarts = len(images) // len(centre)
    return images.flatten(2) - repeated(centre.flatten(1), restarts).unsqueeze(1)


def _length(moved: Tensor) -> Tensor:
    """[b·k, S] float64."""
    return torch.linalg.vector_norm(moved, dim=2, dtype=torch.float64)
