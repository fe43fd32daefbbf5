"""The whole of a reproduction: every model trained and measured, kept as it is finished."""

from __future__ import annotations

from dataclasses import dataclass

from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.reproduce.khan2023.measure import Measured, measured
from vaefast.reproduce.khan2023.settings import MIXUP, Settings
from vaefast.reproduce.mlps import check_data, open_store, train
from vaefast.reproduce.store import Store

__all__ = ["Reproduction", "check_data", "open_store", "run"]


@dataclass(frozen=True)
class Reproduction:
    """Everything that the table and the page show.

    Args:
        settings: its sizes.
        data: name of the data set.
        models: the β-VAEs by their β, then the mixup model.
        note: what must be said of the data, "" if nothing.
    """

    settings: Settings
    data: str
    models: list[Measured]
    note: str = ""

    @property
    def raised(self) -> list[Measured]:
        """The β-VAEs, by their β."""
        return [model for model in self.models if not model.plan.mixup]

    @property
    def mixup(self) -> Measured:
        return next(model for model in self.models if model.plan.name == MIXUP)

    @property
    def plain(self) -> Measured:
        """The β-VAE with β = 1."""
        return next(model for model in self.raised if model.plan.beta == 1.0)


def run(data: Dataset, settings: Settings, store: Store, stages: Stages) -> Reproduction:
    """Train and measure what is not finished yet, and gather what is."""
    found, inputs = [], data.x_test[: settings.inputs]
    for plan in settings.plans:
        vae, loss = train(plan, data, settings, store, stages)
        found.append(measured(plan, vae, loss, inputs, settings, store, stages))
    return Reproduction(settings, data.name, found, data.note)
