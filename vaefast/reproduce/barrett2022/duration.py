"""How long this reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

import math
import time
from typing import Any

from vaefast import training
from vaefast.data import Dataset
from vaefast.models import VAE, LipschitzVAE
from vaefast.reproduce.barrett2022.measure import measure_model
from vaefast.reproduce.barrett2022.models import untrained
from vaefast.reproduce.barrett2022.settings import RIVALS, Plan, Settings
from vaefast.reproduce.durations import said_hours, seconds_of

__all__ = ["measure"]

STEPS = 4  # of the measured training
POINTS = 4  # inputs of the measured attacks
FEW, MORE = (2, 20), (12, 120)  # their gradient steps and draws, between which a line is drawn


def measure(data: Dataset, settings: Settings) -> str:
    """In words; every rival is taken to need all its trainings."""
    s, rivals = settings, [settings.rival(group, 1.0) for group in RIVALS]
    steps = len(s.plans) * _step(data, s, s.plans[0])
    steps += s.trainings * sum(_step(data, s, plan) for plan in rivals)
    total = min(s.train_inputs or len(data.x_train), len(data.x_train))
    trained = steps * s.epochs * math.ceil(total / s.batch_size)
    plain, whole = (_measuring(data, s, plan) for plan in (s.plans[0], s.plans[-1]))
    attacked = plain * (len(s.plans) - len(s.radii))
    attacked += whole * (len(s.radii) + len(rivals))
    parts = f"training {said_hours(trained)}, attacks {said_hours(attacked)}"
    return f"estimate {said_hours(trained + attacked)}: {parts}"


def _model(data: Dataset, settings: Settings, plan: Plan) -> VAE:
    return untrained(plan, tuple(data.x_train.shape[1:]), settings)


def _step(data: Dataset, settings: Settings, plan: Plan) -> float:
    """Seconds of a training step."""
    options: dict[str, Any] = {"batch_size": settings.batch_size, "validation": 0.0, "epochs": 1}
    x = data.x_train[: STEPS * settings.batch_size]

    def run() -> None:
        vae = _model(data, settings, plan)
        training.fit(vae, x, objective=plan.objective, progress=False, **options)

    return seconds_of(run) / math.ceil(len(x) / settings.batch_size)


def _measuring(data: Dataset, settings: Settings, plan: Plan) -> float:
    """Seconds of what is measured of a model: steps and draws cost in proportion to the inputs."""
    s, vae = settings, _model(data, settings, plan)
    assert isinstance(vae, LipschitzVAE)
    exported = vae.export()

    def seconds(steps: int, draws: int) -> float:
        small = s.with_sizes(inputs=POINTS, scored=POINTS, attack_steps=steps, samples=draws)
        start = time.perf_counter()
        measure_model(plan, exported, data.x_test, small)
        return time.perf_counter() - start

    seconds(*FEW)  # packs and allocates
    least = seconds(*FEW)
    step = max(seconds(MORE[0], FEW[1]) - least, 0.0) / (MORE[0] - FEW[0])
    draw = max(seconds(FEW[0], MORE[1]) - least, 0.0) / (MORE[1] - FEW[1])
    more = step * (s.attack_steps - FEW[0]) + draw * (s.samples - FEW[1])
    return least + max(more, 0.0) * s.inputs / POINTS
