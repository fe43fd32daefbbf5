"""The prior N(0, I) of a tile of latents: its energy and gradient."""

from __future__ import annotations

import math

import triton
import triton.language as tl

__all__ = ["prior_constant", "prior_energy", "prior_gradient"]


@triton.constexpr_function
def prior_constant(net):
    """½ d log 2π, nats."""
    return 0.5 * net.widths[0] * math.log(2 * math.pi)


@triton.jit
def prior_energy(z):
    """½ Σ z² over a block of latents [n, BLOCK_N]: float64 [BLOCK_N], nats, less the constant."""
    z = z.to(tl.float64)
    return 0.5 * tl.sum(z * z, axis=0)


@triton.jit
def prior_gradient(z):
    """d prior_energy / dz, a tile of latents."""
    return z
