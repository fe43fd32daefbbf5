"""What experiments on multilayer perceptrons share: their data, their folder, their models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from vaefast import models, training
from vaefast.audit import Stages
from vaefast.data import Dataset
from vaefast.models import VAE
from vaefast.reproduce.durations import said_hours, seconds_of
from vaefast.reproduce.inputs import check_count, check_images, contents
from vaefast.reproduce.store import Store, versioned
from vaefast.reproduce.trained import trained
from vaefast.training import Objective

__all__ = ["check_data", "duration", "kept_numbers", "open_store", "sizes_of", "train"]

ROWS = 256  # of the measured training
POINTS = 16  # of the measured attacks
CIFAR10 = {"train_inputs": 10_000, "epochs": 24}  # its first batch, as many steps as elsewhere


class Plan(Protocol):
    """A model and how it is trained."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def objective(self) -> Objective: ...


class Sizes(Protocol):
    """Settings of such an experiment."""

    @property
    def data(self) -> str: ...
    @property
    def train_inputs(self) -> int | None: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def latent(self) -> int: ...
    @property
    def inputs(self) -> int: ...
    @property
    def seed(self) -> int: ...

    def record(self) -> dict[str, Any]: ...


def sizes_of(data: str) -> dict[str, Any]:
    """What differs from the default size for a data set by its name."""
    return dict(CIFAR10) if data == "cifar10" else {}


def check_data(data: Dataset, settings: Sizes) -> None:
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


def open_store(folder: Path, data: Dataset, settings: Sizes) -> Store:
    """The folder of a run of these settings on these data, with these versions.

    Raises:
        ValueError: it is of another run, or the data are none that a model takes.
        OSError: it cannot be written.
    """
    check_data(data, settings)
    seen = (data.x_train[: settings.train_inputs], data.x_test[: settings.inputs])
    return Store(folder, versioned({**settings.record(), "contents": contents(*seen)}))


def train(
    plan: Plan,
    data: Dataset,
    settings: Sizes,
    store: Store,
    stages: Stages,
    vae: VAE | None = None,
    **options: Any,
) -> tuple[VAE, float]:
    """The model of a plan, with its loss on the inputs that were held out, nats.

    Args:
        vae: untrained; None for the perceptron of these sizes.
        options: further ones of :func:`vaefast.training.fit`.
    """
    return trained(
        plan.name,
        plan.title,
        _model(data, settings) if vae is None else vae,
        plan.objective,
        data.x_train[: settings.train_inputs],
        store,
        stages,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        lr=settings.learning_rate,
        seed=settings.seed,
        **options,
    )


def kept_numbers(
    plan: Plan,
    inputs: int,
    store: Store,
    stages: Stages,
    compute: Callable[[], dict[str, Tensor]],
) -> dict[str, np.ndarray]:
    """What was measured of the model of a plan, by name: computed, or read where it is finished."""
    name = f"{plan.name}/measured"
    part = store.read(name)
    if part is None:
        start = time.perf_counter()
        with stages.stage(f"measure  {plan.title}", inputs):
            tensors = compute()
        part = store.write(name, tensors, {"seconds": time.perf_counter() - start})
    return {key: value.numpy() for key, value in part.tensors.items()}


def duration(
    data: Dataset,
    settings: Sizes,
    objectives: Sequence[Objective],
    attack: Callable[[VAE, Tensor], object],
    attacked: int,
) -> str:
    """How long it will take: train a few steps, attack a few inputs, and scale it up.

    Args:
        objectives: of all models; the first and the last one are measured.
        attack: what is measured of a model at some inputs.
        attacked: how many there are.
    """
    s, x = settings, data.x_train[:ROWS]
    total = min(s.train_inputs or len(data.x_train), len(data.x_train))

    def step(objective: Objective) -> None:
        options: dict[str, Any] = {"batch_size": s.batch_size, "validation": 0.0, "epochs": 1}
        training.fit(_model(data, s), x, objective=objective, progress=False, **options)

    first, last = (seconds_of(partial(step, objectives[k])) for k in (0, -1))
    seconds = (first * (len(objectives) - 1) + last) * s.epochs * total / len(x)
    few = data.x_test[:POINTS]
    attacks = seconds_of(lambda: attack(_model(data, s).eval(), few))
    attacks *= len(objectives) * attacked / len(few)
    parts = f"training {said_hours(seconds)}, attacks {said_hours(attacks)}"
    return f"estimate {said_hours(seconds + attacks)}: {parts}"


def _model(data: Dataset, settings: Sizes) -> VAE:
    event = tuple(data.x_train.shape[1:])
    return models.MLPVAE(event, settings.hidden, settings.latent, seed=settings.seed)
