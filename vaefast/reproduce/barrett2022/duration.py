"""How long this reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

from functools import partial
from typing import Any

from vaefast import training
from vaefast.data import Dataset
from vaefast.models import VAE, LipschitzVAE
from vaefast.reproduce.barrett2022.measure import measure_model
from vaefast.reproduce.barrett2022.models import untrained
from vaefast.reproduce.barrett2022.settings import RIVALS, Plan, Settings
from vaefast.reproduce.durations import said_hours, seconds_of

__all__ = ["measure"]

ROWS = 256  # of the measured training
POINTS, FEW = 4, 0.1  # inputs and share of the restarts, steps and draws of the measured attacks


def measure(data: Dataset, settings: Settings) -> str:
    """In words; every rival is taken to need all its trainings."""
    s = settings
    rivals = [s.rival(group, 1.0) for group in RIVALS]
    steps = len(s.plans) * _step(data, s, s.plans[0])
    steps += s.trainings * sum(_step(data, s, plan) for plan in rivals)
    total = min(s.train_inputs or len(data.x_train), len(data.x_train))
    trained = steps * s.epochs * total / ROWS
    plain, whole = (_measuring(data, s, plan) for plan in (s.plans[0], s.plans[-1]))
    attacked = plain * (len(s.plans) - len(s.radii))
    attacked += whole * (len(s.radii) + len(rivals) + 1)
    parts = f"training {said_hours(trained)}, attacks {said_hours(attacked)}"
    return f"estimate {said_hours(trained + attacked)}: {parts}"


def _model(data: Dataset, settings: Settings, plan: Plan) -> VAE:
    return untrained(plan, tuple(data.x_train.shape[1:]), settings)


def _step(data: Dataset, settings: Settings, plan: Plan) -> float:
    """Seconds of an epoch of ``ROWS`` inputs."""
    options: dict[str, Any] = {"batch_size": settings.batch_size, "validation": 0.0, "epochs": 1}
    x = data.x_train[:ROWS]

    def run() -> None:
        vae = _model(data, settings, plan)
        training.fit(vae, x, objective=plan.objective, progress=False, **options)

    return seconds_of(run) * ROWS / len(x)


def _measuring(data: Dataset, settings: Settings, plan: Plan) -> float:
    """Seconds of what is measured of a model, from few inputs, restarts and steps of it."""
    s = settings
    short = {name: max(2, round(FEW * getattr(s, name))) for name in ("restarts", "attack_steps")}
    small = s.with_sizes(inputs=POINTS, scored=POINTS, **short)
    vae = _model(data, s, plan)
    assert isinstance(vae, LipschitzVAE)
    seconds = seconds_of(partial(measure_model, plan, vae.export(), data.x_test, small))
    scale = s.inputs / POINTS
    for name, value in short.items():
        scale *= getattr(s, name) / value
    return seconds * scale
