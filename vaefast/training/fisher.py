"""A penalty on the Fisher information of the posterior: how fast q(z|x) moves with x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vaefast import checks
from vaefast.models.context import as_keyword
from vaefast.models.state import State
from vaefast.models.vae import VAE
from vaefast.runtime.numerics import twice_differentiable
from vaefast.training.draw import Draw, draw
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
        if torch.is_grad_enabled() and _is_eval_function(vae):
            own, trace = _by_one_pass(vae, x, step, self.probes)
        else:
            own = draw(vae, x, step)
            trace = fisher_trace(vae, x, step, self.probes)
        loss = self.beta * own.kl - own.logp + self.weight * trace
        return {"loss": loss, "reconstruction": own.logp, "kl": own.kl, "fisher_trace": trace}


def fisher_trace(vae: VAE, x: Tensor, step: Step, probes: int = 1) -> Tensor:
    """Hutchinson's estimate of tr F(x) [n] float64, differentiable in the weights.

        mean over k of ‖J_μᵀ(u_k/σ) + J_{log σ²}ᵀ(v_k/√2)‖²,   u_k, v_k ∈ {−1, 1}^d

    Each product is one backward pass through the encoder's module, of both heads at once, that is
    itself differentiated (reverse mode twice). The fused ``net_vjp`` keeps no layer's cotangents,
    which a derivative in the weights is made of; docs/training.md has what was tried.
    """
    with torch.enable_grad(), twice_differentiable(), in_eval(vae):
        point = x.detach().requires_grad_()
        moments = vae.encode(point, **as_keyword(step.context))
        return _pulled_back(point, moments, step, probes)


def _is_eval_function(vae: VAE) -> bool:
    """Whether the encoder is surely the same function in training and in eval mode."""
    plain = type(vae).encode is VAE.encode and type(vae).q is VAE.q
    return plain and State(vae.encoder).is_all and not checks.varies_in_training(vae.encoder)


def _by_one_pass(vae: VAE, x: Tensor, step: Step, probes: int) -> tuple[Draw, Tensor]:
    """The draw and the trace from one encoding, through which the loss passes back once."""
    with twice_differentiable():
        point = x.detach().requires_grad_()
        own = draw(vae, point, step, target=x)
        return own, _pulled_back(point, (own.mean, own.logvar), step, probes)


def _pulled_back(point: Tensor, moments: tuple[Tensor, Tensor], step: Step, probes: int) -> Tensor:
    """The estimate from the moments [n, d] of a point that requires grad."""
    mean, logvar = moments
    inv_std = torch.exp(-0.5 * logvar)
    total = torch.zeros(len(point), dtype=torch.float64, device=point.device)
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
