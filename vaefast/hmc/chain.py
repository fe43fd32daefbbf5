"""Running transitions of one chunk of rows: adapting or frozen, with the draws that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vaefast.functional.chain import Chain
from vaefast.functional.transition import Transition
from vaefast.hmc.target import Target

__all__ = ["Chains", "State", "StepSize"]

SEGMENTS = 50  # calls of a frozen chain, between which a progress bar moves


class State(NamedTuple):
    """Where N = B·C chains are; energy and gradient travel with the position."""

    z: Tensor  # [N, d]
    U: Tensor  # [N] float64, nats
    grad: Tensor  # [N, d]


class StepSize(Protocol):
    """A step size per row that learns from each transition."""

    @property
    def step_size(self) -> Tensor:
        """[B] float64."""

    def update(self, accept_prob: Tensor, accepted: Tensor) -> None:
        """Take in the means over the row's chains, each [B] float64."""


@dataclass(frozen=True)
class Chains:
    """C chains for each row of a chunk: all that stays constant from transition to transition."""

    target: Target
    index: Tensor  # [B] int64
    jitter: float
    seed: int
    tick: Callable[[int], object]  # is told how many transitions were done

    def start(self, z: Tensor) -> State:
        """The state at z [N, d]."""
        return State(z, *self.target.potential(z))

    def adapting(
        self, state: State, step: StepSize, *, first: int, steps: int, thin: int = 0
    ) -> Chain:
        """Transitions numbered from ``first``, each with the step size learnt so far.

        Every ``thin``-th is kept; none with 0.
        """
        record = _Record(state, steps // thin if thin else 0)
        for t in range(steps):
            moved = self._transition(state, step.step_size, first + t)
            state = State(moved.z, moved.U, moved.grad)
            step.update(self._row_mean(moved.accept_prob), self._row_mean(moved.accepted))
            record.count(moved.accepted, moved.divergent)
            if thin and (t + 1) % thin == 0:
                record.keep(state.z[:, None], state.U[:, None])
            self.tick(1)
        return record.chain(state)

    def frozen(self, state: State, step: Tensor, *, first: int, steps: int, thin: int = 0) -> Chain:
        """Transitions numbered from ``first`` with one step size [B], segment by segment.

        Every ``thin``-th is kept; none with 0. A target's chain keeps the transitions whose number
        plus one is a multiple of ``thin``; where those are others, the segments end at the wanted
        transitions.
        """
        record = _Record(state, steps // thin if thin else 0)
        aligned = thin > 0 and first % thin == 0
        for begin, end in _segments(steps, 0 if aligned else thin):
            part = self._segment(state, step, first + begin, end - begin, thin if aligned else 0)
            state = State(part.z, part.U, part.grad)
            record.count(part.accepted, part.divergent)
            if aligned:
                record.keep(part.draws, part.energies)
            elif thin and end % thin == 0:
                record.keep(state.z[:, None], state.U[:, None])
            self.tick(end - begin)
        return record.chain(state)

    def _transition(self, state: State, step: Tensor, t: int) -> Transition:
        return self.target.transition(
            *state,
            step=step.to(state.z.dtype),
            jitter=self.jitter,
            seed=self.seed,
            index=self.index,
            t=t,
        )

    def _segment(self, state: State, step: Tensor, first: int, steps: int, thin: int) -> Chain:
        return self.target.chain(
            *state,
            step=step.to(state.z.dtype),
            jitter=self.jitter,
            seed=self.seed,
            index=self.index,
            first_step=first,
            steps=steps,
            thin=thin,
        )

    def _row_mean(self, values: Tensor) -> Tensor:
        return values.double().view(len(self.index), -1).mean(1)  # [B]


def _segments(steps: int, stop: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each segment; one ends at every multiple of ``stop`` (0: wherever)."""
    longest, begin = max(1, steps // SEGMENTS), 0
    while begin < steps:
        end = min(begin + longest, steps)
        if stop:
            end = min(end, (begin // stop + 1) * stop)
        yield begin, end
        begin = end


class _Record:
    """Counts and kept draws, filled in as the transitions pass."""

    def __init__(self, state: State, kept: int) -> None:
        rows, latents = state.z.shape
        self._accepted = torch.zeros(rows, dtype=torch.int64, device=state.z.device)
        self._divergent = torch.zeros_like(self._accepted)
        self._draws = state.z.new_empty(rows, kept, latents)
        self._energies = state.U.new_empty(rows, kept)
        self._kept = 0

    def count(self, accepted: Tensor, divergent: Tensor) -> None:
        self._accepted += accepted
        self._divergent += divergent

    def keep(self, draws: Tensor, energies: Tensor) -> None:
        """Append [N, k, d] and [N, k]."""
        start, self._kept = self._kept, self._kept + draws.shape[1]
        self._draws[:, start : self._kept] = draws
        self._energies[:, start : self._kept] = energies

    def chain(self, state: State) -> Chain:
        return Chain(*state, self._accepted, self._divergent, self._draws, self._energies)
