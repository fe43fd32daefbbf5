"""Searches with the aim of the adaptive attack: through the defence, and knowing nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaefast import attacks
from vaefast.reproduce.kuzina2022.cells import Aim
from vaefast.reproduce.kuzina2022.settings import Settings
from vaefast.reproduce.kuzina2022.subject import Subject

__all__ = ["search", "search_undefended"]

AT_ONCE = 16  # references of a call, between two moves of a progress bar
LEAPFROG = 20


def search(
    subject: Subject,
    settings: Settings,
    aim: Aim,
    radius: float,
    gradient: str,
    step_size: float,
    done: Callable[[int], None],
) -> Tensor:
    """Points [B, C, H, W] that one gradient finds against the image or the class.

    It goes along chains shorter than the defence's own, with a step size that is held, the one
    that the defence found on clean inputs: where it is adapted, so few transitions would all be
    warm-up.
    """
    s = settings
    surrogate: dict[str, Any] = {"steps": s.adaptive_transitions, "warmup": 0, "leapfrog": LEAPFROG}
    surrogate |= {"chains": s.adaptive_chains, "step_size": step_size, "adapt": None, "jitter": 0.0}
    options = {"steps": s.adaptive_steps, "through_defence": surrogate, "gradient": gradient}
    return _attacked(subject, s, aim, radius, options, done)


def search_undefended(
    subject: Subject, settings: Settings, aim: Aim, radius: float, done: Callable[[int], None]
) -> Tensor:
    """Points [B, C, H, W] against the image or the class of the model alone.

    With the steps and restarts of the published attack, of which the best by its own objective is
    returned: it knows nothing of the defence.
    """
    options = {"steps": settings.attack_steps, "restarts": settings.restarts}
    return _attacked(subject, settings, aim, radius, options, done)


def _attacked(
    subject: Subject,
    settings: Settings,
    aim: Aim,
    radius: float,
    options: dict[str, Any],
    done: Callable[[int], None],
) -> Tensor:
    """Where the distance of reconstructions, or the classifier, is attacked; [B, C, H, W]."""
    options = {"eps": radius, "norm": "linf", "seed": settings.seed, **options}
    attack: Callable[..., attacks.AttackResult] = attacks.max_damage
    if aim.metric == "same":
        attack = attacks.latent
        options |= {"divergence": "clf", "classifier": subject.classifier}
    found = []
    for index in torch.arange(len(subject.x), device="cpu").split(AT_ONCE):
        result = attack(subject.vae, subject.x[index], index=index, **options)
        found.append(result.x_adv)
        done(len(index))
    return torch.cat(found)
