"""The models of this reproduction: with constants, with a radius, and their rivals without."""

from __future__ import annotations

import math
from typing import Any

from vaefast import models
from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.models import VAE, LipschitzVAE
from vaefast.reproduce import mlps
from vaefast.reproduce.barrett2022.settings import Plan, Settings
from vaefast.reproduce.store import Store

__all__ = ["SIGMOID", "train", "untrained"]

SIGMOID = 0.25  # its Lipschitz constant: L before it is L/4 with it


def untrained(plan: Plan, event: tuple[int, ...], settings: Settings) -> VAE:
    """Of the event shape; all have the same widths and latents."""
    s = settings
    sizes: dict[str, Any] = {"hidden": s.hidden, "latent": s.latent, "seed": s.seed}
    sizes["likelihood"] = plan.likelihood
    if plan.group == "constant":
        a = SIGMOID * plan.level
        return LipschitzVAE(event, a, plan.level, a, std_norm=s.std_norm, **sizes)
    if plan.group == "std":
        std = plan.level / math.sqrt(s.latent)
        return LipschitzVAE(event, SIGMOID * s.std_constant, s.std_constant, fixed_std=std, **sizes)
    if plan.group == "radius":
        return LipschitzVAE(event, **sizes)
    return models.MLPVAE(event, activation="relu", **sizes)


def train(plan: Plan, data: Dataset, settings: Settings, store: Store, stages: Stages) -> VAE:
    """The trained model of a plan, made of torch's layers."""
    promise = {"certified_radius": plan.level, "r": settings.r} if plan.group == "radius" else {}
    own = untrained(plan, tuple(data.x_train.shape[1:]), settings)
    vae, _ = mlps.train(plan, data, settings, store, stages, own, **promise)
    return vae.export() if isinstance(vae, LipschitzVAE) else vae
