"""The models of this reproduction: with constants, with a radius, and their rivals without."""

from __future__ import annotations

import math
from typing import Any

from vaefast import models
from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.models import VAE, LipschitzVAE
from vaefast.reproduce.barrett2022.settings import Plan, Settings
from vaefast.reproduce.store import Store
from vaefast.reproduce.trained import trained

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
    s = settings
    promise = {"certified_radius": plan.level, "r": s.r} if plan.group == "radius" else {}
    vae, _ = trained(
        plan.name,
        plan.title,
        untrained(plan, tuple(data.x_train.shape[1:]), s),
        plan.objective,
        data.x_train[: s.train_inputs],
        store,
        stages,
        epochs=s.epochs,
        batch_size=s.batch_size,
        lr=s.learning_rate,
        seed=s.seed,
        **promise,
    )
    return vae.export() if isinstance(vae, LipschitzVAE) else vae
