"""A critic's lower bound of a Kullback-Leibler divergence between two sets of draws."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["critic_bound"]

RIDGES = (1e-2, 1e-1, 1.0)  # per draw, on standardised features
SCALES = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)  # of the log-odds
STEPS = 40
LARGEST = 30.0  # of a log-odds


def critic_bound(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p₁ ‖ p₂) from below, by draws of p₁ and p₂: [B] float64 nats, and standard errors.

        KL(p₁ ‖ p₂) ≥ E₁[T(z)] + 1 − E₂[e^T(z)]   for every function T

    T is the log-odds of a logistic regression on (1, z, z²), fitted to one half of the draws and
    shifted there so that E₂[e^T] = 1; the means are over the other half, then the halves change
    places. Penalty and scale of T are those of the largest bound within the first half, fitted to
    a part of it and averaged over the rest; a scale of 0 is among them. T never sees the draws that
    it is averaged over, so the bound holds in expectation, however poor the fit; it may be slightly
    negative.

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
    ridge, scale = _chosen(*fitted)
    held = first[:, 1 - fold :: 2], second[:, 1 - fold :: 2]
    up, down = _transformed(fitted, held, ridge, scale)
    return up, down.clamp(max=LARGEST).exp()


def _chosen(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Penalty and scale [B] each, whose bound is largest where they were not fitted."""
    bounds = []
    for ridge in RIDGES:
        for scale in SCALES:
            how = (first.new_full((len(first),), value) for value in (ridge, scale))
            bounds.append(_within(first, second, *how))
    best = torch.stack(bounds).argmax(0)
    ridges, scales = (first.new_tensor(values) for values in (RIDGES, SCALES))
    return ridges[best // len(SCALES)], scales[best % len(SCALES)]


def _within(first: Tensor, second: Tensor, ridge: Tensor, scale: Tensor) -> Tensor:
    """The bound [B] of each half by a fit to the other one, added up."""
    total = first.new_zeros(len(first))
    for fold in (0, 1):
        fitted, held = (tuple(z[:, k::2] for z in (first, second)) for k in (fold, 1 - fold))
        up, down = _transformed(fitted, held, ridge, scale)
        total = total + up.mean(1) - down.clamp(max=LARGEST).exp().mean(1)
    return total


def _transformed(
    fitted: tuple[Tensor, ...], held: tuple[Tensor, ...], ridge: Tensor, scale: Tensor
) -> tuple[Tensor, ...]:
    """T of a fit to two sets of draws, at two other sets."""
    own, other = (_features(z) for z in fitted)
    weights = scale[:, None] * _logistic(own, other, ridge)
    shift = torch.logsumexp(_odds(other, weights), 1, keepdim=True) - _log_count(other)
    return tuple(_odds(_features(z), weights) - shift for z in held)


def _features(z: Tensor) -> Tensor:
    """(1, z, z²), [B, C, 1 + 2d]."""
    return torch.cat((torch.ones_like(z[..., :1]), z, z.square()), -1)


def _odds(features: Tensor, weights: Tensor) -> Tensor:
    odds = torch.einsum("bcf,bf->bc", features, weights)
    return odds.clamp(-LARGEST, LARGEST)


def _log_count(values: Tensor) -> Tensor:
    return torch.log(values.new_tensor(float(values.shape[1])))


def _logistic(own: Tensor, other: Tensor, penalty: Tensor) -> Tensor:
    """Weights [B, f] of a penalised logistic regression.

    By steps with a bound of the curvature, a quarter for p(1 − p), that is factored once: they
    climb from wherever they are, where Newton's own leave separable draws for infinity.
    """
    features = torch.cat((own, other), 1)
    label = features.new_zeros(features.shape[:2])
    label[:, : own.shape[1]] = 1.0
    ridge = (penalty * features.shape[1])[:, None].expand_as(features[:, 0]).clone()
    ridge[:, 0] = 1e-6
    factor = torch.linalg.cholesky(0.25 * features.mT @ features + torch.diag_embed(ridge))
    weights = torch.zeros_like(features[:, 0])
    for _ in range(STEPS):
        p = torch.sigmoid(torch.einsum("bcf,bf->bc", features, weights))
        slope = torch.einsum("bc,bcf->bf", label - p, features) - ridge * weights
        weights = weights + torch.cholesky_solve(slope[..., None], factor)[..., 0]
    return weights
