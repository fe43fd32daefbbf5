"""The likelihoods of counts, p(x | a): log-density and derivative per entry, one table.

They run in torch, on the reference and generic paths; the records of
:mod:`vaefast.functional.likelihoods` also have kernels.

    negative_binomial   mean μ = eᵃ, variance μ + μ²/θ; with v = a − log θ, in logits of μ/(μ + θ):
                        log p = −θ softplus(v) − x softplus(−v)
                                + log Γ(x + θ) − log Γ(θ) − log Γ(x + 1)
    categorical         logits a over the last dimension, x one-hot or counts n there:
                        log p = Σ x a − n logsumexp(a) + log Γ(n + 1) − Σ log Γ(x + 1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["COUNTS", "Counts"]


class Counts(NamedTuple):
    """One likelihood of counts; out and x are [.., *event] and broadcast with its parameters.

    Args:
        log_density: (out, x, *parameters) ↦ terms per entry, float64 where they do not depend on
            out, whose sum over a row is log p(x | out) in nats, constants included.
        derivative: (out, x, *parameters) ↦ d log p / d out per entry.
        mean: out ↦ E[x] per entry, of one draw where the likelihood is categorical.
        parameters: their names; each is positive.
    """

    log_density: Callable[..., Tensor]
    derivative: Callable[..., Tensor]
    mean: Callable[[Tensor], Tensor]
    parameters: tuple[str, ...] = ()


def _negative_binomial(out: Tensor, x: Tensor, dispersion: Tensor) -> Tensor:
    v = out - dispersion.log()
    terms = -dispersion * F.softplus(v) - x * F.softplus(-v)
    wide, theta = x.double(), dispersion.double()
    fixed = torch.lgamma(wide + theta) - torch.lgamma(theta) - torch.lgamma(wide + 1.0)
    return terms.double() + fixed


def _negative_binomial_derivative(out: Tensor, x: Tensor, dispersion: Tensor) -> Tensor:
    v = out - dispersion.log()
    return x * torch.sigmoid(-v) - dispersion * torch.sigmoid(v)


def _categorical(out: Tensor, x: Tensor) -> Tensor:
    terms = x * (out - torch.logsumexp(out, -1, keepdim=True))
    wide = x.double()
    total = wide.sum(-1, keepdim=True)
    ways = torch.lgamma(total + 1.0) / x.shape[-1] - torch.lgamma(wide + 1.0)
    return terms.double() + ways


def _categorical_derivative(out: Tensor, x: Tensor) -> Tensor:
    return x - x.sum(-1, keepdim=True) * torch.softmax(out, -1)


def _shares(out: Tensor) -> Tensor:
    return torch.softmax(out, -1)


COUNTS = {
    "negative_binomial": Counts(
        _negative_binomial, _negative_binomial_derivative, torch.exp, ("dispersion",)
    ),
    "categorical": Counts(_categorical, _categorical_derivative, _shares),
}
