"""One transition of Hamiltonian Monte Carlo, for any way of running the trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import philox
from vaefast.philox import Use

__all__ = ["DIVERGENCE", "Trajectory", "Transition", "transition"]

DIVERGENCE = 1000.0  # nats of energy error above which a trajectory counts as divergent

Trajectory = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


class Transition(NamedTuple):
    """The state after one transition, and what happened in it; N = B·C rows, chain-minor."""

    z: Tensor  # [N, d]
    U: Tensor  # [N] float64, nats
    grad: Tensor  # [N, d], the gradient of U at z
    accept_prob: Tensor  # [N] float64, 0 where divergent
    accepted: Tensor  # [N] bool
    divergent: Tensor  # [N] bool


def transition(
    trajectory: Trajectory,
    z: Tensor,
    U: Tensor,
    grad: Tensor,
    *,
    step: Tensor,
    inv_mass: Tensor | None = None,
    jitter: float = 0.0,
    seed: int = 0,
    index: Tensor,
    t: int,
) -> Transition:
    """Draw a momentum, run a trajectory, and accept or reject its end (Metropolis).

        p ~ N(0, M),  (z', p') = trajectory(z, p),  H = U + ½ pᵀM⁻¹p,
        accept z' iff u < exp(H(z, p) − H(z', p')),  u uniform in (0, 1)

    The step size of row b is ``step[b]·(1 + jitter·w)`` with one w uniform in (−1, 1) per row
    and transition, shared by the row's chains. A trajectory whose energy error exceeds 1000 nats
    or is not finite is divergent and rejected. On rejection z, U and grad stay together. A row
    whose U is not finite therefore never moves, and each of its transitions is divergent.

    Args:
        trajectory: maps (z [N, d], p [N, d], grad [N, d], step [N]) to the end's
            (z, p, grad, U [N] float64); it is volume preserving and reversible.
        z: [N, d] positions, N = B·C rows, chain-minor (row n belongs to input n // C).
        U: [N] float64 potential energies at z, in nats, from the function that ``trajectory`` uses.
        grad: [N, d] gradients of U at z.
        step: [B] step sizes before the jitter.
        inv_mass: [B, d] diagonal of M⁻¹, or None for unit mass.
        jitter: relative half-width of the step's jitter, in [0, 1).
        seed: seed of the random numbers.
        index: [B] int64 global numbers of the inputs.
        t: number of this transition; each number has its own random numbers.

    Returns:
        The new state with the acceptance probability and the two flags.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §5.3; mathematics.md §10.
    """
    draw = _Draws(seed=seed, index=index, chains=len(z) // max(len(index), 1), t=t)
    mass = None if inv_mass is None else inv_mass.repeat_interleave(draw.chains, dim=0)
    p = draw.momentum(z, mass)
    z_end, p_end, grad_end, U_end = trajectory(z, p, grad, draw.jittered(step, jitter))
    error = (U_end + _kinetic(p_end, mass)) - (U + _kinetic(p, mass))  # [N] float64
    divergent = ~torch.isfinite(error) | (error > DIVERGENCE)
    accept_prob = torch.exp(-error.clamp(min=0.0)).masked_fill(divergent, 0.0)
    accepted = draw.acceptance() < accept_prob
    moved = accepted.unsqueeze(-1)
    return Transition(
        z=torch.where(moved, z_end, z),
        U=torch.where(accepted, U_end, U),
        grad=torch.where(moved, grad_end, grad),
        accept_prob=accept_prob,
        accepted=accepted,
        divergent=divergent,
    )


@dataclass(frozen=True)
class _Draws:
    """The random numbers of one transition, for every row (index) and chain (lane)."""

    seed: int
    index: Tensor  # [B]
    chains: int
    t: int

    def momentum(self, z: Tensor, inv_mass: Tensor | None) -> Tensor:
        index, lane = self._rows()
        p = philox.normal(
            z.shape[-1],
            seed=self.seed,
            index=index,
            step=self.t,
            lane=lane,
            use=Use.MOMENTUM,
            dtype=z.dtype,
        )
        return p if inv_mass is None else p / inv_mass.sqrt()

    def acceptance(self) -> Tensor:
        index, lane = self._rows()
        u = philox.uniform(1, seed=self.seed, index=index, step=self.t, lane=lane, use=Use.ACCEPT)
        return u[:, 0]  # [N] float64

    def jittered(self, step: Tensor, jitter: float) -> Tensor:
        if jitter:
            u = philox.uniform(1, seed=self.seed, index=self.index, step=self.t, use=Use.JITTER)
            step = (step * (1.0 + jitter * (2.0 * u[:, 0] - 1.0))).to(step.dtype)
        return step.repeat_interleave(self.chains)  # [N]

    def _rows(self) -> tuple[Tensor, Tensor]:
        lane = torch.arange(self.chains, device=self.index.device)
        return self.index.repeat_interleave(self.chains), lane.repeat(len(self.index))


def _kinetic(p: Tensor, inv_mass: Tensor | None) -> Tensor:
    square = p.double().square()
    return 0.5 * (square if inv_mass is None else square * inv_mass).sum(dim=-1)  # [N] float64
