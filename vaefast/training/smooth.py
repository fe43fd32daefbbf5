"""Smooth encoders: the posterior of an input stays near that of its worst neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import attacks
from vaefast.models.context import as_keyword
from vaefast.models.vae import VAE
from vaefast.training.draw import draw
from vaefast.training.perturbed import check_search, perturbed
from vaefast.training.step import Step
from vaefast.training.weights import check_positive, check_weight

__all__ = ["Smooth", "coupling_cost"]


@dataclass(frozen=True)
class Smooth:
    """The bound, and what it costs to couple q(z|x) with q(z|x') for an adversarial x'.

        loss = −log p(x|z) + β·KL(q(z|x) ‖ p) + C_γ(q(z|x), q(z|x')),
        x' ≈ argmax over ‖x' − x‖ ≤ eps, low ≤ x' ≤ high of W₂²(q(z|x'), q(z|x))
        C_γ(q, q') = min over couplings c of ½γ·E_c‖z − z'‖² + KL(c ‖ q⊗q')

    C_γ is ½γ times the Wasserstein distance with entropic regularisation 2/γ, in closed form
    (:func:`coupling_cost`). x' comes from :func:`vaefast.attacks.latent` on the model in eval
    mode, one random start, and is a constant of the step.

    Args:
        beta: weight of the KL term.
        coupling: γ; the larger, the closer the two posteriors.
        eps: radius, in the scale of x.
        norm: "linf" or "l2".
        steps: gradient steps of the search.
        low, high: valid entries of x; by default as for :func:`vaefast.attacks.latent`.

    Source: Cemgil et al. 2020 (the adversarial pair, the entropy-regularised distance; after the
    abstract, as mathematics.md 5.3 has it: their weights and search are not known to us).
    """

    beta: float = 1.0
    coupling: float = 10.0
    eps: float = 0.1
    norm: str = "linf"
    steps: int = 5
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        check_weight(self.beta)
        check_positive(self.coupling, "coupling")
        check_search(self.eps, self.norm, self.steps)

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z), the KL term and C_γ (``coupling``), nats [n]."""
        search = {"eps": self.eps, "norm": self.norm, "steps": self.steps}
        box = {"low": self.low, "high": self.high}
        other = perturbed(attacks.latent, vae, x, step, divergence="w2", **search, **box)
        own = draw(vae, x, step)
        moved = vae.encode(other, **as_keyword(step.context))
        cost = coupling_cost(own.mean, own.logvar, *moved, self.coupling)
        loss = self.beta * own.kl - own.logp + cost
        return {"loss": loss, "reconstruction": own.logp, "kl": own.kl, "coupling": cost}


def coupling_cost(
    mean: Tensor, logvar: Tensor, mean_other: Tensor, logvar_other: Tensor, coupling: float
) -> Tensor:
    """C_γ of two diagonal Gaussians [n] float64, nats, all given as [n, d].

        Σ_d ½γ[(Δμ)² + σ² + σ'² − 2k] + ½ log ½(1 + r),   k = 2γs/(1 + r),
        s = σ²σ'²,  r = √(1 + 4γ²s)

    k is the covariance of the best coupling, which is Gaussian: it minimises
    ½γ(σ² + σ'² − 2k) − ½ log(1 − k²/s), so that k² + k/γ = s and 1 − k²/s = 2/(1 + r). Where
    γσσ' is large it is ½γ·W₂² + Σ_d ½ + ½ log(γσσ'); where it is small z and z' are independent.
    """
    mean, logvar, mean_other, logvar_other = (
        t.double() for t in (mean, logvar, mean_other, logvar_other)
    )
    product = torch.exp(logvar + logvar_other)
    root = torch.sqrt(1.0 + 4.0 * coupling**2 * product)
    covariance = 2.0 * coupling * product / (1.0 + root)
    apart = (mean - mean_other).square() + logvar.exp() + logvar_other.exp() - 2.0 * covariance
    return (0.5 * coupling * apart + 0.5 * torch.log(0.5 * (1.0 + root))).sum(1)
