"""How long a reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from vaefast import attacks, hmc, models, training
from vaefast.data import Dataset
from vaefast.reproduce.durations import said_hours, seconds_of
from vaefast.reproduce.kuzina2022.cells import AIMS
from vaefast.reproduce.kuzina2022.search import LEAPFROG
from vaefast.reproduce.kuzina2022.settings import Settings, parse_model

__all__ = ["Duration", "measure"]

ROWS = 128  # of the measured step of training
CHAINS = 32  # of the measured transitions
POINTS = 8  # of the measured steps of the adaptive attack


class Duration(NamedTuple):
    """Seconds of each part of the whole run."""

    training: float
    defence: float
    adaptive: float

    def __str__(self) -> str:
        parts = [f"{name} {said_hours(value)}" for name, value in self._asdict().items()]
        return f"estimate {said_hours(sum(self))}: {', '.join(parts)}"


def measure(data: Dataset, settings: Settings) -> Duration:
    """Train a step, run two transitions and one adaptive step, and scale them up."""
    x = data.x_train[:ROWS]
    vae = models.ConvVAE(tuple(x.shape[1:])).eval()
    inputs = min(settings.train_inputs or len(data.x_train), len(data.x_train))

    def step(name: str) -> None:
        vae, objective = models.ConvVAE(tuple(x.shape[1:])), parse_model(name).objective
        options: dict[str, Any] = {"epochs": 1, "validation": 0.0, "progress": False}
        training.fit(vae, x, objective=objective, batch_size=settings.batch_size, **options)

    each = sum(seconds_of(partial(step, name)) for name in settings.models)
    each *= inputs * settings.epochs / len(x)
    return Duration(each, *_of_cells(vae, data, settings))


def _of_cells(vae: models.VAE, data: Dataset, settings: Settings) -> tuple[float, float]:
    """Seconds of all defences, and of all searches through them."""
    s, x = settings, data.x_test[:CHAINS]
    options: dict[str, Any] = {"schedule": "kuzina2022", "steps": 2, "step_size": s.step_size}
    one = seconds_of(lambda: hmc.defend(vae, x, **options)) / (len(x) * 3)  # a transition
    cells = len(s.models) * len(s.radii)
    choices = (1 + len(s.gradients)) * max(1, s.restarts // 2) / s.restarts
    runs = len(s.models) + cells * (1 + len(AIMS) * (2 + choices))
    defence = one * runs * s.chains_of_a_cell * (s.transitions + s.transitions // 2)
    surrogate: dict[str, Any] = {"steps": 2, "warmup": 0, "leapfrog": LEAPFROG, "adapt": None}
    surrogate["chains"] = s.adaptive_chains
    points = x[:POINTS]

    def attack(gradient: str) -> None:
        options: dict[str, Any] = {"steps": 1, "through_defence": surrogate, "gradient": gradient}
        attacks.max_damage(vae, points, eps=0.1, norm="linf", **options)

    step = sum(seconds_of(partial(attack, name)) for name in s.gradients) / (2 * len(points))
    searches = cells * len(AIMS) * s.references * s.adaptive_steps
    search = step * searches * s.adaptive_transitions
    return defence, search
