"""Chains with a dense mass: leapfrogs in the coordinates in which the mass is the identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vaefast.functional.chain import Chain
from vaefast.functional.hmc import Draws, State
from vaefast.functional.leapfrog import leapfrogs
from vaefast.hmc.adaptation import StepSize
from vaefast.hmc.target import NetworkTarget, Target, transitions

__all__ = ["Whitened", "inside"]


@dataclass(frozen=True)
class Whitened:
    """A target whose chains have M⁻¹ = S Sᵀ, with momenta q = Sᵀp ~ N(0, I)::

        q ← q − ε/2 Sᵀ∇U(z),  z ← z + ε S q,  q ← q − ε/2 Sᵀ∇U(z),   H = U(z) + ½ qᵀq

    These are the leapfrogs of the target in u = S⁻¹z; z itself is what is kept. The trajectories of
    a network are fused ops on the CPU; elsewhere a gradient is one call of the target's potential,
    in full precision.

    Args:
        inside: the target, of unit mass.
        root: S [B, d, d].
        leapfrog: L.
    """

    inside: Target
    root: Tensor
    leapfrog: int

    @property
    def fused(self) -> NetworkTarget | None:
        """The target with S in its ops, where these have kernels that take it."""
        if not isinstance(self.inside, NetworkTarget) or self.inside.x.is_cuda:
            return None
        return replace(self.inside, root=self.root, leapfrog=self.leapfrog)

    @property
    def inv_mass(self) -> None:
        """That of q."""
        return None

    def at(self, chain: Tensor, chains: int) -> Whitened:
        """See :class:`~vaefast.hmc.target.Target`."""
        inside = self.inside.at(chain, chains)
        return replace(self, inside=inside, root=self.root[chain // chains])

    def of_rows(self, rows: Tensor, leapfrog: int) -> Whitened:
        """See :class:`~vaefast.hmc.target.Target`."""
        return Whitened(self.inside.of_rows(rows, leapfrog), self.root[rows], leapfrog)

    def potential(self, z: Tensor, safe: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of z."""
        return self.inside.potential(z, safe)

    def whitened(self, z: Tensor) -> Tensor:
        """u = S⁻¹z [N, d]."""
        rows = z.view(len(self.root), -1, z.shape[1]).mT  # [B, d, C]
        return torch.linalg.solve_triangular(self.root, rows, upper=True).mT.reshape(z.shape)

    def trajectory(self) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
        """L leapfrogs of (z, q), a :class:`~vaefast.functional.hmc.Trajectory`."""
        fused = self.fused
        if fused is not None:
            return fused.trajectory()
        return partial(_leapfrogs, self.inside.potential, self.root, self.leapfrog)

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
        """See :class:`~vaefast.hmc.target.Target`."""
        span = {"first_step": first_step, "steps": steps, "thin": thin}
        fused = self.fused
        if fused is not None:
            return fused.run(state, draws, step, **span)
        return transitions(self.trajectory(), state, draws, step, None, **span)


def inside(target: Target) -> Target:
    """The posterior itself, without what was put around it for masses or path lengths."""
    within = getattr(target, "inside", None)
    return target if within is None else inside(within)


def _leapfrogs(
    potential: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    root: Tensor,
    leapfrog: int,
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`~vaefast.functional.leapfrog.leapfrogs`; ``p`` is q [N, d]."""
    return leapfrogs(
        lambda at: potential(at, z)[1],
        lambda at: potential(at, z),
        z,
        p,
        grad,
        step=step,
        inv_mass=None,
        leapfrog=leapfrog,
        root=root,
    )
