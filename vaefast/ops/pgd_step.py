"""``pgd_step``: one projected gradient step, fused into a single pass over the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.pgd import rounded_down, rounded_down_to
from vaefast.functional.rows import has_plain_rows, rows_of
from vaefast.ops._cpp import kernel
from vaefast.ops._register import lazy, register
from vaefast.ops._schema import Written
from vaefast.reference.pgd_step import pgd_step as reference
from vaefast.runtime import threads

__all__ = ["pgd_step", "stepped"]

NORMS = ("linf", "l2")
ORDERS = ("project_clip", "clip_project")
SMALLEST_NORM_EPS = torch.finfo(torch.float32).tiny
CONTIGUOUS = torch.contiguous_format
PARAMETERS = ("alpha", "eps", "low", "high")


class Call(NamedTuple):
    out: Written
    x_adv: Tensor
    grad: Tensor
    x: Tensor
    scalars: list[float]  # alpha, eps, low, high
    given: list[Tensor]  # the same four as [1 or B, 1 or D], in place of scalars; or none
    norm: str
    order: str
    norm_eps: float
    backend: str | None


def pgd_step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    *,
    alpha: float | Tensor,
    eps: float | Tensor,
    norm: str = "linf",
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    order: str = "project_clip",
    norm_eps: float | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Step along the gradient, project to the ball around ``x``, then clip to the box.

    The step is ``alpha · sign(grad)`` for ℓ∞ and ``alpha · grad / max(‖grad‖₂, norm_eps)`` for ℓ2;
    it ascends. Equivalent to, for ℓ∞::

        (x_adv + alpha * grad.sign()).clamp(x - eps, x + eps).clamp(low, high)

    and, for ℓ2 on rows [B, D]::

        delta = x_adv + alpha * grad / grad.norm(dim=1, keepdim=True).clamp(min=norm_eps) - x
        (x + delta * (eps / delta.norm(dim=1, keepdim=True)).clamp(max=1)).clamp(low, high)

    ``order="clip_project"`` clips the stepped image to the box before it projects, and not again.
    Either way the result lies in the ball and in the box where ``x`` lies in the box; elsewhere
    what comes last holds. The ℓ∞ ball holds without any tolerance: ``eps`` and the ends of
    [x − eps, x + eps] are rounded inwards, so |result − x| computed in float64 is at most ``eps``.
    The ℓ2 ball holds up to the rounding of each entry of the result, half a unit in its last place.

    A parameter is a number, one for each row [B], or one for each element: a tensor of ``x``'s
    number of dimensions that broadcasts with it, such as [1, C, 1, 1]. In ℓ2, ``alpha`` and ``eps``
    are numbers or [B].

    NaN or infinity in a row's images, or NaN in its parameters, makes that row of the result NaN
    (ℓ∞: that element); other rows are untouched. The norms neither overflow nor underflow: a
    gradient of any length from the smallest normal number on gives a step of length ``alpha``.

    Args:
        x_adv: current images [B, *event], in the scale of ``x``.
        grad: gradient of what the attack maximises, like ``x_adv``.
        x: centres of the balls, like ``x_adv``.
        alpha: step length.
        eps: radius of the ball, at least 0. The ℓ2 norm is over all flattened entries.
        norm: ``"linf"`` or ``"l2"``.
        low: lower end of the box; ``-inf`` for none.
        high: upper end of the box; ``inf`` for none.
        order: ``"project_clip"``, as torchattacks and foolbox have it, or ``"clip_project"``, as
            ART has it for ℓ2.
        norm_eps: smallest gradient norm that is divided by (ℓ2 only); default the smallest normal
            number of the dtype, so that only a zero gradient gives no step.
        out: where the result goes; may be ``x_adv`` itself, and must not overlap the inputs in any
            other way. Default: a new tensor.
        backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        The new images, like ``x_adv`` (fast backends keep its memory format, the reference returns
        contiguous ones); ``out`` where it was given.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes or devices that differ, or a parameter's shape that could mean more than
            one thing; an infinite ``alpha``, a negative ``eps``, or ``low`` above ``high``, where
            they are floats (values in tensors are not looked at).
        RuntimeError: a fast backend got an input that requires grad.

    Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks",
    §2.1; the ℓ2 forms as in torchattacks and foolbox (project, then clip) and in ART.
    """
    checks.alike("x_adv", checks.batch(x_adv, "x_adv"), grad=grad, x=x, out=out)
    parameters = (alpha, eps, low, high)
    norm_eps = _check_scalars(parameters, norm, norm_eps, x_adv.dtype)
    checks.option(order, "order", ORDERS)
    scalars, given = _split(parameters, x_adv, norm)
    result = torch.empty_like(x_adv) if out is None else out
    if x_adv.numel() == 0:
        return result
    direct = result.is_contiguous() or (result.ndim == 2 and has_plain_rows(result))
    moved = _flat(result if direct else torch.empty_like(result, memory_format=CONTIGUOUS))
    images = moved, _flat(x_adv), _flat(grad), _flat(x)
    _op(Call(*images, scalars, given, norm, order, norm_eps, backend))
    return result if direct else result.copy_(moved.view(result.shape))


