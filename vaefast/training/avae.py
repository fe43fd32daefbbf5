"""AVAE: the encoder recognises what the decoder draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast.models.context import as_keyword
from vaefast.models.vae import VAE
from vaefast.training.draw import draw
from vaefast.training.step import Step
from vaefast.training.weights import check_weight

__all__ = ["AVAE", "consistency"]


@dataclass(frozen=True)
class AVAE:
    """The bound, and how far the posterior of a reconstruction lies from the latent it is of.

        x' = g(z), a constant,  z ~ q(z|x)
        loss = −log p(x|z) + β·KL(q(z|x) ‖ p) − E[log N(z'; ρz, (1−ρ²)I)] − H(q(z'|x'))

    with the expectation over independent z' ~ q(z'|x') and z ~ q(z|x), in closed form; the last two
    terms are E_z KL(q(z'|x') ‖ N(ρz, (1−ρ²)I)) ≥ 0.

    Args:
        beta: weight of the KL term; 1 in the publication.
        weight: of the last two terms; 1 in the publication.
        rho: ρ in (0, 1), the correlation of z and z'.

    Source: Cemgil et al. 2020 (NeurIPS), their code (mathematics.md 5.4), with ρ = 0.975.
    """

    beta: float = 1.0
    weight: float = 1.0
    rho: float = 0.975

    def __post_init__(self) -> None:
        check_weight(self.beta)
        check_weight(self.weight, "weight")
        if not 0.0 < check_weight(self.rho, "rho") < 1.0:
            raise ValueError(f"rho must be in (0, 1), got {self.rho:g}")

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z), the KL term and the last two terms (``consistency``), nats [n].

        Raises ValueError where the prior is another than N(0, I), which ρz + √(1−ρ²)ε keeps.
        """
        if vae.prior is not None or type(vae).log_prior is not VAE.log_prior:
            raise ValueError('objective "avae" needs the prior N(0, I), this model has another')
        given = as_keyword(step.context)
        own = draw(vae, x, step)
        with torch.no_grad():
            seen = vae.g(own.z, **given)
        cost = consistency(*vae.encode(seen, **given), own.mean, own.logvar, self.rho)
        loss = self.beta * own.kl - own.logp + self.weight * cost
        return {"loss": loss, "reconstruction": own.logp, "kl": own.kl, "consistency": cost}


def consistency(
    mean_seen: Tensor, logvar_seen: Tensor, mean: Tensor, logvar: Tensor, rho: float
) -> Tensor:
    """−E[log N(z'; ρz, (1−ρ²)I)] − H(q') [n] float64, nats, from moments [n, d].

    Σ_d [σ'² + ρ²σ² + (μ' − ρμ)²]/(2(1−ρ²)) + ½ log(1−ρ²) − ½ log σ'² − ½
    """
    mean_seen, logvar_seen, mean, logvar = (
        t.double() for t in (mean_seen, logvar_seen, mean, logvar)
    )
    rest = 1.0 - rho**2
    spread = logvar_seen.exp() + rho**2 * logvar.exp() + (mean_seen - rho * mean).square()
    return (0.5 * spread / rest + 0.5 * (math.log(rest) - logvar_seen - 1.0)).sum(1)
