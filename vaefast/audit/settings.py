"""What an audit does, in numbers: the settings that summary.json repeats."""

from __future__ import annotations

from dataclasses import dataclass

from vaefast import checks
from vaefast.attacks.divergences import DIVERGENCES
from vaefast.certify.level import inputs_of

__all__ = ["AuditSettings"]


@dataclass(frozen=True)
class AuditSettings:
    """The size of an audit.

    Args:
        inputs: test inputs to audit, from the first on.
        seed: seed of every random number.
        eps: attack radii in pixel scale. An ℓ∞ attack may change each pixel by eps; an ℓ2 attack
            may use the length eps·√D, which is eps per pixel in the root mean square.
        divergence: what the latent attack maximises.
        attack_steps: gradient steps per attack.
        restarts: starts per attack, the second one along the top direction of the metric, all
            others random; the strongest result of each input is kept.
        warmup: HMC transitions that adapt the step size and are thrown away.
        transitions: HMC transitions after the warm-up; the last state is decoded.
        leapfrog: leapfrog steps per transition.
        r: radius (ℓ2 over all pixels) within which a reconstruction counts as unchanged. ``None``
            takes the 90 % quantile of ‖g(μ+σ⊙η) − g(μ)‖₂ over the clean inputs, from random
            numbers that the margins do not use.
        samples: Monte-Carlo samples per margin.
        alpha: error probability of each Clopper-Pearson bound, or as ``over`` says.
        over: whose alpha is: "input", "run" (all inputs' together) or the number of inputs of a
            larger run that these belong to.
        certified: how many inputs of an encoder that is no MLP, the first ones, get a certified
            margin, which takes some seconds each: 5 for a published one of 32 channels, on one
            core. 0 for none; of an MLP all inputs get one.
        empirical: how many inputs, the first ones, are searched for the smallest break, the
            empirical margin; 0 for none. Each takes up to 13 radii with 3 starts of 30 steps.
    """

    inputs: int = 128
    seed: int = 0
    eps: tuple[float, ...] = (0.05, 0.1, 0.2)
    divergence: str = "skl"
    attack_steps: int = 50
    restarts: int = 5
    warmup: int = 100
    transitions: int = 200
    leapfrog: int = 10
    r: float | None = None
    samples: int = 1000
    alpha: float = 1e-3
    over: str | int = "input"
    certified: int = 16
    empirical: int = 16

    def __post_init__(self) -> None:
        for name in ("inputs", "attack_steps", "restarts", "transitions", "leapfrog", "samples"):
            checks.count(getattr(self, name), name)
        checks.count(self.warmup, "warmup", 0)
        checks.count(self.certified, "certified", 0)
        checks.count(self.empirical, "empirical", 0)
        inputs_of(self.over, 1)
        checks.option(self.divergence, "divergence", DIVERGENCES)
        if (
            not self.eps
            or min(self.eps) <= 0
            or len({f"{e:.3g}" for e in self.eps}) < len(self.eps)
        ):
            raise ValueError(
                f"eps must be positive radii that differ in three digits, got {list(self.eps)}"
            )
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must lie in (0, 0.5), got {self.alpha:g}")
        if self.r is not None and self.r <= 0:
            raise ValueError(f"r must be positive, got {self.r:g}")
