"""Rivals at equal reconstruction: of each way of training, the β that comes to a given error."""

from __future__ import annotations

import math
from typing import NamedTuple

from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.models import VAE
from vaefast.reproduce.barrett2022.measure import squared_error
from vaefast.reproduce.barrett2022.models import train
from vaefast.reproduce.barrett2022.settings import Plan, Settings
from vaefast.reproduce.store import Store

__all__ = ["Tried", "matched", "next_beta"]

CLOSE = 0.03  # of the error, at which the search ends
STRIDE = 8.0  # of β, until it is bracketed


class Tried(NamedTuple):
    """A trained rival: its plan, the model, and the mean squared error of its reconstructions."""

    plan: Plan
    vae: VAE
    error: float


def matched(
    group: str, target: float, data: Dataset, settings: Settings, store: Store, stages: Stages
) -> list[Tried]:
    """Every training, in its order, the first with β = 1; the nearest in error is the match."""
    x, tried = data.x_test[: settings.scored], list[Tried]()
    while len(tried) < settings.trainings:
        beta = next_beta([(each.plan.level, each.error) for each in tried], target)
        plan = settings.rival(group, beta)
        vae = train(plan, data, settings, store, stages)
        tried.append(Tried(plan, vae, float(squared_error(vae, x).mean())))
        if abs(tried[-1].error / target - 1.0) <= CLOSE:
            break
    return tried


def next_beta(tried: list[tuple[float, float]], target: float) -> float:
    """From pairs of β and error: 1, then strides to either side, then between the nearest.

    The error grows with β; between the two the logarithms are interpolated, and kept off the ends.
    """
    if not tried:
        return 1.0
    below = max((pair for pair in tried if pair[1] < target), default=None)
    above = min((pair for pair in tried if pair[1] >= target), default=None)
    if below is None or above is None or below[0] >= above[0]:
        betas = [beta for beta, _ in tried]
        found = max(betas) * STRIDE if above is None or below is not None else min(betas) / STRIDE
        return _short(found)
    low, high = (math.log(error / target) for error in (below[1], above[1]))
    share = min(max(-low / (high - low), 0.1), 0.9)
    return _short(below[0] * (above[0] / below[0]) ** share)


def _short(beta: float) -> float:
    """Three digits, as its folder is named."""
    return float(f"{beta:.3g}")
