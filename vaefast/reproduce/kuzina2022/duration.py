"""How long a reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from vaefast import attacks, hmc, models, training
from vaefast.data import Dataset
from vaefast.reproduce.durations import said_hours, seconds_of
from vaefast.reproduce.kuzina2022.bound import LADDER, LONG
from vaefast.reproduce.kuzina2022.cells import AIMS
from vaefast.reproduce.kuzina2022.search import LEAPFROG
from vaefast.reproduce.kuzina2022.settings import Settings, parse_model

__all__ = ["Duration", "measure"]

ROWS = 128  # of the measured step of training
CHAINS = 32  # of the measured transitions
POINTS = 8  # of the measured steps of the adaptive attack
STEPS = 2  # of the measured attacks, of the adaptive one beyond its first
SCALED = ("temperatures", "steps", "warmup")  # sizes of the bound, proportional to its time


class Duration(NamedTuple):
    """Seconds of each part of the whole run."""

    training: float
    attacks: float  # the published one, and those of an aim on the model alone
    defence: float
    adaptive: float
    bound: float

    def __str__(self) -> str:
        parts = [f"{name} {said_hours(value)}" for name, value in self._asdict().items()]
        return f"estimate {said_hours(sum(self))}: {', '.join(parts)}"


def measure(data: Dataset, settings: Settings) -> Duration:
    """Train a step, attack by some, defend by two transitions, bound by a few; scale them up."""
    x = data.x_train[:ROWS]
    vae = models.ConvVAE(tuple(x.shape[1:])).eval()
    inputs = min(settings.train_inputs or len(data.x_train), len(data.x_train))

    def step(name: str) -> None:
        vae, objective = models.ConvVAE(tuple(x.shape[1:])), parse_model(name).objective
        options: dict[str, Any] = {"epochs": 1, "validation": 0.0, "progress": False}
        training.fit(vae, x, objective=objective, batch_size=settings.batch_size, **options)

    each = sum(seconds_of(partial(step, name)) for name in settings.models)
    each *= inputs * settings.epochs / len(x)
    of_cells = _of_defences(vae, data, settings), _of_searches(vae, data, settings)
    return Duration(
        each, _of_attacks(vae, data, settings), *of_cells, _of_bound(vae, data, settings)
    )


def _of_attacks(vae: models.VAE, data: Dataset, settings: Settings) -> float:
    """Seconds of the attacks that go through the model alone."""
    s, x = settings, data.x_test[:CHAINS]
    options: dict[str, Any] = {"eps": 0.1, "norm": "linf", "steps": STEPS}

    def all_three() -> None:
        for _ in range(2):  # the published one, and that at the class
            attacks.latent(vae, x, **options)
        attacks.max_damage(vae, x, fresh_samples=1, **options)

    steps = len(s.models) * len(s.radii) * s.chains_of_a_cell * s.attack_steps
    return seconds_of(all_three) * steps / (STEPS * len(x))


def _of_bound(vae: models.VAE, data: Dataset, settings: Settings) -> float:
    """Seconds of the total-variation bound, from one with a few temperatures and transitions."""
    if not settings.bound_references:
        return 0.0
    x, times = data.x_test[:1], 10
    sizes = {**LADDER, **LONG}
    few = sizes | {name: max(1, sizes[name] // times) for name in SCALED}
    at = [max(1, settings.transitions // times)]
    one = seconds_of(lambda: hmc.tv_bound(vae, x, x, at=at, **few))
    return one * times * settings.bound_references


def _of_defences(vae: models.VAE, data: Dataset, settings: Settings) -> float:
    """Seconds of all defences."""
    s, x = settings, data.x_test[:CHAINS]
    options: dict[str, Any] = {"schedule": "kuzina2022", "steps": 2, "step_size": s.step_size}
    one = seconds_of(lambda: hmc.defend(vae, x, **options)) / (len(x) * 3)  # a transition
    cells = len(s.models) * len(s.radii)
    choices = (2 + len(s.gradients)) * max(1, s.restarts // 2) / s.restarts
    runs = len(s.models) + cells * (1 + len(AIMS) * (3 + choices))
    return one * runs * s.chains_of_a_cell * (s.transitions + s.transitions // 2)


def _of_searches(vae: models.VAE, data: Dataset, settings: Settings) -> float:
    """Seconds of all searches through the defence."""
    s, points = settings, data.x_test[:POINTS]
    surrogate: dict[str, Any] = {"steps": 2, "warmup": 0, "leapfrog": LEAPFROG, "adapt": None}
    surrogate["chains"] = s.adaptive_chains

    def attack(gradient: str, steps: int) -> None:
        options: dict[str, Any] = {"through_defence": surrogate, "gradient": gradient}
        attacks.max_damage(vae, points, eps=0.1, norm="linf", steps=steps, **options)

    def beyond_one(gradient: str) -> float:  # chains at x and of the report are no step's
        one, more = (seconds_of(partial(attack, gradient, steps)) for steps in (1, 1 + STEPS))
        return max(more - one, 0.1 * one) / STEPS

    step = sum(map(beyond_one, s.gradients)) / (2 * len(points))
    cells = len(s.models) * len(s.radii) * len(AIMS)
    return step * cells * s.references * s.adaptive_steps * s.adaptive_transitions
