"""One step of Hamiltonian Monte Carlo as a pure function: state and noise in, state and info out.

Rows n of N = B·C are chains, chain-minor: row n belongs to input n // C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vaefast import philox
from vaefast.functional.leapfrog import leapfrogs, per_chain
from vaefast.functional.rows import repeated
from vaefast.philox import Draw, Use

__all__ = ["DIVERGENCE", "Draws", "Info", "Noise", "State", "Trajectory", "step", "transition"]

DIVERGENCE = 1000.0  # nats of energy error above which a trajectory counts as divergent
AT_ONCE = 1 << 14  # random numbers that are drawn together: small transitions share one run


class State(NamedTuple):
    """Where the chains are; energy and gradient travel with the position."""

    z: Tensor  # [N, d]
    U: Tensor  # [N] float64, nats
    grad: Tensor  # [N, d], the gradient of U at z


class Info(NamedTuple):
    """What happened in a step."""

    accept_prob: Tensor  # [N] float64, 0 where divergent
    accepted: Tensor  # [N] bool
    divergent: Tensor  # [N] bool
    energy_error: Tensor  # [N] float64, nats: H at the trajectory's end − H at its start


class Noise(NamedTuple):
    """The random numbers of one step."""

    momentum: Tensor  # [N, d] float64 standard normals
    acceptance: Tensor  # [N] float64 uniforms in (0, 1)
    jitter: Tensor | None = None  # [N] float64 factors of the step size, one for a row's chains


class Trajectory(Protocol):
    """Maps (z, p, grad [N, d], step [N]) to the end's (z, p, grad, U [N] float64).

    Volume preserving and reversible.
    """

    def __call__(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...


def step(
    state: State,
    potential: Callable[[Tensor], tuple[Tensor, Tensor]],
    *,
    step: Tensor,
    inv_mass: Tensor | None = None,
    leapfrog: int,
    noise: Noise,
    gradient: Callable[[Tensor], Tensor] | None = None,
) -> tuple[State, Info]:
    """One step of HMC: momentum, ``leapfrog`` leapfrogs, Metropolis. Differentiable.

        p ~ N(0, M),  (z', p') = L leapfrogs of U from (z, p),  H = U + ½ pᵀM⁻¹p,
        accept z' iff u < exp(H(z, p) − H(z', p')),  u uniform in (0, 1)

    Autograd flows through the chosen branch, with the decision to accept held.

    Args:
        state: from ``State(z, *potential(z))`` or the step before.
        potential: maps z [N, d] to U [N] float64, in nats, and its gradient [N, d].
        step: [B] step sizes before the jitter.
        inv_mass: [B, d] diagonal of M⁻¹, or None for unit mass.
        leapfrog: L, at least 1; the step costs L gradients.
        noise: the step's random numbers, from :class:`Draws`.
        gradient: of U between the trajectory's ends, where it may be cheaper or rounded; default
            the potential's.

    Returns:
        The new state and what happened. A trajectory whose energy error exceeds 1000 nats or is
        not finite is divergent and rejected. A row whose U is not finite never moves.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §5.3; mathematics.md §10.
    """
    trajectory = partial(
        leapfrogs,
        gradient or (lambda z: potential(z)[1]),
        potential,
        inv_mass=None if inv_mass is None else per_chain(inv_mass, state.z),
        leapfrog=leapfrog,
    )
    return transition(state, trajectory, step=step, inv_mass=inv_mass, noise=noise)


def transition(
    state: State,
    trajectory: Trajectory,
    *,
    step: Tensor,
    inv_mass: Tensor | None = None,
    noise: Noise,
) -> tuple[State, Info]:
    """:func:`step` for any way of running the trajectory.

    On rejection z, U and grad stay together.
    """
    mass = None if inv_mass is None else per_chain(inv_mass, state.z)
    p = noise.momentum.to(state.z.dtype)
    p = p if mass is None else p / mass.sqrt()
    steps = repeated(step, state.z.shape[0] // max(step.shape[0], 1))
    if noise.jitter is not None:
        steps = (steps * noise.jitter).to(step.dtype)
    z, p_end, grad, U = trajectory(state.z, p, state.grad, step=steps)
    error = (U + _kinetic(p_end, mass)) - (state.U + _kinetic(p, mass))
    divergent = ~((error <= DIVERGENCE) & (error > -torch.inf))  # so is NaN
    accept_prob = torch.exp(-error.clamp(min=0.0)).masked_fill(divergent, 0.0)
    accepted = noise.acceptance < accept_prob
    moved = accepted.unsqueeze(-1)
    end = State(
        z=torch.where(moved, z, state.z),
        U=torch.where(accepted, U, state.U),
        grad=torch.where(moved, grad, state.grad),
    )
    return end, Info(accept_prob, accepted, divergent, error)


def _kinetic(p: Tensor, inv_mass: Tensor | None) -> Tensor:
    square = p.double().square()
    return 0.5 * (square if inv_mass is None else square * inv_mass).sum(dim=-1)  # [N] float64


@dataclass(frozen=True)
class Draws:
    """What the random numbers of some chains depend on; the step's index t is their counter.

    Args:
        index: [B] int64, global indices of the inputs.
        seed: 64 bits.
        jitter: relative half-width of the step's jitter, in [0, 1): the step size of a row in
            transition t is multiplied by 1 + jitter·w, w uniform in (−1, 1), for all its chains.
    """

    index: Tensor
    seed: int = 0
    jitter: float = 0.0

    def noise(self, z: Tensor, t: int | Tensor) -> Noise:
        """Of step t, int or int64 [], for chains like z [N, d]."""
        chains = len(z) // max(len(self.index), 1)
        return self._drawn(z.shape[1], chains, self.index, t)

    def noises(self, z: Tensor, first: int, steps: int) -> Iterator[Noise]:
        """Of each of the steps from ``first``: as :meth:`noise`, many steps in one run of Philox.

        On small batches a run's many small operations cost, not its numbers.
        """
        rows, latents = z.shape
        together = max(1, AT_ONCE // max(rows * (latents + 2), 1))
        for start in range(first, first + steps, together):
            count = min(together, first + steps - start)
            if count == 1:
                yield self.noise(z, start)
                continue
            t = torch.arange(start, start + count, device=z.device)[:, None]
            t = t.expand(count, rows).flatten()
            chains = rows // max(len(self.index), 1)
            drawn = self._drawn(latents, chains, self.index.repeat(count), t)
            parts = [n.view(count, rows, *n.shape[1:]).unbind() for n in drawn if n is not None]
            yield from (Noise(*part) for part in zip(*parts))

    def _drawn(self, latents: int, chains: int, index: Tensor, t: int | Tensor) -> Noise:
        lane: int | Tensor = 0
        if chains > 1:
            lane = torch.arange(chains, device=index.device).repeat(len(index))
            index = index.repeat_interleave(chains)
        wanted = [
            Draw(latents + latents % 2, Use.MOMENTUM, lane),
            Draw(1, Use.ACCEPT, lane),
            Draw(1, Use.JITTER),
        ]
        momentum, *singles = philox.together(
            wanted if self.jitter else wanted[:2],
            seed=self.seed,
            index=index,
            step=t,
        )
        acceptance, *rest = (philox.as_uniform(k[:, 0]) for k in singles)
        factors = [1.0 + self.jitter * (2.0 * u - 1.0) for u in rest]
        return Noise(philox.as_normal(momentum)[:, :latents], acceptance, *factors)
