"""How long this reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

from vaefast.data import Dataset
from vaefast.reproduce import mlps
from vaefast.reproduce.khan2023.measure import measure_model
from vaefast.reproduce.khan2023.settings import Settings

__all__ = ["measure"]


def measure(data: Dataset, settings: Settings) -> str:
    """In words."""
    small = settings.with_sizes(inputs=mlps.POINTS, attacked=mlps.POINTS)
    objectives = [plan.objective for plan in settings.plans]
    return mlps.duration(
        data, settings, objectives, lambda vae, x: measure_model(vae, x, small), settings.attacked
    )
