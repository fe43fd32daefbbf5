"""How long this reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

from vaefast.data import Dataset
from vaefast.reproduce import mlps
from vaefast.reproduce.camuto2021.measure import measure_model
from vaefast.reproduce.camuto2021.settings import Settings

__all__ = ["measure"]


def measure(data: Dataset, settings: Settings) -> str:
    """In words."""
    objectives = [plan.objective for plan in settings.plans]
    return mlps.duration(
        data, settings, objectives, lambda vae, x: measure_model(vae, x, settings), settings.inputs
    )
