"""What is measured of a trained model: the terms of the bound, the margin that an attack leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaefast import attacks, certify, geometry, metrics
from vaefast.audit import Stages
from vaefast.models import VAE
from vaefast.reproduce.camuto2021.settings import Plan, Settings
from vaefast.reproduce.mlps import kept_numbers
from vaefast.reproduce.store import Store

__all__ = ["Measured", "measure_model", "measured"]


class Measured(NamedTuple):
    """Of one model, at B inputs, [B] float64 each.

    Args:
        loss: of the inputs that training held out, nats.
        std: min σ_i.
        jacobian: ‖J_μ‖_F.
        p_lower: of the event ‖g(μ + σ⊙η) − g(μ)‖₂ ≤ r.
        first_order: the published bound min σ·Φ⁻¹(p)/‖J‖_F; 0 where it abstains.
        whitened: Φ⁻¹(p)/‖diag(1/σ)J‖₂.
        attacked: the smallest radius at which an attack broke r-robustness; ∞ where none did.
        degradation: relative loss of log-likelihood under the attack at ``eps``.
    """

    plan: Plan
    loss: float
    std: np.ndarray
    jacobian: np.ndarray
    p_lower: np.ndarray
    first_order: np.ndarray
    whitened: np.ndarray
    attacked: np.ndarray
    degradation: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """[B] bool, points that have a bound and an attack that broke them."""
        good: np.ndarray = (self.first_order > 0) & np.isfinite(self.attacked)
        return good


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
    s = settings
    probability = certify.robust_probability(vae, x, s.r, samples=s.samples, seed=s.seed)
    first, whitened = (
        certify.margin(vae, x, s.r, method=method, probability=probability)
        for method in ("first_order", "whitened")
    )
    search: dict[str, Any] = {"restarts": s.restarts, "steps": s.attack_steps, "seed": s.seed}
    broken = certify.empirical_margin(vae, x, s.r, **search)
    attack = attacks.max_damage(
        vae, x, eps=s.eps, norm="l2", steps=s.attack_steps, restarts=s.restarts, seed=s.seed
    )
    with torch.no_grad():
        std = vae.posterior(x)[1].flatten(1)
    return {
        "std": std.amin(1).double(),
        "jacobian": geometry.frobenius_norm(vae, x).double(),
        "p_lower": probability.p_lower,
        "first_order": first.margin,
        "whitened": whitened.margin,
        "attacked": broken.margin,
        "degradation": metrics.likelihood_degradation(vae, x, attack.x_adv, seed=s.seed),
    }
