"""A model of an experiment, trained once: a killed training goes on, a finished one is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vaefast import models, training
from vaefast.audit import Stages
from vaefast.models import VAE
from vaefast.reproduce.store import Store
from vaefast.training import Objective, Step

__all__ = ["trained"]


@dataclass(frozen=True)
class _Watched:
    """An objective that tells a progress bar how many inputs a step saw."""

    objective: Objective
    advance: Callable[[int], None] = field(repr=False)

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        if step.training:
            self.advance(len(x))
        return self.objective.terms(vae, x, step)


def trained(
    name: str,
    title: str,
    vae: VAE,
    objective: Objective,
    x: Tensor,
    store: Store,
    stages: Stages,
    *,
    epochs: int,
    **options: Any,
) -> tuple[VAE, float]:
    """The model in evaluation mode, with its loss on the inputs that were held out, nats.

    Args:
        name: folder of its parts in the store.
        title: for the progress.
        vae: untrained.
        options: of :func:`vaefast.training.fit`.
    """
    kept = store.path(f"{name}/model")
    if (part := store.read(f"{name}/training")) is not None and kept.exists():
        return models.load(kept).eval(), part.facts["loss"]
    checkpoint = store.path(f"{name}/checkpoint")
    if checkpoint.exists():
        stages.console.print(f"train    {title} goes on from {checkpoint}", soft_wrap=True)
    start = time.perf_counter()
    with stages.stage(f"train    {title}", epochs * len(x), "seen inputs") as advance:
        history = training.fit(
            vae,
            x,
            objective=_Watched(objective, advance),
            epochs=epochs,
            progress=False,
            checkpoint=checkpoint,
            checkpoint_minutes=0.5,
            **options,
        )
    models.save(vae.eval(), kept)
    facts = {"loss": history.validation[-1], "seconds": time.perf_counter() - start}
    store.write(f"{name}/training", {}, facts)
    checkpoint.unlink()
    return vae, history.validation[-1]
