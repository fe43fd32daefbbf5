"""``pgd_step``: one projected gradient step, fused into a single pass over the images."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.rows import has_plain_rows, rows_of
from vaefast.ops._cpp import kernel
from vaefast.ops._register import lazy, register
from vaefast.ops._schema import Written
from vaefast.reference.pgd_step import pgd_step as reference

__all__ = ["pgd_step"]

NORMS = ("linf", "l2")
SMALLEST_NORM_EPS = torch.finfo(torch.float32).tiny
CONTIGUOUS = torch.contiguous_format
PARAMETERS = ("alpha", "eps", "low", "high")


class Call(NamedTuple):
    out: Written
    x_adv: Tensor
    grad: Tensor
    x: Tensor
    scalars: list[float]  # alpha, eps, low, high
    rows: Tensor | None  # the same for each row [4, B], in place of scalars
    norm: str
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
    norm_eps: float = 1e-12,
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

    NaN or infinity in a row's inputs makes that row of the result NaN (ℓ∞: that element); other
    rows are untouched. The norms neither overflow nor underflow.

    Args:
        x_adv: current images [B, *event], in the scale of ``x``.
        grad: gradient of what the attack maximises, like ``x_adv``.
        x: centres of the balls, like ``x_adv``.
        alpha: step length, float or [B].
        eps: radius of the ball, float or [B], at least 0. The norm is over all flattened entries.
        norm: ``"linf"`` or ``"l2"``.
        low: lower end of the box, float or [B]; ``-inf`` for none.
        high: upper end of the box, float or [B]; ``inf`` for none.
        norm_eps: smallest gradient norm that is divided by (ℓ2 only).
        out: where the result goes; may be ``x_adv`` itself, and must not overlap the inputs in any
            other way. Default: a new tensor.
        backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        The new images, like ``x_adv`` (fast backends keep its memory format, the reference returns
        contiguous ones); ``out`` where it was given.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes or devices that differ; an infinite ``alpha``, a negative ``eps``, or
            ``low`` above ``high``, where they are floats (values in tensors are not looked at).
        RuntimeError: a fast backend met an input that requires grad.

    Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks",
    §2.1; the ℓ2 form as in torchattacks and foolbox (project, then clip).
    """
    checks.alike("x_adv", checks.batch(x_adv, "x_adv"), grad=grad, x=x, out=out)
    parameters = (alpha, eps, low, high)
    _check_scalars(parameters, norm, norm_eps)
    scalars, rows = _split(parameters, x_adv)
    result = torch.empty_like(x_adv) if out is None else out
    if x_adv.numel() == 0:
        return result
    direct = result.is_contiguous() or (result.ndim == 2 and has_plain_rows(result))
    moved = _flat(result if direct else torch.empty_like(result, memory_format=CONTIGUOUS))
    images = moved, _flat(x_adv), _flat(grad), _flat(x)
    _op(Call(*images, scalars, rows, norm, norm_eps, backend))
    return result if direct else result.copy_(moved.view(result.shape))


def _check_scalars(parameters: tuple, norm: str, norm_eps: float) -> None:
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
    if checks.number(norm_eps, "norm_eps") < SMALLEST_NORM_EPS:
        raise ValueError(f"norm_eps must be at least {SMALLEST_NORM_EPS:.3g}, got {norm_eps}")


def _split(parameters: tuple, like: Tensor) -> tuple[list[float], Tensor | None]:
    """The parameters as the op takes them: four floats, or [4, B] where one of them is per row."""
    if not any(isinstance(value, Tensor) for value in parameters):
        return list(parameters), None
    named = dict(zip(PARAMETERS, parameters))
    checks.same_device(x_adv=like, **{k: v for k, v in named.items() if isinstance(v, Tensor)})
    rows = [checks.per_row(v, name, len(like), like=like) for name, v in named.items()]
    return [0.0] * 4, torch.stack(rows)


def _flat(t: Tensor) -> Tensor:
    """[B, D] with contiguous rows; a view wherever the layout allows one."""
    if t.is_contiguous():
        return t if t.ndim == 2 else t.flatten(1)
    return rows_of(t.flatten(1))


def _cpp(call: Call) -> None:
    images = call[:4]
    kernel("pgd_step", call.x.dtype)(
        tuple(t.data_ptr() for t in images),
        tuple(t.stride(0) for t in images),
        *call.x.shape,
        call.scalars,
        0 if call.rows is None else call.rows.data_ptr(),
        call.norm == "l2",
        call.norm_eps,
        torch.get_num_threads(),
    )


_op = register(
    Call,
    returns=None,
    fake=lambda call: None,
    reference=reference,
    cpp=_cpp,
    triton=lambda call: lazy("pgd_step")(*call[:-1]),
)
