"""Which of the kept draws follow a divergent transition; the fused op only counts them."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional.hmc import Draws, Noise, State, transition
from vaefast.hmc.target import Target
from vaefast.philox import Use

__all__ = ["diverging"]


def diverging(
    target: Target,
    draws: Draws,
    start: State,
    z: Tensor,
    divergent: Tensor,
    *,
    first_step: int,
    step: Tensor,
) -> Tensor:
    """[N, T] bool, whether transition ``first_step`` + t of a chain diverged.

    A divergent transition was rejected. Where a chain rejected others too, its rejected transitions
    are made once more, from the draw before; a chain without divergences costs nothing.

    Args:
        start: of the N = B·C chains, before the first of the T transitions.
        z: [N, T, d], the states after each of them.
        divergent: [N] int64, how many of them diverged.
        step: [B], the step size of all of them.
    """
    chains = len(z) // max(len(draws.index), 1)
    before = torch.cat((start.z[:, None], z[:, :-1]), 1)
    found = (z == before).all(2) & (divergent > 0)[:, None]
    doubtful = found & (found.sum(1) != divergent)[:, None]
    pairs = doubtful.nonzero()  # [n, 2]
    for chain, t in (part.unbind(1) for part in pairs.split(len(z)) if len(part)):
        again = _diverge(target, draws, chains, before[chain, t], chain, first_step + t, step)
        found[chain, t] = again
    return found


def _diverge(
    target: Target,
    draws: Draws,
    chains: int,
    z: Tensor,
    chain: Tensor,
    t: Tensor,
    step: Tensor,
) -> Tensor:
    """[n] bool: transition t [n] of chain [n], numbered in N = B·``chains``, diverges from z."""
    row, target = chain // chains, target.at(chain, chains)
    seed, index = draws.seed, draws.index[row]
    lane, use = chain % chains, Use.MOMENTUM
    momentum = philox.normal(z.shape[1], seed=seed, index=index, step=t, lane=lane, use=use)
    jitter = None
    if draws.jitter:
        w = 2.0 * philox.uniform(1, seed=seed, index=index, step=t, use=Use.JITTER)[:, 0] - 1.0
        jitter = 1.0 + draws.jitter * w
    state = State(z, *target.potential(z, safe=z))
    noise = Noise(momentum, torch.ones_like(momentum[:, 0]), jitter)
    _, info = transition(
        state, target.trajectory(), step=step[row], inv_mass=target.inv_mass, noise=noise
    )
    return info.divergent
