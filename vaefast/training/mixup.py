"""Mixup: convex combinations of inputs are reconstructed from those of their latents."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.elbo import kl_term
from vaefast.models.context import Context, as_keyword
from vaefast.models.posterior import DiagonalGaussian
from vaefast.models.vae import VAE
from vaefast.training.draw import draw
from vaefast.training.step import Step
from vaefast.training.weights import check_weight

__all__ = ["PAIRINGS", "Mixup"]

PAIRINGS = ("same", "published")


@dataclass(frozen=True)
class Mixup:
    """The bound, and three terms that make encoder and decoder linear between inputs.

        x_m = λx + (1−λ)x_π,  z_m = λz + (1−λ)z_π,  z ~ q(z|x),  z̃ ~ q(z|x_m)
        loss = −log p(x|z) + β·KL(q(z|x) ‖ p) +
               weight·[−log p(x_m|z_m) + KL(q(z|x_m) ‖ p) + ‖z_m − z̃‖²]

    with one λ ~ Beta(½, ½) and one permutation π of the rows for a batch. A context, which must be
    floating, is mixed as x is.

    Args:
        beta: weight of the first KL term.
        weight: of the three mixed terms; 1 in the published code, which trains with β = 1.
        pairing: "same": λ and π of x are those of z. "published": the released code mixes x and z
            by two calls, each with its own λ and π, so that z_m is no latent of x_m; an ablation.

    Source: Khan, Storkey 2023, their code (mathematics.md 3.4), whose reconstruction terms are
    squared errors; here they are the model's own likelihood.
    """

    beta: float = 1.0
    weight: float = 1.0
    pairing: str = "same"

    def __post_init__(self) -> None:
        check_weight(self.beta)
        check_weight(self.weight, "weight")
        checks.option(self.pairing, "pairing", PAIRINGS)

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p and KL of x and of x_m, nats, and ‖z_m − z̃‖² (``latent_gap``), [n]."""
        own = draw(vae, x, step)
        mix = _Mix.drawn(x, step)
        of_latents = mix if self.pairing == "same" else _Mix.drawn(x, step)
        mixed = mix(x), of_latents(own.z)
        logp, kl, gap = _mixed_terms(vae, *mixed, replace(step, context=mix.context(step.context)))
        plain = self.beta * own.kl - own.logp
        return {
            "loss": plain + self.weight * (kl - logp + gap),
            "reconstruction": own.logp,
            "kl": own.kl,
            "mixed_reconstruction": logp,
            "mixed_kl": kl,
            "latent_gap": gap,
        }


def _mixed_terms(vae: VAE, x: Tensor, z: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x|z), KL(q(z|x) ‖ p) and ‖z − z̃‖² with z̃ ~ q(z|x), [n] float64 each."""
    given = as_keyword(step.context)
    mean, logvar = vae.encode(x, **given)
    q = DiagonalGaussian(mean, logvar, tuple(mean.shape[1:]))
    other = q.sample(step.normal(mean))
    logp = vae.likelihood_at(z, **given).log_prob(x)
    return logp, kl_term(vae, q, other, step.context), (z - other).double().square().sum(1)


class _Mix(NamedTuple):
    """Which rows are mixed, and with what weight."""

    share: Tensor  # λ, []
    order: Tensor  # π, int64 [n]

    @classmethod
    def drawn(cls, x: Tensor, step: Step) -> _Mix:
        """λ = sin²(½πU) is Beta(½, ½) for U uniform in [0, 1)."""
        uniform = step.uniform(x.new_empty(1)).squeeze()
        return cls(torch.sin(0.5 * math.pi * uniform).square(), step.permutation(x))

    def __call__(self, rows: Tensor) -> Tensor:
        return self.share * rows + (1.0 - self.share) * rows[self.order]

    def context(self, context: Context) -> Context:
        """Raises TypeError where it is not floating."""
        if isinstance(context, dict):
            return {name: self._conditions(rows, name) for name, rows in context.items()}
        return None if context is None else self._conditions(context, "context")

    def _conditions(self, rows: Tensor, name: str) -> Tensor:
        if not rows.is_floating_point():
            raise TypeError(
                f"mixup mixes the context as it mixes x: {name} must be floating (one-hot), "
                f"got {checks.short(rows.dtype)}"
            )
        return self(rows)
