"""A potential energy as a model: what the sampler takes for a posterior without a VAE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.models import context as contexts
from vaefast.models.context import Context
from vaefast.models.joint import JointVAE
from vaefast.models.likelihoods import LikelihoodAt

__all__ = ["PotentialModel"]


class PotentialModel(JointVAE):
    """U(z) in place of −log p(x, z); its x is an empty place for each row.

    Args:
        potential: (z [n, d]) or (z, context) ↦ U [n] in nats, or (U [n], ∇U [n, d]).
        latents: d.
    """

    def __init__(self, potential: Callable[..., Any], latents: int) -> None:
        super().__init__(_no_density, latents, None)
        self.potential = potential

    def likelihood_at(self, z: Tensor, context: Context = None) -> LikelihoodAt:
        at: Any = _PotentialAt(self.potential, self.unflat(z), context)
        return at

    def _check_context(self, context: Context, rows: int) -> None:
        contexts.check(context, rows)  # the potential takes it, whatever it calls it


class _PotentialAt(NamedTuple):
    """−U at n points, as a :class:`~vaefast.models.likelihoods.LikelihoodAt`."""

    potential: Callable[..., Any]
    z: Tensor  # [n, d]
    context: Context

    def log_prob(self, x: Tensor) -> Tensor:
        """−U(z) [n] float64."""
        given = () if self.context is None else (self.context,)
        value = self.potential(self.z, *given)
        gradient = None
        if isinstance(value, tuple) and len(value) == 2:
            value, gradient = value
        n = len(self.z)
        if not isinstance(value, Tensor):
            raise TypeError(
                f"potential must return a tensor [n] = [{n}], got {type(value).__name__}"
            )
        if list(value.shape) != [n]:
            raise ValueError(
                f"potential must return one energy per row, [n] = [{n}], got {list(value.shape)}; "
                "sum over latents"
            )
        if gradient is not None:
            if list(gradient.shape) != list(self.z.shape):
                raise ValueError(
                    f"potential's gradient must be like z {list(self.z.shape)}, got "
                    f"{list(gradient.shape)}"
                )
            value = _Given.apply(self.z, value.detach(), gradient.detach())
        return -value.double()


class _Given(torch.autograd.Function):
    """An energy [n] whose gradient in z was computed beside it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return outer.to(gradient.dtype).unsqueeze(1) * gradient, None, None


def _no_density(z: Tensor, x: Tensor) -> Tensor:
    raise NotImplementedError("a potential has no x")
