"""One model of the grid with what is attacked: its training, its classifier, its references."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast import metrics, models
from vaefast.audit import Stages
from vaefast.audit.stages import CLEAN, sample_reconstruction
from vaefast.data import Dataset
from vaefast.models import VAE
from vaefast.reproduce.kuzina2022.settings import Settings, Training, parse_model
from vaefast.reproduce.store import Store
from vaefast.reproduce.trained import trained

__all__ = ["Subject", "choose_references", "prepare_subject"]

POOL = 1024  # the first test inputs, among which the references are
VALIDATION = 1 / 12  # of the training inputs, as published: 5,000 of 60,000


class Subject(NamedTuple):
    """A trained model and the references it is attacked on."""

    training: Training
    vae: VAE
    classifier: metrics.LatentClassifier
    x: Tensor  # [B, C, H, W]
    reconstruction: Tensor  # [B, C, H, W], of one sample of q(z|x) each
    predicted: Tensor  # [B] int64, class of μ(x)
    loss: float  # of the validation inputs, nats per input

    @property
    def name(self) -> str:
        return self.training.name


def choose_references(y: Tensor, count: int, seed: int) -> Tensor:
    """Numbers of references [count] int64 among the first test inputs, balanced over the classes.

    Raises:
        ValueError: there are not so many.
    """
    y = y[:POOL]
    if count > len(y):
        raise ValueError(f"--references must be at most {len(y)} for these data, got {count}")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    order = torch.randperm(len(y), generator=generator, device="cpu")
    turn = torch.zeros_like(y)  # how many of its class come before
    for label in y.unique():
        rows = order[y[order] == label]
        turn[rows] = torch.arange(len(rows), device="cpu")
    place = torch.argsort(turn[order], stable=True)[:count]
    return order[place].sort().values


def prepare_subject(
    name: str, data: Dataset, settings: Settings, store: Store, stages: Stages
) -> Subject:
    """Train or load the model and its classifier, and look at the references without an attack.

    Raises:
        ValueError: the data have no labels.
    """
    plan = parse_model(name)
    if data.y_train is None or data.y_test is None:
        raise ValueError(f"--data {settings.data} has no labels; the classifier needs them")
    rows = slice(0, settings.train_inputs)
    x_train, y_train = data.x_train[rows], data.y_train[rows]
    fresh = models.ConvVAE(tuple(x_train.shape[1:]), seed=settings.seed)
    options: dict[str, Any] = {"epochs": settings.epochs, "batch_size": settings.batch_size}
    options |= {"lr": settings.learning_rate, "seed": settings.seed, "validation": VALIDATION}
    vae, loss = trained(name, plan.title, fresh, plan.objective, x_train, store, stages, **options)
    classifier = _classifier(plan, vae, x_train, y_train, settings, store, stages)
    x = data.x_test[choose_references(data.y_test, settings.references, settings.seed)]
    with torch.no_grad():
        predicted = classifier.predict(vae.encode(x)[0])
    reconstruction = sample_reconstruction(vae, x, settings.seed, CLEAN)
    return Subject(plan, vae, classifier, x, reconstruction, predicted, loss)


def _classifier(
    plan: Training,
    vae: VAE,
    x: Tensor,
    y: Tensor,
    settings: Settings,
    store: Store,
    stages: Stages,
) -> metrics.LatentClassifier:
    name = f"{plan.name}/classifier"
    if (part := store.read(name)) is None:
        with stages.stage(f"classify {plan.title}", len(x)):
            fitted = metrics.LatentClassifier.fit(vae, x, y, seed=settings.seed)
        tensors = {key: getattr(fitted, key) for key in ("weight", "bias", "classes")}
        part = store.write(name, tensors, {"accuracy": fitted.validation_accuracy})
    return metrics.LatentClassifier(**part.tensors, validation_accuracy=part.facts["accuracy"])
