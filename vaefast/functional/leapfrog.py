"""The leapfrog integrator of Hamilton's equations, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["drifted", "kicked", "leapfrogs", "per_chain", "times"]


def leapfrogs(
    gradient: Callable[[Tensor], Tensor],
    energy_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    *,
    step: Tensor,
    inv_mass: Tensor | None,
    leapfrog: int,
    root: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Kick-drift-kick ``leapfrog`` times, inner half kicks merged: ``leapfrog`` gradients.

    The first half kick uses the gradient carried in; the last gradient's forward pass gives U.
    ``gradient`` serves the kicks between them and may be rounded: the kicks stay a palindrome, so
    the map stays reversible (mathematics.md §10). step is [N], inv_mass [N, d] or None.

    With ``root`` S [B, d, d], M⁻¹ = S Sᵀ, and p is q = Sᵀ times the momentum, N(0, I) where that
    is N(0, M)::

        q ← q − ε/2 Sᵀ∇U(z),  z ← z + ε S q,  q ← q − ε/2 Sᵀ∇U(z)

    which are the leapfrogs of unit mass in u = S⁻¹z.
    """
    transposed = None if root is None else root.mT
    p = kicked(p, times(transposed, grad), step, 0.5)
    for _ in range(leapfrog - 1):
        z = drifted(z, times(root, p), step, inv_mass)
        p = kicked(p, times(transposed, gradient(z)), step)
    z = drifted(z, times(root, p), step, inv_mass)
    U, grad = energy_and_gradient(z)
    return z, kicked(p, times(transposed, grad), step, 0.5), grad, U


def times(matrix: Tensor | None, vectors: Tensor) -> Tensor:
    """A [B, d, d] times v [N, d], a matrix for the C = N / B chains of a row; None is the unit."""
    if matrix is None:
        return vectors
    each = len(vectors) // max(len(matrix), 1)
    chains = vectors.reshape(len(matrix), each, vectors.shape[1])  # [B, C, d]
    return (chains @ matrix.mT).view(vectors.shape)


def kicked(p: Tensor, grad: Tensor, step: Tensor, kick: float = 1.0) -> Tensor:
    """p − kick·step·grad, step [N]."""
    return torch.addcmul(p, step.unsqueeze(-1), grad, value=-kick)


def drifted(z: Tensor, p: Tensor, step: Tensor, inv_mass: Tensor | None = None) -> Tensor:
    """z + step·M⁻¹p, step [N], inv_mass [N, d] or None for unit mass."""
    velocity = p if inv_mass is None else inv_mass * p
    return torch.addcmul(z, step.unsqueeze(-1), velocity)


def per_chain(inv_mass: Tensor, z: Tensor) -> Tensor:
    """inv_mass [B, d] for each of the N = B·C rows of z."""
    return inv_mass.repeat_interleave(z.shape[0] // max(inv_mass.shape[0], 1), dim=0)
