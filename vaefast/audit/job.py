"""What an audit works on: the model, the inputs and their box, and the attacks that are planned."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import metrics
from vaefast.audit.progress import Stages
from vaefast.audit.settings import AuditSettings
from vaefast.models import VAE

__all__ = ["NAMES", "NORMS", "Job", "Plan", "plans"]

NAMES = {"latent": "latent", "max_damage": "maximum damage"}
NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}


class Job(NamedTuple):
    """What every stage needs."""

    vae: VAE
    x: Tensor  # [B, *event]
    settings: AuditSettings
    stages: Stages
    low: float = 0.0  # smallest and largest valid entry
    high: float = 1.0

    @property
    def measure(self) -> str:
        """How reconstructions are compared: by structural similarity, or where inputs are no
        images or have no box by the ℓ2 distance.
        """
        return "msssim" if self.x.ndim == 4 and math.isfinite(self.high - self.low) else "distance"

    def compared(self, a: Tensor, b: Tensor) -> Tensor:
        """That measure of each pair [B, *event], [B] float64."""
        if self.measure == "distance":
            return torch.linalg.vector_norm((a.double() - b.double()).flatten(1), dim=1)
        return metrics.msssim(self._unit(a), self._unit(b)).value

    def _unit(self, x: Tensor) -> Tensor:
        """The box mapped to [0, 1], for which structural similarity is defined."""
        if (self.low, self.high) == (0.0, 1.0):
            return x
        return (x - self.low) / (self.high - self.low)


class Plan(NamedTuple):
    """One attack at one radius."""

    attack: str  # "latent" or "max_damage"
    norm: str
    eps: float  # per pixel, as asked for
    radius: float  # in the attack's norm

    @property
    def name(self) -> str:
        """As in the columns of results.parquet."""
        return f"{self.attack}_{self.norm}_{self.radius:.4g}"

    @property
    def title(self) -> str:
        return f"{NAMES[self.attack]}, {NORMS[self.norm]} {self.radius:.3g}"

    def objective_unit(self, settings: AuditSettings) -> str:
        if self.attack == "max_damage":
            return "pixel scale"
        return "latent²" if settings.divergence in ("means", "w2") else "nats"


def plans(settings: AuditSettings, pixels: int) -> list[Plan]:
    """The latent attack (ℓ∞) and the maximum-damage attack (ℓ2), each at every radius."""
    root = math.sqrt(pixels)
    latent = [Plan("latent", "linf", eps, eps) for eps in settings.eps]
    return latent + [Plan("max_damage", "l2", eps, eps * root) for eps in settings.eps]
