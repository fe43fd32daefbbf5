"""Dense masses in Triton, whose trajectories have none: a launch of the potential per gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaefast.functional.chain import Chain, chain
from vaefast.functional.leapfrog import leapfrogs
from vaefast.functional.rows import chains, finite, nan_where_bad
from vaefast.ops._register import lazy
from vaefast.ops.net_potential import Call as Potential
from vaefast.reference.net_potential import Target

__all__ = ["chain_of_launches", "trajectory_of_launches"]

_launched = lazy("net_potential")


def trajectory_of_launches(call: Any) -> tuple[Tensor, ...]:
    """``net_trajectory`` with a root."""
    state = call.z, call.p, call.grad, call.step
    good = _good(call) & finite(*state)
    return nan_where_bad(good, *_Leapfrogs(call)(*state))


def chain_of_launches(call: Any) -> Chain:
    """``net_chain`` with a root."""
    own = finite(call.step).repeat_interleave(chains(call.z, call.x))
    good = _good(call) & own & finite(call.z, call.U, call.grad)
    found = chain(
        _Leapfrogs(call),
        call.z.clone(),
        torch.where(good, call.U, torch.nan),
        call.grad.clone(),
        step=call.step,
        jitter=call.jitter,
        seed=call.seed,
        index=call.index,
        first_step=call.first_step,
        steps=call.steps,
        thin=call.thin,
    )
    return Chain(*(t.contiguous() for t in found))


class _Leapfrogs:
    """A call's trajectories, a :class:`~vaefast.functional.hmc.Trajectory`."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(
        self, z: Tensor, p: Tensor, grad: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        call = self._call
        return leapfrogs(
            lambda at: self._potential(at)[1],
            self._potential,
            z,
            p,
            grad,
            step=step,
            inv_mass=None,
            leapfrog=call.leapfrog,
            root=call.root,
        )

    def _potential(self, z: Tensor) -> tuple[Tensor, Tensor]:
        call = self._call
        target = call.x, call.net, call.likelihood, call.likelihood_params
        return _launched(Potential(z, *target, call.precision, call.tile, call.backend))


def _good(call: Any) -> Tensor:
    """[N] bool: what a row's image brings is usable."""
    of_input = Target.of(call).good() & finite(call.root)
    return of_input.repeat_interleave(chains(call.z, call.x))
