"""What this reproduction does, in numbers: every one that its results depend on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from vaefast import checks
from vaefast.philox import check_seed
from vaefast.reproduce import mlps
from vaefast.reproduce.sizes import Sized, check_positive, option_name
from vaefast.training import BetaELBO, Mixup, Objective

__all__ = ["DEFAULT", "FULL", "MIXUP", "Plan", "Settings"]

MIXUP = "mixup"
COUNTS = ("epochs", "batch_size", "latent", "inputs", "attacked", "attack_steps", "restarts")


class Plan(NamedTuple):
    """A model and how it is trained.

    Args:
        beta: weight of the KL term.
        mixup: whether it is the mixup model.
    """

    name: str
    title: str
    objective: Objective
    beta: float
    mixup: bool = False


@dataclass(frozen=True)
class Settings(Sized):
    """The size of a reproduction of Khan, Storkey 2023.

    Args:
        data: name of the data set, or its path.
        betas: of the β-VAEs; 1 is among them, for mixup is compared with it.
        train_inputs: the first training inputs; None takes all.
        epochs: passes over them.
        batch_size: inputs of a training step.
        learning_rate: of Adam, at first.
        hidden: widths of the encoder; the decoder has them in reverse order.
        latent: latents d.
        inputs: test inputs whose metric is scored and whose damage curves are drawn.
        attacked: of these, the first ones, which the strongest attack is run on.
        eps: its radius, ℓ2, pixel scale; also the length of a step along the top direction.
        attack_steps, restarts: of that attack, beside a restart along the top directions.
        seed: of every random number.
    """

    data: str
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0, 7.0, 10.0)
    train_inputs: int | None = 20_000
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (512, 512)
    latent: int = 32
    inputs: int = 512
    attacked: int = 128
    eps: float = 2.0
    attack_steps: int = 50
    restarts: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in COUNTS:
            checks.count(getattr(self, name), option_name(name), 2 if name == "attacked" else 1)
        check_seed(self.seed)
        if self.train_inputs is not None:
            checks.count(self.train_inputs, "--train-inputs", 2)
        if self.attacked > self.inputs:
            raise ValueError(
                f"--attacked must be at most --inputs, got {self.attacked} of {self.inputs}"
            )
        if len({*self.betas}) < len(self.betas) or len(self.betas) < 3 or 1.0 not in self.betas:
            raise ValueError(
                f"--betas must be 3 or more that differ, 1 among them, got {list(self.betas)}"
            )
        positive = [("--eps", self.eps), ("--learning-rate", self.learning_rate)]
        check_positive([*positive, *(("--betas", beta) for beta in self.betas)])

    @property
    def plans(self) -> list[Plan]:
        """The β-VAEs by their β, and the mixup model, which has β = 1."""
        plans = [Plan(f"beta-{b:g}", f"β {b:g}", BetaELBO(b), b) for b in sorted(self.betas)]
        return [*plans, Plan(MIXUP, "mixup, β 1", Mixup(), 1.0, mixup=True)]

    @classmethod
    def sizes(cls, data: str, *, full: bool) -> dict[str, Any]:
        return FULL if full else mlps.sizes_of(data)


DEFAULT = {field.name: field.default for field in fields(Settings) if field.name != "data"}
FULL: dict[str, Any] = {  # 50 values of β and 3,072 images as published; 1 beside them
    "train_inputs": None,
    "betas": (*(float(f"{10 ** (-2 + 3 * k / 49):.3g}") for k in range(50)), 1.0),
    "epochs": 100,
    "inputs": 3072,
    "attacked": 512,
}
