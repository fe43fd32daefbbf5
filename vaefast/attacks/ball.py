"""The set an attack may search: a ball around each input, cut by the box of valid images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional import l1
from vaefast.ops.pgd_step import pgd_step, stepped

__all__ = ["Ball", "narrowed", "perturbation_norm", "working"]

ORDERS = {"linf": torch.inf, "l2": 2, "l1": 1}


class Ball(NamedTuple):
    """{x' : ‖x' − x‖ ≤ eps, low ≤ x' ≤ high}, one per row.

    Args:
        x: [N, *event], the centres.
        eps: [N], the radii in the scale of x.
        norm: ``"linf"``, ``"l2"`` or ``"l1"``, over all entries of an event.
        low: [N], smallest valid entry.
        high: [N], largest valid entry.
    """

    x: Tensor
    eps: Tensor
    norm: str
    low: Tensor
    high: Tensor

    def per_entry(self, value: Tensor) -> Tensor:
        """[N] as [N, 1, ..., 1], to stand beside x."""
        return value.reshape(-1, *[1] * (self.x.ndim - 1))

    def clip_(self, point: Tensor) -> Tensor:
        """``point`` clipped to the box, in place."""
        return point.clamp_(self.per_entry(self.low), self.per_entry(self.high))

    def ascended(
        self, point: Tensor, grad: Tensor, alpha: Tensor | float, out: Tensor | None = None
    ) -> Tensor:
        """One projected step of length ``alpha`` along ``grad``; a new tensor without ``out``.

        In ℓ1 the steepest step in the box, and the exact projection to ball and box; not fused.
        """
        if self.norm == "l1":
            return self._ascended_in_l1(point, grad, alpha, out)
        if out is None and isinstance(alpha, Tensor):
            return stepped(point, grad, self.x, (alpha, self.eps, self.low, self.high), self.norm)
        return pgd_step(
            point,
            grad,
            self.x,
            alpha=alpha,
            eps=self.eps,
            norm=self.norm,
            low=self.low,
            high=self.high,
            out=out,
        )

    def _ascended_in_l1(
        self, point: Tensor, grad: Tensor, alpha: Tensor | float, out: Tensor | None
    ) -> Tensor:
        x, box = self.x.flatten(1), (self.low, self.high)
        moved = point.flatten(1).double()
        alpha = alpha if isinstance(alpha, Tensor) else self.eps.new_full(self.eps.shape, alpha)
        moved = moved + l1.steepest(grad.flatten(1), moved, alpha, *box)
        moved = l1.projected(moved, x, self.eps, *box)
        near = narrowed(moved, x).reshape(point.shape)
        return near if out is None else out.copy_(near)

    def project_(self, point: Tensor) -> Tensor:
        """The point of the set that projecting to the ball and then clipping gives, in place."""
        still = torch.zeros_like(point)  # a gradient along which a step of any length is none
        return self.ascended(point, still, self.eps, out=point)


def perturbation_norm(x_adv: Tensor, x: Tensor, norm: str) -> Tensor:
    """‖x_adv − x‖ over all entries of an event, computed in float64: [N]."""
    delta = (x_adv.double() - x.double()).flatten(1)
    return torch.linalg.vector_norm(delta, ord=ORDERS[norm], dim=1)


def working(x: Tensor) -> Tensor:
    """x in the dtype that is searched in: float32 for half precision."""
    return x.float() if x.element_size() < 4 else x


def narrowed(point: Tensor, x: Tensor) -> Tensor:
    """``point`` in x's dtype, no entry further from x than it was."""
    near = point.to(x.dtype)
    if near.dtype == point.dtype:
        return near
    before, after = (point.double() - x.double()).abs(), (near.double() - x.double()).abs()
    return torch.where(after > before, torch.nextafter(near, x.expand_as(near)), near)
