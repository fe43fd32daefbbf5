"""``pgd_step`` in plain PyTorch: the specification of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaefast.functional.pgd import projected_step, rounded_down

if TYPE_CHECKING:
    from vaefast.ops.pgd_step import Call

__all__ = ["pgd_step"]


def pgd_step(call: Call) -> None:
    """One ascent step, projected to the ball around ``x`` and clipped to the box, into out."""
    alpha, eps, low, high = call.given or call.scalars
    if isinstance(eps, float):
        eps = rounded_down(eps, call.x.dtype)
    images, how = (call.x_adv, call.grad, call.x), (call.norm, call.norm_eps, call.order)
    call.out.copy_(projected_step(*images, alpha, eps, low, high, *how))
