"""What a reproduction does, in numbers: every one that its results depend on."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from vaefast import checks
from vaefast.hmc import KUZINA2022
from vaefast.philox import check_seed
from vaefast.reproduce.sizes import Sized, check_positive, option_name
from vaefast.training import TCVAE, BetaELBO, Objective

__all__ = ["DEFAULT", "FULL", "Settings", "Training", "parse_model"]

COUNTS = (
    *("epochs", "batch_size", "restarts", "attack_steps", "transitions"),
    *("adaptive_steps", "adaptive_chains"),
)
GRADIENTS = ("chain", "posterior", "spsa")
MODEL = re.compile(r"(beta|tcvae)-(\d+(?:\.\d+)?)")


class Training(NamedTuple):
    """How a model of the grid is trained."""

    name: str
    title: str
    objective: Objective


def parse_model(name: str) -> Training:
    """``vae``, ``beta-5`` or ``tcvae-5``.

    Raises:
        ValueError: no name of this kind.
    """
    if name == "vae":
        return Training(name, "VAE", BetaELBO(1.0))
    found = MODEL.fullmatch(name)
    if found is None:
        raise ValueError(f"--models knows vae, beta-WEIGHT and tcvae-WEIGHT, got {name!r}")
    kind, weight = found[1], float(found[2])
    if kind == "beta":
        return Training(name, f"β-VAE, β {weight:g}", BetaELBO(weight))
    return Training(name, f"β-TCVAE, β {weight:g}", TCVAE(weight))


@dataclass(frozen=True)
class Settings(Sized):
    """The size of a reproduction of Kuzina et al. 2022.

    Args:
        data: name of the data set, or its path.
        models: names as :func:`parse_model` takes them.
        radii: of the attacks, ℓ∞, pixel scale.
        train_inputs: the first training inputs; None takes all.
        epochs: passes over them.
        batch_size: inputs of a training step.
        learning_rate: of Adam, at first.
        references: test inputs that are attacked.
        restarts: adversarial inputs per reference, one chain each.
        attack_steps: gradient steps of the published attack.
        transitions: T; the published schedule runs T // 2 more before them.
        step_size: η₀ of the chains.
        adaptive_steps: gradient steps of the attack through the defence.
        adaptive_transitions: of the shorter chains that it goes through.
        adaptive_chains: of these, per reference, with random numbers of their own.
        gradients: of the attack through the defence, each of which searches.
        bound_references: of the first model, whose total-variation bound is computed; 0: none.
        seed: of every random number.
    """

    data: str
    models: tuple[str, ...] = ("vae", "beta-5", "tcvae-5")
    radii: tuple[float, ...] = (0.1, 0.2)
    train_inputs: int | None = 12_000
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    references: int = 8
    restarts: int = 4
    attack_steps: int = 50
    transitions: int = 60
    step_size: float = 0.1
    adaptive_steps: int = 10
    adaptive_transitions: int = 20
    adaptive_chains: int = 2
    gradients: tuple[str, ...] = ("chain", "posterior")
    bound_references: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in COUNTS:
            checks.count(getattr(self, name), option_name(name))
        checks.count(self.references, "--references", 2)  # a standard error needs two
        covariances = "posterior" in self.gradients  # of a chain's draws: one has none
        checks.count(self.adaptive_transitions, "--adaptive-transitions", 1 + covariances)
        if self.train_inputs is not None:
            checks.count(self.train_inputs, "--train-inputs", 2)
        check_seed(self.seed)
        for name in self.models:
            parse_model(name)
        if not self.models or len({*self.models}) < len(self.models):
            raise ValueError(f"--models must differ, got {', '.join(self.models) or 'none'}")
        if not self.radii or len({*self.radii}) < len(self.radii):
            raise ValueError(f"--radii must differ, got {list(self.radii)}")
        for name in self.gradients:
            checks.option(name, "--gradients", GRADIENTS)
        if not self.gradients or len({*self.gradients}) < len(self.gradients):
            raise ValueError(f"--gradients must differ, got {list(self.gradients)}")
        checks.count(self.bound_references, "--bound-references", 0)
        positive = [("--radii", r) for r in self.radii]
        positive += [
            (option_name(name), getattr(self, name)) for name in ("step_size", "learning_rate")
        ]
        check_positive(positive)

    @property
    def chains_of_a_cell(self) -> int:
        return self.references * self.restarts

    @classmethod
    def sizes(cls, data: str, *, full: bool) -> dict[str, Any]:
        published = KUZINA2022.get(data, KUZINA2022["mnist"])
        own: dict[str, Any] = {"step_size": float(published["step_size"])}
        return {**own, **FULL, "transitions": int(published["steps"])} if full else own


DEFAULT = {field.name: field.default for field in fields(Settings) if field.name != "data"}
FULL: dict[str, Any] = {
    "train_inputs": None,
    "models": ("vae", "beta-2", "beta-5", "beta-10", "tcvae-2", "tcvae-5", "tcvae-10"),
    "epochs": 300,
    "batch_size": 128,
    "learning_rate": 5e-4,
    "references": 50,
    "restarts": 10,
    "adaptive_steps": 50,
    "adaptive_chains": 4,
    "gradients": ("chain", "posterior", "spsa"),
}
