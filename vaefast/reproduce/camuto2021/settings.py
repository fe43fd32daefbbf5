"""What this reproduction does, in numbers: every one that its results depend on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from vaefast import checks
from vaefast.philox import check_seed
from vaefast.reproduce import mlps
from vaefast.reproduce.sizes import Sized, check_positive, option_name
from vaefast.training import BetaELBO

__all__ = ["DEFAULT", "FULL", "Plan", "Settings"]

COUNTS = ("epochs", "batch_size", "latent", "samples", "restarts", "attack_steps")


class Plan(NamedTuple):
    """A model and how it is trained."""

    name: str
    title: str
    objective: BetaELBO

    @property
    def beta(self) -> float:
        return self.objective.beta


@dataclass(frozen=True)
class Settings(Sized):
    """The size of a reproduction of Camuto et al. 2021.

    Args:
        data: name of the data set, or its path.
        betas: of the β-VAEs, three or more.
        train_inputs: the first training inputs; None takes all.
        epochs: passes over them.
        batch_size: inputs of a training step.
        learning_rate: of Adam, at first.
        hidden: widths of the encoder; the decoder has them in reverse order.
        latent: latents d.
        inputs: test inputs whose margins are bounded and searched for.
        r: radius in output space of the event that a margin is of, ℓ2, pixel scale.
        samples: draws of the probability that a bound rests on.
        restarts, attack_steps: of the maximum-damage attack at each radius of the search.
        eps: ℓ2 radius of the attack whose likelihood degradation is measured.
        seed: of every random number.
    """

    data: str
    betas: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0)
    train_inputs: int | None = 20_000
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (512, 512)
    latent: int = 32
    inputs: int = 64
    r: float = 8.0
    samples: int = 2_000
    restarts: int = 3
    attack_steps: int = 30
    eps: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in COUNTS:
            checks.count(getattr(self, name), option_name(name))
        checks.count(self.inputs, "--inputs", 3)  # a rank correlation needs some
        check_seed(self.seed)
        if self.train_inputs is not None:
            checks.count(self.train_inputs, "--train-inputs", 2)
        if len({*self.betas}) < max(3, len(self.betas)):
            raise ValueError(f"--betas must be 3 or more that differ, got {list(self.betas)}")
        positive = [("--eps", self.eps), ("--r", self.r), ("--learning-rate", self.learning_rate)]
        check_positive([*positive, *(("--betas", beta) for beta in self.betas)])

    @property
    def plans(self) -> list[Plan]:
        """The β-VAEs by their β."""
        return [Plan(f"beta-{b:g}", f"β {b:g}", BetaELBO(b)) for b in sorted(self.betas)]

    @classmethod
    def sizes(cls, data: str, *, full: bool) -> dict[str, Any]:
        return FULL if full else mlps.sizes_of(data)


DEFAULT = {field.name: field.default for field in fields(Settings) if field.name != "data"}
FULL: dict[str, Any] = {  # the published sizes are not known; these are what a study would take
    "train_inputs": None,
    "epochs": 100,
    "inputs": 512,
    "samples": 20_000,
    "restarts": 10,
    "attack_steps": 100,
}
