"""The posterior p(z|x) as a potential energy: a fast path for MLP decoders, one for all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from vaefast import ops
from vaefast.functional.chain import Chain, repeated
from vaefast.functional.transition import Transition, transition
from vaefast.hmc.generic import Move, Potential, Trajectory
from vaefast.models.vae import VAE
from vaefast.runtime import capture
from vaefast.types import Network

__all__ = ["GenericTarget", "NetworkTarget", "Target"]


class Target(Protocol):
    """U(z) = −log p(x|z) − log p(z) for N = B·C chains, and the trajectory that it drives."""

    def potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats and its gradient [N, d]."""

    def trajectory(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """L leapfrogs from (z, p): the end's z, p, gradient and U, with exactly L gradients."""

    def transition(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        t: int,
    ) -> Transition:
        """Transition number ``t``, with the step sizes [B]."""

    def chain(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        first_step: int,
        steps: int,
        thin: int,
    ) -> Chain:
        """Transitions with a frozen step size [B]; those numbered k·thin − 1 are kept."""


def _by_trajectory(
    target: NetworkTarget | GenericTarget, z: Tensor, U: Tensor, grad: Tensor, **draws: Any
) -> Transition:
    """A transition around the target's trajectory."""
    return transition(target.trajectory, z, U, grad, inv_mass=target.inv_mass, **draws)


@dataclass(frozen=True)
class NetworkTarget:
    """A decoder that is an MLP, with the prior N(0, I): everything runs in the fused ops."""

    x: Tensor  # [B, D]
    net: Network
    likelihood: str
    likelihood_params: Sequence[float | Tensor]
    inv_mass: Tensor | None  # [B, d]
    leapfrog: int
    precision: str
    backend: str | None

    def potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return ops.net_potential(
            z,
            self.x,
            self.net,
            likelihood=self.likelihood,
            likelihood_params=self.likelihood_params,
            precision=self.precision,
            backend=self.backend,
        )

    def trajectory(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return ops.net_trajectory(
            z,
            p,
            grad,
            self.x,
            self.net,
            likelihood=self.likelihood,
            likelihood_params=self.likelihood_params,
            step=step,
            inv_mass=self.inv_mass,
            leapfrog=self.leapfrog,
            precision=self.precision,
            backend=self.backend,
        )

    def transition(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        t: int,
    ) -> Transition:
        draws = {"step": step, "jitter": jitter, "seed": seed, "index": index, "t": t}
        return _by_trajectory(self, z, U, grad, **draws)

    def chain(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        first_step: int,
        steps: int,
        thin: int,
    ) -> Chain:
        return ops.net_chain(
            z,
            U,
            grad,
            self.x,
            self.net,
            likelihood=self.likelihood,
            likelihood_params=self.likelihood_params,
            step=step,
            inv_mass=self.inv_mass,
            leapfrog=self.leapfrog,
            jitter=jitter,
            seed=seed,
            index=index,
            first_step=first_step,
            steps=steps,
            thin=thin,
            precision=self.precision,
            backend=self.backend,
        )


@dataclass(frozen=True)
class GenericTarget:
    """Any decoder and any prior: autograd through them, the fused ops around them."""

    x: Tensor  # [B, D]
    vae: VAE
    likelihood: str
    inv_mass: Tensor | None  # [B, d]
    leapfrog: int
    backend: str | None
    precision: str = "ieee"
    memory_format: str = "contiguous"
    recordings: capture.Graphs = capture.OFF

    def potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        potential = self._potential()
        return potential.exact(z, self.x, potential.decoding())

    def trajectory(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        run = Trajectory(self._potential(), self.leapfrog)
        z, p, grad, U = self.recordings.run(run, z, p, grad, step, self.x, self.inv_mass)
        return z, p, grad, U

    def transition(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        t: int,
    ) -> Transition:
        move = Move(Trajectory(self._potential(), self.leapfrog), jitter, seed)
        if self.recordings.refuses(move):
            # round-off that differs from run to run flips decisions, which a trajectory has none of
            draws = {"step": step, "jitter": jitter, "seed": seed, "index": index, "t": t}
            return _by_trajectory(self, z, U, grad, **draws)
        number = torch.full((), t, dtype=torch.int64, device=z.device)  # a copy would wait
        state = z, U, grad, step, self.x, self.inv_mass, index, number
        return Transition(*self.recordings.run(move, *state))

    def _potential(self) -> Potential:
        return Potential(
            self.vae, self.likelihood, self.backend, self.precision, self.memory_format
        )

    def chain(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        *,
        step: Tensor,
        jitter: float,
        seed: int,
        index: Tensor,
        first_step: int,
        steps: int,
        thin: int,
    ) -> Chain:
        move = partial(self.transition, step=step, jitter=jitter, seed=seed, index=index)
        return repeated(move, z, U, grad, first_step=first_step, steps=steps, thin=thin)
