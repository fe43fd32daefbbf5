"""What is measured of a trained model: its scores, its damage curves, its worst perturbation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaefast import attacks, geometry
from vaefast.audit import Stages
from vaefast.models import VAE
from vaefast.reproduce.khan2023.settings import Plan, Settings
from vaefast.reproduce.mlps import kept_numbers
from vaefast.reproduce.store import Store

__all__ = ["SCALES", "Measured", "measure_model", "measured"]

DIRECTIONS = 5
SCALES = 20  # s from 0.1 to 10, as published but fewer


class Measured(NamedTuple):
    """Of one model, at B inputs, all float64.

    Args:
        loss: of the inputs that training held out, nats.
        radius: λ_1 of the encoder's metric, σ included [B].
        entropy_max, entropy_density: of its spectrum over λ_1, and over its sum, nats [B].
        sigma: σ_1 = √λ_1, as the published path by singular values has it [B].
        error: mean squared error of the reconstruction, without an attack [B].
        curves: mean squared error along direction k at x + s·λ_k·v_k, means over the inputs [k, S].
        scales: s [S].
        along: damage ‖g(μ(x')) − g(μ(x))‖₂ of the better of ±eps·v_1 of the reconstruction [A].
        strongest: damage of the strongest attack of the same ℓ2 norm [A].
    """

    plan: Plan
    loss: float
    radius: np.ndarray
    entropy_max: np.ndarray
    entropy_density: np.ndarray
    sigma: np.ndarray
    error: np.ndarray
    curves: np.ndarray
    scales: np.ndarray
    along: np.ndarray
    strongest: np.ndarray


def measured(
    plan: Plan,
    vae: VAE,
    loss: float,
    x: Tensor,
    settings: Settings,
    store: Store,
    stages: Stages,
) -> Measured:
    """Compute it, or read what is finished."""
    numbers = kept_numbers(plan, len(x), store, stages, lambda: measure_model(vae, x, settings))
    return Measured(plan=plan, loss=loss, **numbers)


def measure_model(vae: VAE, x: Tensor, settings: Settings) -> dict[str, Tensor]:
    """The numbers of :class:`Measured`, by name."""
    scores = geometry.robustness_scores(vae, x, std=True)
    scales = torch.logspace(-1.0, 1.0, SCALES, dtype=torch.float64, device="cpu")
    curve = attacks.damage_curve(vae, x, std=True, directions=DIRECTIONS, scales=scales)
    with torch.no_grad():
        error = (vae.reconstruct(x) - x).flatten(1).double().square().mean(1)
    along, strongest = _damage(vae, x[: settings.attacked], settings)
    return {
        "radius": scores.spectral_radius,
        "entropy_max": scores.entropy_max,
        "entropy_density": scores.entropy_density,
        "sigma": scores.spectral_radius.sqrt(),
        "error": error,
        "curves": curve.damage.mean(0),
        "scales": scales,
        "along": along,
        "strongest": strongest,
    }


def _damage(vae: VAE, x: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Along the top direction, and of the strongest of all attacks, [A] each."""
    how: dict[str, Any] = {"eps": settings.eps, "norm": "l2"}
    step = attacks.geometric(vae, x, of="reconstruction", **how)
    refined = attacks.geometric(
        vae, x, of="reconstruction", directions=2, refine=settings.attack_steps, **how
    )
    climbed = attacks.max_damage(
        vae, x, steps=settings.attack_steps, restarts=settings.restarts, seed=settings.seed, **how
    )
    with torch.no_grad():
        clean = vae.reconstruct(x)
        moved = (vae.reconstruct(climbed.x_adv) - clean).flatten(1).double().norm(dim=1)
    return step.objective, torch.maximum(refined.objective, moved)
