"""A critic's lower bound of a Kullback-Leibler divergence between two sets of draws."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["critic_bound"]

RIDGE = 1e-2  # per draw, on standardised features
NEWTON = 12
LARGEST = 30.0  # of a log-odds


def critic_bound(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p₁ ‖ p₂) from below, by draws of p₁ and p₂: [B] float64 nats, and standard errors.

        KL(p₁ ‖ p₂) ≥ E₁[T(z)] + 1 − E₂[e^T(z)]   for every function T

    T is the log-odds of a logistic regression on (1, z, z²), fitted to one half of the draws and
    shifted there so that E₂[e^T] = 1; the means are over the other half, then the halves change
    places. T never sees the draws that it is averaged over, so the bound holds in expectation,
    however poor the fit; it may be negative.

    Args:
        first, second: independent draws [B, C, d], at least 4 each.

    Source: Nguyen, Wainwright, Jordan, IEEE Transactions on Information Theory 56 (2010).
    """
    first, second = first.double(), second.double()
    middle = torch.cat((first, second), 1)
    location, scale = middle.mean(1, keepdim=True), middle.std(1, keepdim=True)
    a, b = (((z - location) / scale.clamp(min=1e-30)) for z in (first, second))
    gains = [_held_out(a, b, fold) for fold in (0, 1)]
    up, down = (torch.cat(parts, 1) for parts in zip(*gains))  # [B, C] T, [B, C] e^T
    error = torch.sqrt(up.var(1) / up.shape[1] + down.var(1) / down.shape[1])
    return up.mean(1) + 1.0 - down.mean(1), error


def _held_out(first: Tensor, second: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """T at the first draws and e^T at the second ones of the half that T was not fitted to."""
    fitted = first[:, fold::2], second[:, fold::2]
    own, other = (_features(z) for z in fitted)
    weights = _logistic(own, other)
    shift = torch.logsumexp(_odds(other, weights), 1, keepdim=True) - _log_count(other)
    up, down = (_odds(_features(z[:, 1 - fold :: 2]), weights) - shift for z in (first, second))
    return up, down.clamp(max=LARGEST).exp()


def _features(z: Tensor) -> Tensor:
    """(1, z, z²), [B, C, 1 + 2d]."""
    return torch.cat((torch.ones_like(z[..., :1]), z, z.square()), -1)


def _odds(features: Tensor, weights: Tensor) -> Tensor:
    odds = torch.einsum("bcf,bf->bc", features, weights)
    return odds.clamp(-LARGEST, LARGEST)


def _log_count(values: Tensor) -> Tensor:
    return torch.log(values.new_tensor(float(values.shape[1])))


def _logistic(own: Tensor, other: Tensor) -> Tensor:
    """Weights [B, f] of a penalised logistic regression, by Newton's method."""
    features = torch.cat((own, other), 1)
    label = features.new_zeros(features.shape[:2])
    label[:, : own.shape[1]] = 1.0
    ridge = torch.full_like(features[:, 0], RIDGE * features.shape[1])
    ridge[:, 0] = 0.0
    weights = torch.zeros_like(features[:, 0])
    for _ in range(NEWTON):
        p = torch.sigmoid(torch.einsum("bcf,bf->bc", features, weights))
        slope = torch.einsum("bc,bcf->bf", label - p, features) - ridge * weights
        curved = features * (p * (1.0 - p) + 1e-6).unsqueeze(-1)
        hessian = features.mT @ curved + torch.diag_embed(ridge)
        weights = weights + torch.linalg.solve(hessian, slope)
    return weights
