"""``leapfrog_step``: a kick of the momentum and a drift of the position, in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from vaefast import checks
from vaefast.ops._autograd import through_reference
from vaefast.ops._inputs import check_like, check_mass, check_matrix
from vaefast.ops._register import lazy, register, rows_of
from vaefast.reference.leapfrog_step import leapfrog_step as reference
from vaefast.runtime import backends

__all__ = ["leapfrog_step"]


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
        backend: ``"reference"``, ``"cpp"`` or ``"triton"``; ``None`` chooses.

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
    chosen = backends.resolve("leapfrog_step", backend, z)
    kick = checks.number(kick, "kick")
    if through_reference("leapfrog_step", backend, z, p, grad, step, inv_mass):
        reference(z, p, grad, step, inv_mass=inv_mass, kick=kick, drift=drift)
    else:
        _op(z, p, grad, step, inv_mass, kick, drift, chosen)


def _run_reference(z, p, grad, step, inv_mass, kick, drift) -> None:
    reference(z, p, grad, step, inv_mass=inv_mass, kick=kick, drift=drift)


def _on_rows(run: Callable) -> Callable:
    """A kernel for matrices with contiguous rows and at least one element, for any others."""

    def call(z, p, grad, step, inv_mass, kick, drift) -> None:
        if z.numel() == 0:
            return
        state = [t if _has_plain_rows(t) else t.contiguous() for t in (z, p)]
        mass = None if inv_mass is None else rows_of(inv_mass)
        run(*state, rows_of(grad), step.contiguous(), mass, kick, drift)
        for given, moved in zip((z, p), state):
            if moved is not given and (drift or given is p):
                given.copy_(moved)

    return call


def _run_cpp(z, p, grad, step, inv_mass, kick, drift) -> None:
    N, d = z.shape
    groups = N if inv_mass is None else len(inv_mass)
    data = (z, p, grad, inv_mass)
    _kernel(z.dtype)(
        [0 if t is None else t.data_ptr() for t in data],
        [0 if t is None else t.stride(0) for t in data],
        step.data_ptr(),
        N,
        d,
        N // groups,
        kick,
        drift,
        torch.get_num_threads(),
    )


def _has_plain_rows(t: Tensor) -> bool:
    """Contiguous rows that lie one behind the other."""
    return t.is_contiguous() or (t.stride(1) == 1 and t.stride(0) >= t.shape[1])


@cache
def _kernel(dtype: torch.dtype) -> Callable[..., None]:
    from vaefast import _C

    return _C.leapfrog_step_f32 if dtype == torch.float32 else _C.leapfrog_step_f64


_op = register(
    "leapfrog_step",
    "(Tensor(a!) z, Tensor(b!) p, Tensor grad, Tensor step, Tensor? inv_mass,"
    " float kick, bool drift, str backend) -> ()",
    fake=lambda *arguments: None,
    reference=_run_reference,
    cpp=_on_rows(_run_cpp),
    triton=_on_rows(lazy("vaefast.kernels.leapfrog_step", "leapfrog_step")),
)
