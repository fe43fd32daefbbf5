"""A penalty on the Fisher information of the posterior: how fast q(z|x) moves with x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.context import as_keyword
from vaefast.models.vae import VAE
from vaefast.runtime.numerics import twice_differentiable
from vaefast.training.draw import draw
from vaefast.training.perturbed import in_eval
from vaefast.training.step import Step
from vaefast.training.weights import check_weight

__all__ = ["Fisher", "fisher_trace"]


@dataclass(frozen=True)
class Fisher:
    """The bound, and the trace of the Fisher information of q(z|x) with respect to x.

        loss = −log p(x|z) + β·KL(q(z|x) ‖ p) + weight·tr F(x)
        F = J_μᵀΣ⁻¹J_μ + ½ J_{log σ²}ᵀJ_{log σ²},   KL(q(z|x) ‖ q(z|x+δ)) = ½ δᵀFδ + o(‖δ‖²)

    The trace is estimated by :func:`fisher_trace`, without bias and with its gradient in the
    weights; the encoder is in eval mode there, a function of its row.

    Args:
        beta: weight of the KL term.
        weight: of the trace.
        probes: K, random cotangents per input.

    Source: Gloeckler et al. 2023 (the penalty; mathematics.md 5.8 for F of a Gaussian).
    """

    beta: float = 1.0
    weight: float = 0.01
    probes: int = 1

    def __post_init__(self) -> None:
        check_weight(self.beta)
        check_weight(self.weight, "weight")
        checks.count(self.probes, "probes")

    def terms(self, vae: VAE, x: Tensor, step: Step) -> dict[str, Tensor]:
        """The loss, log p(x|z) and the KL term, nats, and tr F per squared unit of x, [n]."""
        own = draw(vae, x, step)
        trace = fisher_trace(vae, x, step, self.probes)
        loss = self.beta * own.kl - own.logp + self.weight * trace
        return {"loss": loss, "reconstruction": own.logp, "kl": own.kl, "fisher_trace": trace}


def fisher_trace(vae: VAE, x: Tensor, step: Step, probes: int = 1) -> Tensor:
    """Hutchinson's estimate of tr F(x) [n] float64, differentiable in the weights.

        mean over k of ‖J_μᵀ(u_k/σ) + J_{log σ²}ᵀ(v_k/√2)‖²,   u_k, v_k ∈ {−1, 1}^d

    Each product is one backward pass through the encoder's module that is itself differentiated
    (reverse mode twice). The fused ``net_jvp`` and ``net_vjp`` have no derivative in the weights;
    with the closed form of it a step was no faster, as its cost is the products with the batch that
    a derivative in weights sums over.
    """
    with torch.enable_grad(), twice_differentiable(), in_eval(vae):
        point = x.detach().requires_grad_()
        mean, logvar = vae.encode(point, **as_keyword(step.context))
        inv_std = torch.exp(-0.5 * logvar)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for _ in range(probes):
            cotangents = _signs(mean, step) * inv_std, _signs(mean, step) * math.sqrt(0.5)
            total = total + _squared_pull(point, (mean, logvar), cotangents)
    return total / probes


def _signs(like: Tensor, step: Step) -> Tensor:
    return torch.where(step.uniform(like.detach()) < 0.5, -1.0, 1.0).to(like.dtype)


def _squared_pull(
    point: Tensor, outputs: tuple[Tensor, Tensor], cotangents: tuple[Tensor, Tensor]
) -> Tensor:
    """‖Σ J_iᵀc_i‖² [n] float64; outputs that do not depend on the weights or x are left out."""
    moving = [(t, c) for t, c in zip(outputs, cotangents) if t.requires_grad]
    (pulled,) = torch.autograd.grad(
        [t for t, _ in moving], point, [c for _, c in moving], create_graph=True
    )
    return pulled.flatten(1).double().square().sum(1)
