"""How chains move in the potential of any decoder and prior, as functions of tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vaefast import ops
from vaefast.functional.hmc import Draws, State, transition
from vaefast.hmc.potential import Potential

__all__ = ["CapturableTransition", "Trajectory"]


@dataclass(frozen=True)
class Trajectory:
    """L leapfrogs: the gradients at both ends are exact, those between them may be rounded.

    The kicks so form a palindrome, and the chain leaves the posterior exactly invariant
    (mathematics.md §10); both energies are values of one function.
    """

    potential: Potential
    leapfrog: int

    def __call__(
        self,
        z: Tensor,
        p: Tensor,
        grad: Tensor,
        step: Tensor,
        x: Tensor,
        inv_mass: Tensor | None,
        *context: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The end's z, p, gradient and U, from z, p and the exact gradient at z, each [N, d]."""
        start, z, p = z, z.clone(), p.clone()
        decode = self.potential.decoding(*context)

        def leap(grad: Tensor, kick: float, drift: bool) -> None:
            ops.leapfrog_step(
                z,
                p,
                grad,
                step,
                inv_mass=inv_mass,
                kick=kick,
                drift=drift,
                backend=self.potential.backend,
            )

        leap(grad, 0.5, True)
        for _ in range(self.leapfrog - 1):
            leap(self.potential.rounded(z, x, decode, start), 1.0, True)
        U, grad = self.potential.exact(z, x, decode, start)
        leap(grad, 0.5, False)
        return z, p, grad, U


@dataclass(frozen=True)
class CapturableTransition:
    """One HMC transition as a pure function of tensors.

    The transition index is a tensor too, so one CUDA-graph capture serves every step.
    """

    trajectory: Trajectory
    jitter: float
    seed: int

    def __call__(
        self,
        z: Tensor,
        U: Tensor,
        grad: Tensor,
        step: Tensor,
        x: Tensor,
        inv_mass: Tensor | None,
        index: Tensor,
        t: Tensor,
        *context: Tensor,
    ) -> tuple[Tensor, ...]:
        """The fields of the new State and of the Info; t is int64 []."""

        def trajectory(
            z: Tensor, p: Tensor, grad: Tensor, step: Tensor
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            return self.trajectory(z, p, grad, step, x, inv_mass, *context)

        noise = Draws(index, self.seed, self.jitter).noise(z, t)
        state, info = transition(
            State(z, U, grad), trajectory, step=step, inv_mass=inv_mass, noise=noise
        )
        return *state, *info
