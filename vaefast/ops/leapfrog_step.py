"""``leapfrog_step``: a kick of the momentum and a drift of the position, in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vaefast import checks
from vaefast.functional.rows import has_plain_rows, rows_of
from vaefast.ops._cpp import kernel
from vaefast.ops._inputs import check_like, check_mass, check_matrix
from vaefast.ops._register import lazy, register
from vaefast.ops._schema import Written
from vaefast.reference.leapfrog_step import leapfrog_step as reference
from vaefast.runtime import threads

__all__ = ["leapfrog_step"]


class Call(NamedTuple):
    z: Written
    p: Written
    grad: Tensor
    step: Tensor
    inv_mass: Tensor | None
    kick: float
    drift: bool
    backend: str | None


def leapfrog_step(
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    step: float | Tensor,
    *,
    inv_mass: Tensor | None = None,
    kick: float = 1.0,
    drift: bool = True,
    backend: str | None = None,
) -> None:
    """Kick the momentum, then drift the position; both are overwritten.

        p ← p − kick·step·grad,  z ← z + step·M⁻¹p  (if drift)

    Equivalent to, for one chain per input::

        p -= kick * step[:, None] * grad
        z += step[:, None] * inv_mass * p

    A trajectory starts and ends with ``kick=0.5``, its last kick with ``drift=False``. NaN or
    infinity in a row's inputs makes that row of z and p NaN (of p alone without the drift, which
    then does not look at z).

    Args:
        z: positions [N, d], overwritten.
        p: momenta [N, d], overwritten.
        grad: gradients of the potential at z, [N, d], in nats per unit of z.
        step: step size, float or [N].
        inv_mass: diagonal of M⁻¹ [B, d], row n of z belongs to inv_mass[n // C]; None for one.
        kick: fraction of the step that the momentum takes.
        drift: whether the position moves.
        backend: as for every op, see :mod:`vaefast.ops`.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes or devices that differ.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §2.3.
    """
    check_matrix(z, "z", "[N, d]")
    check_like(p, "p", z, "z", list(z.shape))
    check_like(grad, "grad", z, "z", list(z.shape))
    check_mass(inv_mass, z)
    step = checks.per_row(step, "step", z.shape[0], like=z)
    _op(Call(z, p, grad, step, inv_mass, checks.number(kick, "kick"), drift, backend))


def _on_rows(run: Callable[[Call], None]) -> Callable[[Call], None]:
    """A kernel for matrices with contiguous rows and at least one element, for any others."""

    def on_any(call: Call) -> None:
        given = call.z, call.p
        if given[0].numel() == 0:
            return
        z, p = state = [t if has_plain_rows(t) else t.contiguous() for t in given]
        mass = None if call.inv_mass is None else rows_of(call.inv_mass)
        run(Call(z, p, rows_of(call.grad), call.step.contiguous(), mass, *call[5:]))
        for before, after in zip(given, state):
            if after is not before and (call.drift or before is call.p):
                before.copy_(after)

    return on_any


def _cpp(call: Call) -> None:
    N, d = call.z.shape
    groups = N if call.inv_mass is None else len(call.inv_mass)
    data = (call.z, call.p, call.grad, call.inv_mass)
    kernel("leapfrog_step", call.z.dtype)(
        [0 if t is None else t.data_ptr() for t in data],
        [0 if t is None else t.stride(0) for t in data],
        call.step.data_ptr(),
        N,
        d,
        N // groups,
        call.kick,
        call.drift,
        threads.count(),
    )


_op = register(
    Call,
    returns=None,
    fake=lambda call: None,
    reference=reference,
    cpp=_on_rows(_cpp),
    triton=_on_rows(lazy("leapfrog_step")),
)
