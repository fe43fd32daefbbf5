"""The posterior p(z|x) as a potential energy: a fast path for networks, one for all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from vaefast import ops
from vaefast.functional.chain import Chain, repeated
from vaefast.functional.hmc import Draws, Info, State, transition
from vaefast.hmc.adaptation import StepSize
from vaefast.hmc.generic import CapturableTransition, Trajectory
from vaefast.hmc.potential import Potential
from vaefast.models import context as conditions
from vaefast.models.context import Context
from vaefast.models.forms import Forms
from vaefast.models.mixture import Components
from vaefast.runtime import capture
from vaefast.types import Network

__all__ = ["GenericTarget", "NetworkTarget", "Target", "transitions"]


class Target(Protocol):
    """U(z) = −log p(x|z) − log p(z) for N = B·C chains, and how they move in it."""

    @property
    def inv_mass(self) -> Tensor | None:
        """[B, d]."""

    def at(self, chain: Tensor, chains: int) -> Target:
        """Of some chains, numbers [n] in N, each with its input to itself; ``chains`` is C."""

    def of_rows(self, rows: Tensor, leapfrog: int) -> Target:
        """Of some rows, numbers in B, with all their chains and another L."""

    def trajectory(self) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
        """L leapfrogs, a :class:`~vaefast.functional.hmc.Trajectory`."""

    def potential(self, z: Tensor, safe: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """U [N] float64 in nats and its gradient [N, d].

        NaN where a model of the user's raises at z, if ``safe`` [N, d] is given, where it does not.
        """

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
        """Transitions ``first_step`` to ``first_step + steps − 1``, L gradients each.

        Args:
            step: step sizes [B] of all transitions, or what learns one from each transition.
            thin: k > 0 keeps each transition whose index plus one is a multiple of k.
        """


@dataclass(frozen=True)
class NetworkTarget:
    """A decoder that is a network, with the prior N(0, I): everything runs in the fused ops."""

    x: Tensor  # [B, D]
    net: Network
    likelihood: str
    likelihood_params: Sequence[float | Tensor]  # a scalar or [D] each
    inv_mass: Tensor | None  # [B, d]
    leapfrog: int
    precision: str
    backend: str | None
    root: Tensor | None = None  # S [B, d, d] with M⁻¹ = S Sᵀ, in place of inv_mass; momenta are Sᵀp

    def at(self, chain: Tensor, chains: int) -> NetworkTarget:
        return self.of_rows(chain // chains, self.leapfrog)

    def of_rows(self, rows: Tensor, leapfrog: int) -> NetworkTarget:
        mass, root = (None if t is None else t[rows] for t in (self.inv_mass, self.root))
        return replace(self, x=self.x[rows], inv_mass=mass, root=root, leapfrog=leapfrog)

    def potential(self, z: Tensor, safe: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return ops.net_potential(z, self.x, self.net, **self._shared())

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
        if isinstance(step, Tensor):
            return ops.net_chain(
                *state,
                self.x,
                self.net,
                step=step.to(state.z.dtype),
                inv_mass=self.inv_mass,
                root=self.root,
                leapfrog=self.leapfrog,
                jitter=draws.jitter,
                seed=draws.seed,
                index=draws.index,
                first_step=first_step,
                steps=steps,
                thin=thin,
                **self._shared(),
            )
        span = {"first_step": first_step, "steps": steps, "thin": thin}
        return transitions(self.trajectory(), state, draws, step, self.inv_mass, **span)

    def trajectory(self) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
        """L leapfrogs, a :class:`~vaefast.functional.hmc.Trajectory`."""
        return partial(
            ops.net_trajectory,
            x=self.x,
            net=self.net,
            inv_mass=self.inv_mass,
            root=self.root,
            leapfrog=self.leapfrog,
            **self._shared(),
        )

    def trajectory_vjp(self) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
        """The adjoint of :meth:`trajectory`: :func:`vaefast.ops.net_trajectory_vjp` on it."""
        return partial(
            ops.net_trajectory_vjp,
            x=self.x,
            net=self.net,
            inv_mass=self.inv_mass,
            leapfrog=self.leapfrog,
            **self._shared(),
        )

    def _shared(self) -> dict[str, Any]:
        """What all ops are given."""
        return {
            "likelihood": self.likelihood,
            "likelihood_params": self.likelihood_params,
            "precision": self.precision,
            "backend": self.backend,
        }


@dataclass(frozen=True)
class GenericTarget:
    """Any decoder and any prior: autograd through them, the fused ops around them.

    Where ``net`` is given the decoder is that network: one fused op per leapfrog for the
    likelihood, and the prior's gradient beside it.
    """

    x: Tensor  # [B, D]
    forms: Forms  # of the decoder
    likelihood: str
    inv_mass: Tensor | None  # [B, d]
    leapfrog: int
    backend: str | None
    precision: str = "ieee"
    captures: capture.Graphs = capture.OFF
    context: Context = None  # of the N chains
    net: Network | None = None
    prior: Components | None = None  # the VAE's, read once

    def at(self, chain: Tensor, chains: int) -> GenericTarget:
        row = chain // chains
        mass = None if self.inv_mass is None else self.inv_mass[row]
        context = conditions.rows(self.context, chain)
        once = capture.OFF  # shapes that do not come again
        return replace(self, x=self.x[row], inv_mass=mass, context=context, captures=once)

    def of_rows(self, rows: Tensor, leapfrog: int) -> GenericTarget:
        mass = None if self.inv_mass is None else self.inv_mass[rows]
        own = replace(self, x=self.x[rows], inv_mass=mass, leapfrog=leapfrog)
        return replace(own, captures=capture.OFF, context=self._context_of(rows))

    def _context_of(self, rows: Tensor) -> Context:
        """That of the rows' chains, C for every row of x."""
        if not (given := self._conditions()):
            return None
        chains = torch.arange(len(given[0]), device=rows.device).view(len(self.x), -1)[rows]
        return conditions.rows(self.context, chains.flatten())

    def potential(self, z: Tensor, safe: Tensor | None = None) -> tuple[Tensor, Tensor]:
        potential = self._potential()
        return potential.exact(z, self.x, potential.decoding(*self._conditions()), safe)

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
        eager = None if self.captures.active else draws.noises(state.z, first_step, steps)
        trajectory, mass = self.trajectory(), self.inv_mass
        captured = CapturableTransition(
            Trajectory(self._potential(), self.leapfrog), draws.jitter, draws.seed
        )

        def move(state: State, step: Tensor, t: int) -> tuple[State, Info]:
            if eager is None and not self.captures.refuses(captured):
                index = torch.full(
                    (), t, dtype=torch.int64, device=step.device
                )  # a copy would wait
                inputs = *state, step, self.x, mass, draws.index, index, *self._conditions()
                results = self.captures.run(captured, *inputs)
                return State(*results[:3]), Info(*results[3:])
            # a transition whose decisions flip with round-off is no capture; its trajectory may be
            noise = draws.noise(state.z, t) if eager is None else next(eager)
            return transition(state, trajectory, step=step, inv_mass=mass, noise=noise)

        moved = _learning(move, step)
        return repeated(moved, state, first_step=first_step, steps=steps, thin=thin)

    def trajectory(self) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
        """L leapfrogs, a :class:`~vaefast.functional.hmc.Trajectory`."""
        run = Trajectory(self._potential(), self.leapfrog)

        def trajectory(
            z: Tensor, p: Tensor, grad: Tensor, step: Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            inputs = z, p, grad, step, self.x, self.inv_mass, *self._conditions()
            z, p, grad, U = self.captures.run(run, *inputs)
            return z, p, grad, U

        return trajectory

    def _potential(self) -> Potential:
        names = tuple(self.context) if isinstance(self.context, dict) else None
        captured = self.captures.active or self.x.is_cuda
        how = self.backend, self.precision, names, captured
        return Potential(self.forms, self.likelihood, *how, self.net, self.prior)

    def _conditions(self) -> tuple[Tensor, ...]:
        """The context as tensors, which a capture takes for inputs."""
        if isinstance(self.context, dict):
            return tuple(self.context.values())
        return () if self.context is None else (self.context,)


def transitions(
    trajectory: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]],
    state: State,
    draws: Draws,
    step: Tensor | StepSize,
    inv_mass: Tensor | None,
    **span: int,
) -> Chain:
    """Transitions by a trajectory, one call each; ``span`` as :meth:`Target.run` takes it."""
    noises = draws.noises(state.z, span["first_step"], span["steps"])

    def move(state: State, step: Tensor, t: int) -> tuple[State, Info]:
        return transition(state, trajectory, step=step, inv_mass=inv_mass, noise=next(noises))

    return repeated(_learning(move, step), state, **span)


def _learning(
    move: Callable[[State, Tensor, int], tuple[State, Info]], step: Tensor | StepSize
) -> Callable[[State, int], tuple[State, Info]]:
    """Transitions with these step sizes [B], or with those learnt so far."""

    def moved(state: State, t: int) -> tuple[State, Info]:
        if isinstance(step, Tensor):
            return move(state, step, t)
        sizes = step.step_size.to(state.z.dtype)
        state, info = move(state, sizes, t)
        both = torch.stack((info.accept_prob, info.accepted))  # [2, N] float64
        step.update(*both.view(2, sizes.shape[0], -1).mean(2).unbind())
        return state, info

    return moved
