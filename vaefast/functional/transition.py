"""One transition of Hamiltonian Monte Carlo, for any way of running the trajectory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import philox
from vaefast.philox import Draw, Use

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
    t: int | Tensor,
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
        t: number of this transition, int or int64 []; each number has its own random numbers.

    Returns:
        The new state with the acceptance probability and the two flags.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §5.3; mathematics.md §10.
    """
    chains = len(z) // max(len(index), 1)
    mass = None if inv_mass is None else inv_mass.repeat_interleave(chains, dim=0)
    draws = _drawn(z.shape[-1], chains, seed=seed, index=index, t=t, jitter=jitter)
    p = draws.normal.to(z.dtype)
    p = p if mass is None else p / mass.sqrt()
    steps = _jittered(step.repeat_interleave(chains), jitter, draws.jitter)
    z_end, p_end, grad_end, U_end = trajectory(z, p, grad, steps)
    error = (U_end + _kinetic(p_end, mass)) - (U + _kinetic(p, mass))  # [N] float64
    divergent = ~torch.isfinite(error) | (error > DIVERGENCE)
    accept_prob = torch.exp(-error.clamp(min=0.0)).masked_fill(divergent, 0.0)
    accepted = draws.acceptance < accept_prob
    moved = accepted.unsqueeze(-1)
    return Transition(
        z=torch.where(moved, z_end, z),
        U=torch.where(accepted, U_end, U),
        grad=torch.where(moved, grad_end, grad),
        accept_prob=accept_prob,
        accepted=accepted,
        divergent=divergent,
    )


class _Draws(NamedTuple):
    """The random numbers of one transition, for every row (index) and chain (lane)."""

    normal: Tensor  # [N, d] float64
    acceptance: Tensor  # [N] float64
    jitter: Tensor | None  # [N] float64, the same for all chains of a row


def _drawn(
    latents: int, chains: int, *, seed: int, index: Tensor, t: int | Tensor, jitter: float
) -> _Draws:
    """All three at once: on a GPU their many small operations cost, not their numbers."""
    lane = torch.arange(chains, device=index.device).repeat(len(index))
    wanted = [
        Draw(latents + latents % 2, Use.MOMENTUM, lane),
        Draw(1, Use.ACCEPT, lane),
        Draw(1, Use.JITTER),
    ]
    momentum, *singles = philox.together(
        wanted if jitter else wanted[:2],
        seed=seed,
        index=index.repeat_interleave(chains),
        step=t,
    )
    acceptance, *rest = (philox.as_uniform(k[:, 0]) for k in singles)
    normal = philox.as_normal(momentum)[:, :latents]
    return _Draws(normal, acceptance, rest[0] if rest else None)


def _jittered(step: Tensor, jitter: float, u: Tensor | None) -> Tensor:
    return step if u is None else (step * (1.0 + jitter * (2.0 * u - 1.0))).to(step.dtype)


def _kinetic(p: Tensor, inv_mass: Tensor | None) -> Tensor:
    square = p.double().square()
    return 0.5 * (square if inv_mass is None else square * inv_mass).sum(dim=-1)  # [N] float64
