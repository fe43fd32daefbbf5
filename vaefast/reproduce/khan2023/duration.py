"""How long a reproduction will take, from a short measurement of its parts."""

from __future__ import annotations

from functools import partial

from vaefast import models
from vaefast.data import Dataset
from vaefast.reproduce.durations import said_hours, seconds_of
from vaefast.reproduce.khan2023.measure import measure_model
from vaefast.reproduce.khan2023.settings import Settings
from vaefast.training import fit

__all__ = ["measure"]

ROWS = 256  # of the measured training
POINTS = 16  # of the measured attacks


def measure(data: Dataset, settings: Settings) -> str:
    """Train a few steps of each model, attack a few inputs, and scale it up."""
    s, x = settings, data.x_train[:ROWS]
    total = min(s.train_inputs or len(data.x_train), len(data.x_train))

    def model() -> models.VAE:
        return models.MLPVAE(tuple(x.shape[1:]), s.hidden, s.latent).eval()

    def step(which: int) -> None:
        plan = s.plans[which]
        fit(
            model(),
            x,
            objective=plan.objective,
            epochs=1,
            batch_size=s.batch_size,
            validation=0.0,
            progress=False,
        )

    plain, mixed = (seconds_of(partial(step, which)) for which in (0, -1))
    training = (plain * len(s.betas) + mixed) * s.epochs * total / len(x)
    few = data.x_test[:POINTS]
    small = s.with_sizes(inputs=POINTS, attacked=POINTS)
    attack = seconds_of(lambda: measure_model(model(), few, small))
    attacks = attack * len(s.plans) * s.attacked / len(few)
    whole = said_hours(training + attacks)
    return f"estimate {whole}: training {said_hours(training)}, attacks {said_hours(attacks)}"
