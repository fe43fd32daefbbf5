"""Path lengths of each row's own: a quarter period, or what its chains teach (ChEES)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from vaefast.functional.chain import Chain, repeated
from vaefast.functional.hmc import Draws, Info, State, transition
from vaefast.functional.leapfrog import kicked, per_chain, times
from vaefast.hmc.adaptation import StepSize
from vaefast.hmc.target import Target, transitions
from vaefast.hmc.whitened import Whitened

__all__ = ["GRID", "OwnLengths", "PathLengths", "QuarterPeriod"]

GRID = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # leapfrogs; rows of one number run together
RATE, SECOND, TINY = 0.025, 0.95, 1e-12  # Adam without momentum, on log τ
DECAY = 0.75  # of the average that is frozen
End = tuple[Tensor, Tensor, Tensor, Tensor]  # z, p, grad, U after a trajectory
QUARTER = math.pi / 2.0
LONGEST = 24  # leapfrogs of a quarter period; a step that needs more fits no round posterior


class QuarterPeriod:
    """A quarter of the period of a posterior that the mass makes round, τ = π/2, for every row."""

    def leapfrogs(self, step: Tensor, *, frozen: bool = False) -> Tensor:
        """L [B] int64, the number of GRID up to 24 that is nearest to τ/ε on a log scale."""
        return _nearest(QUARTER / step.double()).clamp(max=LONGEST)


def _nearest(wanted: Tensor) -> Tensor:
    """The numbers of GRID [B] int64 that are nearest to those wanted, on a log scale."""
    grid = torch.tensor(GRID, dtype=torch.int64, device=wanted.device)
    distance = (wanted.log()[:, None] - grid.double().log()).abs()
    return grid[distance.nan_to_num(nan=torch.inf).argmin(1)]


class PathLengths:
    """τ_b of every row, by stochastic ascent on ChEES, the change in the estimator of the expected
    square::

        ¼ E(‖z' − E z'‖² − ‖z − E z‖²)²,   in coordinates in which the mass is the identity

    Its derivative in log τ is estimated from the C chains of the row in one transition, weighted by
    their acceptance probabilities. Nothing is pooled over rows.

    Args:
        start: [B], τ where it begins.

    Source: Hoffman, Radul, Sountsov, "An adaptive-MCMC scheme for setting trajectory lengths in
    Hamiltonian Monte Carlo", AISTATS 2021; there over all chains of one target, and with other
    jitter.
    """

    def __init__(self, start: Tensor) -> None:
        self._log = start.double().log()
        self._average = self._log
        self._second = torch.zeros_like(self._log)
        self._updates = 0

    @property
    def average(self) -> Tensor:
        """τ to freeze, [B] float64."""
        return self._average.exp()

    def leapfrogs(self, step: Tensor, *, frozen: bool = False) -> Tensor:
        """L [B] int64, the number of GRID that is nearest to τ/ε on a log scale."""
        log = self._average if frozen else self._log
        return _nearest(log.exp() / step.double())

    def update(self, start: Tensor, end: Tensor, velocity: Tensor, weight: Tensor, path: Tensor,
               longest: Tensor) -> None:  # fmt: skip
        """Learn from one transition.

        Args:
            start, end, velocity: [B, C, d], at the trajectories' two ends and at the second one.
            weight: [B, C], acceptance probabilities; 0 leaves a chain out.
            path: [B], length of the trajectories.
            longest: [B], beyond which τ does not grow.
        """
        self._updates += 1
        moved = (weight > 0)[:, :, None]
        end, velocity = (torch.where(moved, t, start).double() for t in (end, velocity))
        start, share = start.double(), weight.double() / weight.double().sum(1, True).clamp(TINY)
        at_start = start - start.mean(1, keepdim=True)
        at_end = end - (share[:, :, None] * end).sum(1, keepdim=True)
        growth = at_end.square().sum(2) - at_start.square().sum(2)
        slope = path * (share * growth * (at_end * velocity).sum(2)).sum(1)
        slope = slope.nan_to_num(0.0, 0.0, 0.0)
        self._second = SECOND * self._second + (1.0 - SECOND) * slope.square()
        scale = (self._second / (1.0 - SECOND**self._updates)).sqrt() + TINY
        self._log = torch.minimum(self._log + RATE * slope / scale, longest.double().log())
        share_of_last = self._updates**-DECAY
        self._average = share_of_last * self._log + (1.0 - share_of_last) * self._average


@dataclass
class OwnLengths:
    """A target whose rows have path lengths of their own; in the warm-up they may learn them.

    Args:
        inside: the target with any L.
        lengths: where L comes from.
        leapfrogs: L [B] once they are frozen.
    """

    inside: Target
    lengths: PathLengths | QuarterPeriod
    leapfrogs: Tensor | None = None

    @property
    def inv_mass(self) -> Tensor | None:
        """[B, d]."""
        return self.inside.inv_mass

    def at(self, chain: Tensor, chains: int) -> OwnLengths:
        """Of some chains, see :class:`~vaefast.hmc.target.Target`."""
        own = None if self.leapfrogs is None else self.leapfrogs[chain // chains]
        return OwnLengths(self.inside.at(chain, chains), self.lengths, own)

    def of_rows(self, rows: Tensor, leapfrog: int) -> Target:
        """Of some rows, whose path lengths give way to this one."""
        return self.inside.of_rows(rows, leapfrog)

    def potential(self, z: Tensor, safe: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of all rows."""
        return self.inside.potential(z, safe)

    def frozen(self, step: Tensor) -> Tensor:
        """L [B] for the step sizes [B] that are frozen with them."""
        if self.leapfrogs is None:
            self.leapfrogs = self.lengths.leapfrogs(step, frozen=True)
        return self.leapfrogs

    def trajectory(self) -> Callable[..., End]:
        """Each chain with its row's frozen number of leapfrogs."""
        assert self.leapfrogs is not None
        return self._trajectory(self.leapfrogs)

    def run(
        self,
        state: State,
        draws: Draws,
        step: Tensor | StepSize,
        *,
        first_step: int,
        steps: int,
        thin: int = 0,
    ) -> Chain:
        """See :class:`~vaefast.hmc.target.Target`; rows of one L run together."""
        span = {"first_step": first_step, "steps": steps, "thin": thin}
        if not isinstance(step, Tensor):
            return repeated(self._learning(state, draws, step, first_step, steps), state, **span)
        self.frozen(step)
        if self._in_one_loop() is not None:
            return transitions(self.trajectory(), state, draws, step, None, **span)
        parts, order = [], []
        for leapfrog, rows, chains in self._groups(self.frozen(step), len(state.z)):
            own = State(*(t[chains] for t in state))
            drawn = replace(draws, index=draws.index[rows])
            parts.append(self.inside.of_rows(rows, leapfrog).run(own, drawn, step[rows], **span))
            order.append(chains)
        back = torch.argsort(torch.cat(order))
        return Chain(*(torch.cat(part)[back] for part in zip(*parts)))

    def _learning(
        self, state: State, draws: Draws, step: StepSize, first: int, steps: int
    ) -> Callable[[State, int], tuple[State, Info]]:
        noises = draws.noises(state.z, first, steps)

        def move(state: State, t: int) -> tuple[State, Info]:
            noise, sizes = next(noises), step.step_size
            leapfrogs = self.lengths.leapfrogs(sizes)
            trajectory = self._trajectory(leapfrogs)
            ends: list[End] = []

            def seen(z: Tensor, p: Tensor, grad: Tensor, step: Tensor) -> End:
                ends.append(trajectory(z, p, grad, step))
                return ends[0]

            mass = self.inv_mass
            end, info = transition(state, seen, step=sizes.to(state.z.dtype), inv_mass=mass,
                                   noise=noise)  # fmt: skip
            probability, accepted = (
                t.double().view(len(sizes), -1) for t in (info.accept_prob, info.accepted)
            )
            factor = 1.0 if noise.jitter is None else noise.jitter.view(len(sizes), -1)[:, 0]
            if isinstance(self.lengths, PathLengths):
                path = leapfrogs * sizes * factor
                at, p = ends[0][:2]
                self._learn(self.lengths, state.z, at, p, probability, path, sizes)
            step.update(probability.mean(1), accepted.mean(1))
            return end, info

        return move

    def _learn(
        self,
        lengths: PathLengths,
        z: Tensor,
        end: Tensor,
        p: Tensor,
        probability: Tensor,
        path: Tensor,
        step: Tensor,
    ) -> None:
        """In coordinates of unit mass: z divided, and p multiplied, by the root of M⁻¹."""
        if isinstance(self.inside, Whitened):
            z, end = self.inside.whitened(z), self.inside.whitened(end)
        elif self.inv_mass is not None:
            scale = per_chain(self.inv_mass, z).sqrt()
            z, end, p = z / scale, end / scale, p * scale
        start, end, velocity = (t.view(*probability.shape, -1) for t in (z, end, p))
        lengths.update(start, end, velocity, probability, path, GRID[-1] * step)

    def _in_one_loop(self) -> Whitened | None:
        """The target where every gradient is a call, which all rows share."""
        if isinstance(self.inside, Whitened) and self.inside.fused is None:
            return self.inside
        return None

    def _trajectory(self, leapfrogs: Tensor) -> Callable[..., End]:
        if (whitened := self._in_one_loop()) is not None:
            return _dropping_out(whitened, leapfrogs)

        def trajectory(z: Tensor, p: Tensor, grad: Tensor, step: Tensor) -> End:
            ends, order = [], []
            for leapfrog, rows, chains in self._groups(leapfrogs, len(z)):
                own = self.inside.of_rows(rows, leapfrog).trajectory()
                ends.append(own(z[chains], p[chains], grad[chains], step=step[chains]))
                order.append(chains)
            back = torch.argsort(torch.cat(order))
            z, p, grad, U = (torch.cat(part)[back] for part in zip(*ends))
            return z, p, grad, U

        return trajectory

    @staticmethod
    def _groups(leapfrogs: Tensor, count: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(L, rows, their chains) for every L that occurs; ``count`` is N."""
        chains = torch.arange(count, device=leapfrogs.device).view(len(leapfrogs), -1)
        for leapfrog in leapfrogs.unique().tolist():
            rows = (leapfrogs == leapfrog).nonzero()[:, 0]
            yield leapfrog, rows, chains[rows].flatten()


def _dropping_out(target: Whitened, leapfrogs: Tensor) -> Callable[..., End]:
    """One loop as long as the longest path, which a row leaves after its own leapfrogs.

    Rows stand by falling L, so that those still moving are the first; L is at least 1.
    """
    order = torch.argsort(leapfrogs, descending=True, stable=True)
    lengths = leapfrogs[order].tolist()
    moving = [sum(done < L for L in lengths) for done in range(max(lengths, default=0) + 1)]
    inside = {rows: target.inside.of_rows(order[:rows], 1) for rows in set(moving) if rows}
    root = target.root[order]

    def trajectory(z: Tensor, p: Tensor, grad: Tensor, step: Tensor) -> End:
        each = len(z) // max(len(order), 1)
        chains = torch.arange(len(z), device=z.device).view(len(order), each)[order].flatten()
        z, p, grad, step = (t[chains] for t in (z, p, grad, step))
        start, U = z.clone(), z.new_empty(len(z), dtype=torch.float64)
        p = kicked(p, times(root.mT, grad), step, 0.5)
        for rows, stay in pairwise(moving):
            n, S = rows * each, root[:rows]
            z[:n] = torch.addcmul(z[:n], step[:n, None], times(S, p[:n]))
            U[:n], grad[:n] = inside[rows].potential(z[:n].contiguous(), start[:n])
            kick = step[:n].clone()
            kick[stay * each :] *= 0.5  # the last one of those that leave
            p[:n] = kicked(p[:n], times(S.mT, grad[:n]), kick)
        back = torch.argsort(chains)
        return z[back], p[back], grad[back], U[back]

    return trajectory
