"""What this reproduction does, in numbers: every one that its results depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from vaefast import checks
from vaefast.philox import check_seed
from vaefast.reproduce.sizes import Sized, check_positive, option_name
from vaefast.training import Adversarial, BetaELBO, Mixup, Objective, Smooth

__all__ = ["DEFAULT", "FULL", "PUBLISHED", "RIVALS", "Plan", "Settings", "named"]

COUNTS = (
    *("epochs", "batch_size", "latent", "scored", "samples", "restarts", "attack_steps"),
    "trainings",
)
PUBLISHED = ("constant", "std", "standard")
RIVALS = ("elbo", "mixup", "smooth", "adversarial")
INNER_STEPS = 5  # of the search in a training step


def named(rival: str) -> str:
    """As the page says it."""
    return "standard" if rival == "elbo" else rival


class Plan(NamedTuple):
    """A model and how it is trained.

    Args:
        group: "constant" (constants L, σ in a ball), "std" (one constant, σ fixed), "standard" (no
            constants), all as published; "radius" (a radius specified upfront), or the name of a
            rival's objective.
        level: L, ‖σ‖₂, the radius, or β.
    """

    group: str
    level: float
    objective: Objective = BetaELBO()

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.group}-{self.level:g}"

    @property
    def title(self) -> str:
        titles = {"constant": "L =", "std": "‖σ‖ =", "radius": "R ="}
        if self.group in titles:
            return f"Lipschitz, {titles[self.group]} {self.level:g}"
        if self.group == "standard":
            return "standard VAE"
        return f"{named(self.group)}, β = {self.level:.3g}"

    @property
    def lipschitz(self) -> bool:
        return self.group in ("constant", "std", "radius")

    @property
    def likelihood(self) -> str:
        """The published one; Bernoulli, whose mean g(z) is, where reconstructions compare."""
        return "continuous_bernoulli" if self.group in PUBLISHED else "bernoulli"


@dataclass(frozen=True)
class Settings(Sized):
    """The size of a reproduction of Barrett et al. 2022.

    Args:
        data: name of the data set, or its path.
        constants: L of the layers of all three maps before their sigmoids, two or more.
        std_norm: radius of the ball of σ of these models.
        std_norms: ‖σ‖₂ of the models whose σ is fixed, two or more.
        std_constant: L of these.
        radii: certified radii that are specified upfront; at the first one, other training is
            compared at equal reconstruction.
        r: radius in output space of the event that all margins are of, ℓ2, pixel scale.
        train_inputs: the first training inputs; None takes all.
        epochs: passes over them.
        batch_size: inputs of a training step.
        learning_rate: of Adam, at first.
        hidden: widths of the encoder; the decoder has them in reverse order.
        latent: latents m.
        inputs: test inputs that are certified and attacked.
        scored: test inputs whose bound and reconstruction are averaged.
        samples: draws of a probability.
        restarts, attack_steps: of an attack.
        r_max: largest radius of the search for an empirical margin, ℓ2, pixel scale.
        trainings: most trainings of a rival, by which its β comes to the wanted reconstruction.
        seed: of every random number.
    """

    data: str
    constants: tuple[float, ...] = (5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    std_norm: float = 0.1
    std_norms: tuple[float, ...] = (0.2, 0.6, 1.0)
    std_constant: float = 10.0
    radii: tuple[float, ...] = (0.5, 1.0)
    r: float = 8.0
    train_inputs: int | None = 8_000
    epochs: int = 12
    batch_size: int = 200
    learning_rate: float = 1e-3
    hidden: tuple[int, ...] = (128, 128)
    latent: int = 10
    inputs: int = 24
    scored: int = 512
    samples: int = 200
    restarts: int = 3
    attack_steps: int = 30
    r_max: float = 6.0
    trainings: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in COUNTS:
            checks.count(getattr(self, name), option_name(name))
        checks.count(self.inputs, "--inputs", 2)  # of a spread
        checks.count(self.restarts, "--restarts", 2)  # one is the geometric start
        check_seed(self.seed)
        if self.train_inputs is not None:
            checks.count(self.train_inputs, "--train-inputs", 2)
        for name, least in (("constants", 2), ("std_norms", 2), ("radii", 1)):
            values = getattr(self, name)
            if len({*values}) < max(least, len(values)):
                several = f"{least} or more that differ" if least > 1 else "one or more that differ"
                raise ValueError(f"{option_name(name)} must be {several}, got {list(values)}")
            check_positive([(option_name(name), value) for value in values])
        single = ("std_norm", "std_constant", "r", "learning_rate", "r_max")
        check_positive([(option_name(name), getattr(self, name)) for name in single])
        if max(self.radii) > self.r_max:
            raise ValueError(
                f"--radii must be at most {self.r_max:g}, where the search for a margin ends, got "
                f"{max(self.radii):g}"
            )

    @property
    def plans(self) -> list[Plan]:
        """The Lipschitz VAEs by constants and by ‖σ‖, the standard VAE, those by their radius."""
        plans = [Plan("constant", value) for value in sorted(self.constants)]
        plans += [Plan("std", value) for value in sorted(self.std_norms)]
        plans.append(Plan("standard", 1.0))
        return plans + [Plan("radius", value) for value in self.radii]

    def rival(self, group: str, beta: float) -> Plan:
        """Another way of training, against the first radius where it takes one."""
        search: dict[str, Any] = {"eps": self.radii[0], "norm": "l2", "steps": INNER_STEPS}
        makers: dict[str, Callable[[], Objective]] = {
            "elbo": lambda: BetaELBO(beta),
            "mixup": lambda: Mixup(beta),
            "smooth": lambda: Smooth(beta, **search),
            "adversarial": lambda: Adversarial(beta, **search),
        }
        return Plan(group, beta, makers[group]())

    @classmethod
    def sizes(cls, data: str, *, full: bool) -> dict[str, Any]:
        return FULL if full else {}


DEFAULT = {field.name: field.default for field in fields(Settings) if field.name != "data"}
FULL: dict[str, Any] = {  # of the published code where it is known; --inputs is of its last plot
    "std_norms": (0.2, 0.4, 0.6, 0.8, 1.0),
    "train_inputs": None,
    "epochs": 150,
    "batch_size": 128,
    "learning_rate": 1e-4,
    "hidden": (512, 512),
    "inputs": 25,
    "restarts": 10,
    "attack_steps": 100,
    "samples": 1_000,
}
