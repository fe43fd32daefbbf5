"""Adversarial training: inputs are reconstructed from what attacks their reconstruction most."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vaefast import attacks
from vaefast.models.vae import VAE
from vaefast.training.draw import draw
from vaefast.training.perturbed import check_search, perturbed
from vaefast.training.step import Step
from vaefast.training.weights import check_share, check_weight

__all__ = ["Adversarial"]


@dataclass(frozen=True)
class Adversarial:
    """The bound at x, and at the x' of the maximum-damage attack with x still to be reconstructed.

        loss = (1−share)·L(x) + share·L(x'),
        L(a) = −log p(x|z_a) + β·KL(q(z|a) ‖ p),   z_a ~ q(z|a)
        x' ≈ argmax over ‖x' − x‖ ≤ eps, low ≤ x' ≤ high of ‖g(μ(x') + σ(x')⊙η) − g(μ(x))‖

    x' comes from :func:`vaefast.attacks.max_damage` on the model in eval mode, one random start and
    one η, and is a constant of the step.

    Args:
        beta: weight of the KL terms.
        share: of x' in the loss, in [0, 1].
        eps: radius, in the scale of x.
        norm: "linf" or "l2".
        steps: gradient steps of the search.
        low, high: valid entries of x; by default as for :func:`vaefast.attacks.max_damage`.

    Source: Madry et al. 2018 (the min-max problem) with the attack of Camuto et al. 2021.
    """

    beta: float = 1.0
    share: float = 0.5
    eps: float = 0.1
    norm: str = "linf"
    steps: int = 5
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check_weight(self.beta)
        check_share(self.share, "share")
        check_search(self.eps, self.norm, self.steps)

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z) and KL at x, and the same at x', nats [n]."""
        search = {"eps": self.eps, "norm": self.norm, "steps": self.steps}
        options = {**search, "noise_samples": 1, "fresh_samples": 1}
        box = {"low": self.low, "high": self.high}
        worst = perturbed(attacks.max_damage, vae, x, step, **options, **box)
        own, moved = draw(vae, x, step), draw(vae, worst, step, target=x)
        losses = [self.beta * at.kl - at.logp for at in (own, moved)]
        return {
            "loss": (1.0 - self.share) * losses[0] + self.share * losses[1],
            "reconstruction": own.logp,
            "kl": own.kl,
            "attacked_reconstruction": moved.logp,
            "attacked_kl": moved.kl,
        }