def stepped(
    x_adv: Tensor, grad: Tensor, x: Tensor, parameters: Sequence[Tensor], norm: str
) -> Tensor:
    """:func:`pgd_step` without its checks, for a caller that has made them.

    Args:
        parameters: alpha, eps, low and high, [B] each in x's dtype.
    """
    moved = torch.empty_like(x_adv, memory_format=CONTIGUOUS)
    if x_adv.numel() == 0:
        return moved
    given = [value.unsqueeze(1) for value in parameters]
    smallest = torch.finfo(x.dtype).smallest_normal
    images = _flat(moved), _flat(x_adv), _flat(grad), _flat(x)
    _op(Call(*images, [0.0] * 4, given, norm, ORDERS[0], smallest, None))
    return moved


def _check_scalars(
    parameters: tuple, norm: str, norm_eps: float | None, dtype: torch.dtype
) -> float:
    """The smallest norm that is divided by."""
    checks.option(norm, "norm", NORMS)
    for name, value in zip(PARAMETERS, parameters):
        if not isinstance(value, Tensor):
            checks.number(value, name)
    alpha, eps, low, high = parameters
    if not isinstance(alpha, Tensor) and not math.isfinite(alpha):
        raise ValueError(f"alpha must be finite, got {alpha}")
    if not isinstance(eps, Tensor) and eps < 0:
        raise ValueError(f"eps must be at least 0, got {eps}")
    if not isinstance(low, Tensor) and not isinstance(high, Tensor) and low > high:
        raise ValueError(f"low must not exceed high, got {low} and {high}")
    if norm_eps is None:
        return torch.finfo(dtype).smallest_normal
    if checks.number(norm_eps, "norm_eps") < SMALLEST_NORM_EPS:
        raise ValueError(f"norm_eps must be at least {SMALLEST_NORM_EPS:.3g}, got {norm_eps}")
    return norm_eps


def _split(parameters: tuple, like: Tensor, norm: str) -> tuple[list[float], list[Tensor]]:
    """The parameters as the op takes them: four floats, or four [1 or B, 1 or D] tensors."""
    if not any(isinstance(value, Tensor) for value in parameters):
        return list(parameters), []
    named = dict(zip(PARAMETERS, parameters))
    given = [_matrix(value, name, like) for name, value in named.items()]
    if norm == "l2":
        for name, value in zip(("alpha", "eps"), given):
            if value.shape[1] > 1:
                raise ValueError(
                    f'{name} must be a number or [B] for norm="l2", got '
                    f"{list(named[name].shape)}; only low and high may differ between elements"
                )
    return [0.0] * 4, given


def _is_per_row(value: float | Tensor, like: Tensor) -> TypeGuard[Tensor]:
    """Whether there is nothing to convert: [B] in ``like``'s dtype, on its device."""
    return (
        isinstance(value, Tensor)
        and value.ndim == 1
        and value.shape[0] == like.shape[0]
        and value.dtype == like.dtype
        and value.device == like.device
    )


def _matrix(value: float | Tensor, name: str, like: Tensor) -> Tensor:
    """One value, one per row or one per element as [1 or B, 1 or D] in ``like``'s dtype."""
    if _is_per_row(value, like):
        return value.unsqueeze(1)
    if not isinstance(value, Tensor):
        value = like.new_full((), value, dtype=torch.float64)
    elif value.device != like.device:
        checks.same_device(x_adv=like, **{name: value})
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} must hold real numbers, got {checks.short(value.dtype)}")
    value = rounded_down_to(value, like.dtype) if name == "eps" else value.to(like.dtype)
    rows, *event = like.shape
    if value.ndim == 0 or list(value.shape) == [rows]:
        return value.reshape(-1, 1)
    if value.ndim != like.ndim or not _broadcasts(value, like):
        channels = [1, *event[:1], *(1 for _ in event[1:])]
        raise ValueError(
            f"{name} must be a number, [B] = [{rows}], or one per element that broadcasts with "
            f"x_adv {list(like.shape)} in as many dimensions, got {list(value.shape)}; write one "
            f"per channel as {channels}"
        )
    if math.prod(value.shape[1:]) == 1:
        return value.reshape(-1, 1)
    return rows_of(value.expand(-1, *event).flatten(1))


def _broadcasts(value: Tensor, like: Tensor) -> bool:
    return all(n in (1, m) for n, m in zip(value.shape, like.shape))


def _flat(t: Tensor) -> Tensor:
    """[B, D] with contiguous rows; a view wherever the layout allows one."""
    if t.is_contiguous():
        return t if t.ndim == 2 else t.flatten(1)
    return rows_of(t.flatten(1))


def _cpp(call: Call) -> None:
    out, x_adv, grad, x = call[:4]
    alpha, eps, *box = call.scalars
    scalars = [alpha, rounded_down(eps, x.dtype), *box]
    kernel("pgd_step", x.dtype)(
        (out.data_ptr(), x_adv.data_ptr(), grad.data_ptr(), x.data_ptr()),
        (out.stride(0), x_adv.stride(0), grad.stride(0), x.stride(0)),
        *x.shape,
        scalars,
        [(t.data_ptr(), *strides(t)) for t in call.given],
        call.norm == "l2",
        call.order == "clip_project",
        call.norm_eps,
        threads.count(),
    )


def strides(t: Tensor) -> tuple[int, int]:
    """Elements from row to row and from column to column; 0 along what has one value for all."""
    return (t.stride(0) if t.shape[0] > 1 else 0), (1 if t.shape[1] > 1 else 0)


_op = register(
    Call,
    returns=None,
    fake=lambda call: None,
    reference=reference,
    cpp=_cpp,
    triton=lambda call: lazy("pgd_step")(*call[:-1]),
)
