"""What an attack through the defence maximises at the ends of the chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vaefast.attacks.objectives import LatentClassChange
from vaefast.models.prepare import Prepared

__all__ = ["ClassAfter", "ImageDistance", "LatentDistance", "Measure"]

Ends = Callable[[Prepared, Tensor], Tensor]  # defended latents [b·C, d] of images [b, *event]


class Measure(Protocol):
    """A number of each end, larger where the defence fails more; compared with the clean input."""

    @property
    def modules(self) -> tuple[object, ...]:
        """Whose weights it reads, beside the VAE's."""

    def reference(self, part: Prepared, ends: Ends) -> Tensor:
        """What the ends are compared with, [b, ...]."""

    def __call__(self, part: Prepared, z: Tensor, reference: Tensor) -> Tensor:
        """[b·k·C] float64 for z [b·k·C, d], the k points of an input side by side."""


class ImageDistance:
    """‖g(z') − g(z)‖₂, pixel scale; z' and z are ends of chains with the same random numbers."""

    modules: tuple[object, ...] = ()

    def reference(self, part: Prepared, ends: Ends) -> Tensor:
        image = part.maps.g(ends(part, part.x))
        return image.reshape(len(part.x), -1, part.pixels)  # [b, C, D]

    def __call__(self, part: Prepared, z: Tensor, reference: Tensor) -> Tensor:
        image = part.maps.g(z).reshape(*_grouped(z, reference), reference.shape[2])
        damage = image - reference[:, None]
        return torch.linalg.vector_norm(damage, dim=3, dtype=torch.float64).flatten()


@dataclass(frozen=True)
class LatentDistance:
    """‖z' − z‖² of ends with the same random numbers, or −‖z' − z_target‖².

    Args:
        target: [B, *event], or None.
    """

    target: Tensor | None
    modules: tuple[object, ...] = ()

    def reference(self, part: Prepared, ends: Ends) -> Tensor:
        source = part.x if self.target is None else self.target[part.gather]
        return ends(part, source).reshape(len(part.x), -1, part.maps.latents)  # [b, C, d]

    def __call__(self, part: Prepared, z: Tensor, reference: Tensor) -> Tensor:
        z = z.reshape(*_grouped(z, reference), reference.shape[2])
        squared = (z - reference[:, None]).double().square().sum(3).flatten()
        return squared if self.target is None else -squared


@dataclass(frozen=True)
class ClassAfter:
    """How far the strongest other logit at z' lies above that of the class predicted at μ(x).

    Args:
        change: the undefended objective, which knows classifier, classes and sign.
    """

    change: LatentClassChange

    @property
    def modules(self) -> tuple[object, ...]:
        return self.change.modules

    def reference(self, part: Prepared, ends: Ends) -> Tensor:
        return self.change.classes(part)  # [b]

    def __call__(self, part: Prepared, z: Tensor, reference: Tensor) -> Tensor:
        return self.change.difference(z, reference)


def _grouped(z: Tensor, reference: Tensor) -> tuple[int, int, int]:
    """(b, k, C) of z [b·k·C, d] for a reference [b, C, ...]."""
    inputs, chains = reference.shape[:2]
    return inputs, len(z) // max(inputs * chains, 1), chains
