"""The whole of a reproduction: every model trained and measured, kept as it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vaefast import models
from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.reproduce.inputs import check_count, check_images, contents
from vaefast.reproduce.khan2023.measure import Measured, measured
from vaefast.reproduce.khan2023.settings import MIXUP, Settings
from vaefast.reproduce.store import Store, versioned
from vaefast.reproduce.trained import trained

__all__ = ["Reproduction", "check_data", "open_store", "run"]


@dataclass(frozen=True)
class Reproduction:
    """Everything that the table and the page show.

    Args:
        settings: its sizes.
        data: name of the data set.
        models: the β-VAEs by their β, then the mixup model.
    """

    settings: Settings
    data: str
    models: list[Measured]

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


def check_data(data: Dataset, settings: Settings) -> None:
    """Images in [0, 1], as many as the settings want.

    Raises:
        ValueError: others.
    """
    check_images(data, settings.data)
    check_count(data, settings.data, settings.train_inputs)
    if settings.inputs > len(data.x_test):
        raise ValueError(
            f"--inputs must be at most {len(data.x_test)} for --data {settings.data}, got "
            f"{settings.inputs}"
        )


def open_store(folder: Path, data: Dataset, settings: Settings) -> Store:
    """The folder of a run of these settings on these data, with these versions.

    Raises:
        ValueError: it is of another run, or the data are none that a model takes.
        OSError: it cannot be written.
    """
    check_data(data, settings)
    seen = (data.x_train[: settings.train_inputs], data.x_test[: settings.inputs])
    return Store(folder, versioned({**settings.record(), "contents": contents(*seen)}))


def run(data: Dataset, settings: Settings, store: Store, stages: Stages) -> Reproduction:
    """Train and measure what is not finished yet, and gather what is."""
    found = []
    x, event = data.x_train[: settings.train_inputs], tuple(data.x_train.shape[1:])
    for plan in settings.plans:
        vae, loss = trained(
            plan.name,
            plan.title,
            models.MLPVAE(event, settings.hidden, settings.latent, seed=settings.seed),
            plan.objective,
            x,
            store,
            stages,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr=settings.learning_rate,
            seed=settings.seed,
        )
        inputs = data.x_test[: settings.inputs]
        found.append(measured(plan, vae, loss, inputs, settings, store, stages))
    return Reproduction(settings, data.name, found)
