"""The gradient that a step takes, and what becomes of one that no step can take.

Searches go ahead without looking at their gradients. A gradient that is not finite leaves NaN in
the next point (that is what the step promises), one that is 0 leaves the point where it is; rows
that show either are searched once more with care (:mod:`vaefast.attacks.engine`): the objective
is brought near 1, so that its gradient neither overflows nor underflows, and entries that are not
finite all the same count as 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.attacks.search import Bound, ClosedForm

__all__ = ["Gradients", "cleaned", "value_and_gradient"]

NO_GRADIENT = (
    "the model's output does not depend on x through autograd; "
    "remove torch.no_grad() or .detach() from its encoder"
)
EXPONENT_BITS = 0x7FF0000000000000  # of a float64


class Gradients(NamedTuple):
    """What the gradients of N searches were."""

    nonfinite: Tensor  # [N] int64, how many had an entry that was not finite and counted as 0
    usable: Tensor  # [N] bool, whether any had an entry to step along

    @classmethod
    def unremarkable(cls, like: Tensor) -> Gradients:
        """Those of [N, ...] points that moved and stayed finite."""
        zeros = torch.zeros(len(like), dtype=torch.int64, device=like.device)
        return cls(zeros, zeros == 0)


def value_and_gradient(
    objective: Bound, point: Tensor, *, scaled: bool = False
) -> tuple[Tensor, Tensor]:
    """The objective [N] float64 and its gradient at ``point`` [N, *event].

    Args:
        objective: bound to the inputs of the points.
        point: where.
        scaled: the gradient is of the objective over the power of two below it, a constant.

    Raises:
        ValueError: the objective does not depend on the point through autograd.
    """
    function, constants = objective.function, objective.constants
    with torch.enable_grad():
        variable = point.detach().requires_grad_()
        if isinstance(function, ClosedForm):
            outputs = function.outputs(variable, *constants)
        else:
            outputs = (objective(variable),)
    ends = tuple(t.detach() for t in outputs)
    if isinstance(function, ClosedForm):
        value, slopes = function.sloped(ends, *constants)
    else:
        value, slopes = ends[0], (torch.ones_like(ends[0]),)
    pulled = [(t, s) for t, s in zip(outputs, slopes) if s is not None and t.requires_grad]
    if scaled:
        weight = _weight(value)
        pulled = [(t, s * weight.view(-1, *[1] * (s.ndim - 1))) for t, s in pulled]
    return value, _pulled(variable, [(t, s.to(t.dtype)) for t, s in pulled])


def _pulled(variable: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient in ``variable`` of outputs with these derivatives."""
    grad = None
    if pairs:
        outputs, slopes = zip(*pairs)
        (grad,) = torch.autograd.grad(outputs, variable, slopes, allow_unused=True)
    if grad is None:
        raise ValueError(NO_GRADIENT)
    return grad


def _weight(value: Tensor) -> Tensor:
    """1 / 2^⌊log₂|v|⌋, within [2^-1000, 2^400]; 1 at 0."""
    below = (value.view(torch.int64) & EXPONENT_BITS).view(torch.float64)
    return 1.0 / torch.where(below == 0, 1.0, below.clamp(2.0**-400, 2.0**1000))


def cleaned(grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient [N, *event] without entries that are not finite, which rows had some, and
    which have an entry other than 0: [N] bool each.
    """
    finite = grad.isfinite()
    clean = torch.where(finite, grad, torch.zeros_like(grad))
    return clean, ~finite.flatten(1).all(1), (clean != 0).flatten(1).any(1)
