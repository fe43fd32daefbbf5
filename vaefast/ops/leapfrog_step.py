"""``leapfrog_step``: a kick of the momentum and a drift of the position, in place."""

from __future__ import annotations

from torch import Tensor

from vaefast import backends, checks
from vaefast.ops._autograd import through_reference
from vaefast.ops._inputs import check_like, check_mass, check_matrix
from vaefast.ops._register import register
from vaefast.reference.leapfrog_step import leapfrog_step as reference

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


_op = register(
    "leapfrog_step",
    "(Tensor(a!) z, Tensor(b!) p, Tensor grad, Tensor step, Tensor? inv_mass,"
    " float kick, bool drift, str backend) -> ()",
    fake=lambda *arguments: None,
    reference=_run_reference,
)
