"""The whole of a reproduction: every model trained and measured, kept as it is finished."""

from __future__ import annotations

from dataclasses import dataclass

from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.reproduce.barrett2022.matching import matched
from vaefast.reproduce.barrett2022.measure import Measured, measured
from vaefast.reproduce.barrett2022.models import train
from vaefast.reproduce.barrett2022.settings import RIVALS, Settings
from vaefast.reproduce.mlps import check_data, open_store
from vaefast.reproduce.store import Store

__all__ = ["Reproduction", "check_data", "open_store", "run"]


@dataclass(frozen=True)
class Reproduction:
    """Everything that the table and the page show.

    Args:
        settings: its sizes.
        data: name of the data set.
        models: those of the plans, and the rivals at equal reconstruction.
        trainings: of each rival, by the name of its objective.
    """

    settings: Settings
    data: str
    models: list[Measured]
    trainings: dict[str, int]

    def of(self, group: str) -> list[Measured]:
        """The Lipschitz VAEs of a group, by their level."""
        return [model for model in self.models if model.plan.group == group]

    @property
    def lipschitz(self) -> list[Measured]:
        return [model for model in self.models if model.plan.lipschitz]

    @property
    def standard(self) -> Measured:
        """The VAE without constants that the paper compares with."""
        return self.of("standard")[0]

    @property
    def target(self) -> Measured:
        """The Lipschitz VAE whose reconstruction the rivals were brought to."""
        return self.of("radius")[0]

    @property
    def rivals(self) -> list[Measured]:
        """One of each way of training, the nearest to that reconstruction."""
        return [self.of(group)[0] for group in RIVALS]


def run(data: Dataset, settings: Settings, store: Store, stages: Stages) -> Reproduction:
    """Train and measure what is not finished yet, and gather what is."""
    x, found = data.x_test[: max(settings.inputs, settings.scored)], list[Measured]()
    for plan in settings.plans:
        vae = train(plan, data, settings, store, stages)
        found.append(measured(plan, vae, x, settings, store, stages))
    target = float(next(m for m in found if m.plan.group == "radius").error.mean())
    trainings = {}
    for group in RIVALS:
        tried = matched(group, target, data, settings, store, stages)
        nearest = min(tried, key=lambda each: abs(each.error - target))
        found.append(measured(nearest.plan, nearest.vae, x, settings, store, stages))
        trainings[group] = len(tried)
    return Reproduction(settings, data.name, found, trainings)
