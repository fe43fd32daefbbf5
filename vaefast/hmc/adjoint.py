"""The gradient through a chain: its transitions recorded, and the way back through them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.chain import Chain
from vaefast.functional.hmc import Draws, State
from vaefast.functional.leapfrog import per_chain
from vaefast.functional.rows import repeated
from vaefast.hmc.adaptation import StepSize
from vaefast.hmc.target import NetworkTarget
from vaefast.ops._pack import pack
from vaefast.runtime import capture

__all__ = ["Path", "pull_back", "recorded"]


class Path(NamedTuple):
    """T transitions of N = B·C chains: what the way back needs, T·d numbers a chain."""

    target: NetworkTarget
    draws: Draws
    z: Tensor  # [N, T + 1, d], before the first transition and after each
    step: Tensor  # [T, B], of each transition before its jitter
    first_step: int

    def part(self, t: int) -> Path:
        """Of the t-th of its transitions alone."""
        z, step = self.z[:, t : t + 2], self.step[t : t + 1]
        return self._replace(z=z, step=step, first_step=self.first_step + t)


def recorded(
    target: NetworkTarget,
    state: State,
    draws: Draws,
    step: Tensor | StepSize,
    *,
    first_step: int = 0,
    steps: int,
) -> tuple[Chain, Path]:
    """Transitions ``first_step`` to ``first_step + steps − 1`` from ``state``, and their path.

    Arguments as :meth:`vaefast.hmc.target.NetworkTarget.run`; a step size that learns goes on
    learning. Two paths, the second from where the first one ended, are pulled back one after
    the other.

    Returns:
        The chain, all of its draws kept, and the path for :func:`pull_back`.
    """
    if isinstance(step, Tensor):
        run = target.run(state, draws, step, first_step=first_step, steps=steps, thin=1)
        return run, _path(target, draws, state, run, step.expand(steps, -1), first_step)
    sizes, runs, now = [], [], state
    for t in range(first_step, first_step + steps):
        sizes.append(step.step_size.to(state.z.dtype))
        runs.append(target.run(now, draws, step, first_step=t, steps=1, thin=1))
        now = State(runs[-1].z, runs[-1].U, runs[-1].grad)
    run = _joined(state, runs)
    learnt = torch.stack(sizes) if sizes else state.z.new_empty(0, len(target.x))
    return run, _path(target, draws, state, run, learnt, first_step)


def pull_back(path: Path, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Cotangents of the chains' ends back to their starts and to the images.

    A transition that was rejected passes them on; an accepted one is the adjoint of its
    trajectory, whose momenta are drawn anew; on CUDA it runs in captured graphs. Step sizes,
    masses and the decisions to accept are held, as autograd through
    :func:`vaefast.functional.hmc.step` holds them.

    Args:
        path: from :func:`recorded`.
        upstream: cotangents of z after the last transition [N, d].

    Returns:
        Cotangents of z before the first transition [N, d], and of x [B, D], summed over an
        input's chains and over the transitions from the last to the first. Where a chain has left
        the numbers that it can represent on its way back (NaN or infinity), both are not finite.
    """
    target, into_x = path.target, torch.zeros_like(path.target.x)
    with capture.capturing(target.x) as captures:
        adjoint = _Adjoint(_packed(target, len(path.step)))
        for t in reversed(range(len(path.step))):
            z, p, step, accepted = _trajectory(path, t)
            if not bool(accepted.any()):
                continue
            upstream, share = captures.run(adjoint, z, p, upstream, step, accepted)
            into_x = into_x + share
    return upstream, into_x


@dataclass(frozen=True, eq=False)
class _Adjoint:
    """A trajectory's adjoint as a function of tensors, which a CUDA graph may hold."""

    target: NetworkTarget

    def __call__(
        self, z: Tensor, p: Tensor, upstream: Tensor, step: Tensor, accepted: Tensor
    ) -> tuple[Tensor, Tensor]:
        into_z, _, into_x = self.target.trajectory_vjp()(
            z, p, upstream, step=step, accepted=accepted
        )
        return into_z, into_x


def _packed(target: NetworkTarget, uses: int) -> NetworkTarget:
    """The weights packed once for all transitions; on CUDA no kernel takes them."""
    if uses < 2 or target.x.is_cuda:
        return target
    return replace(target, net=pack(target.net, backend=target.backend))


def _trajectory(path: Path, t: int) -> tuple[Tensor, ...]:
    """Of transition number t of the path: z, p, step sizes [N], and which chains moved [N]."""
    z, end, mass = path.z[:, t], path.z[:, t + 1], path.target.inv_mass
    noise = path.draws.noise(z, path.first_step + t)
    p = noise.momentum.to(z.dtype)
    p = p if mass is None else p / per_chain(mass, z).sqrt()
    step = repeated(path.step[t], len(z) // max(len(path.target.x), 1)).to(z.dtype)
    if noise.jitter is not None:
        step = (step * noise.jitter).to(z.dtype)
    return z, p, step, (z != end).any(1)


def _path(
    target: NetworkTarget, draws: Draws, start: State, run: Chain, step: Tensor, first_step: int
) -> Path:
    return Path(target, draws, torch.cat((start.z[:, None], run.draws), 1), step, first_step)


def _joined(start: State, runs: list[Chain]) -> Chain:
    """Runs of one chain, one after the other."""
    end = State(runs[-1].z, runs[-1].U, runs[-1].grad) if runs else start
    none = torch.zeros(len(start.z), dtype=torch.int64, device=start.z.device)
    draws = [run.draws for run in runs] or [start.z[:, None][:, :0]]
    energies = [run.energies for run in runs] or [start.U[:, None][:, :0]]
    return Chain(
        *end,
        sum((run.accepted for run in runs), none),
        sum((run.divergent for run in runs), none),
        torch.cat(draws, 1),
        torch.cat(energies, 1),
    )
