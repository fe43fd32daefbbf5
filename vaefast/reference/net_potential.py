"""``net_potential`` in plain PyTorch: the potential energy of a latent, and its gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional import layers
from vaefast.functional.rows import chains, chunked, finite, nan_where_bad, of_chains
from vaefast.reference.log_likelihood import TEMPORARIES, log_density, score
from vaefast.types import Network

__all__ = ["Target", "net_potential"]


class Target(NamedTuple):
    """The posterior of a few inputs, p(z | x) ∝ p(x | net(z)) N(z; 0, I)."""

    x: Tensor  # [B, D]
    net: Network
    likelihood: str
    obs_std: float = 1.0

    def energy_and_gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats, all constants included, and ∇U [N, d]; N = B·C."""
        tape = layers.forward(z, self.net)
        logp = log_density(tape.out, self.x, likelihood=self.likelihood, obs_std=self.obs_std)
        prior = 0.5 * z.square().sum(dim=-1, dtype=torch.float64)
        constant = 0.5 * z.shape[-1] * math.log(2.0 * math.pi)
        return prior + constant - logp, self._gradient(z, tape)

    def gradient(self, z: Tensor) -> Tensor:
        """∇U = z − Jᵀ d log p / d out, [N, d]."""
        return self._gradient(z, layers.forward(z, self.net))

    def rows(self, rows: slice) -> Target:
        return self._replace(x=self.x[rows])

    def bytes_per_input(self, z: Tensor) -> int:
        """Bytes at work for one input with all its chains."""
        pixels = TEMPORARIES * self.x.shape[-1] * z.element_size()
        return chains(z, self.x) * (layers.bytes_per_row(self.net, z) + pixels)

    def _gradient(self, z: Tensor, tape: layers.Tape) -> Tensor:
        upstream = score(tape.out, self.x, likelihood=self.likelihood, obs_std=self.obs_std)
        return z - layers.pullback(tape, upstream, self.net)


def net_potential(
    z: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    obs_std: float = 1.0,
    precision: str = "ieee",
) -> tuple[Tensor, Tensor]:
    """U(z) = −log p(x | net(z)) − log N(z; 0, I) [N] float64, and ∇U [N, d].

    ``precision`` is what a backend may stoop to; this one always computes in the input dtype.
    """
    target = Target(x, net, likelihood, obs_std)
    count = chains(z, x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        latents, part = z[of_chains(rows, count)], target.rows(rows)
        good = finite(latents) & finite(part.x).repeat_interleave(count)
        return nan_where_bad(good, *part.energy_and_gradient(latents))

    U, grad = chunked(run, len(x), target.bytes_per_input(z))
    return U, grad
