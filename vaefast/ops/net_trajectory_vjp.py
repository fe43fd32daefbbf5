"""``net_trajectory_vjp``: the adjoint of L leapfrog steps on a decoder network's posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.ops._cpp import kernel, layers_of, like_of, plain_rows, rows_at
from vaefast.ops._inputs import check_like, check_mass, check_precision, check_target
from vaefast.ops._likelihood import check_likelihood
from vaefast.ops._register import register
from vaefast.reference.net_trajectory_vjp import net_trajectory_vjp as reference
from vaefast.runtime import threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_trajectory_vjp"]


class Call(NamedTuple):
    z: Tensor
    p: Tensor
    upstream: Tensor
    upstream_p: Tensor | None
    accepted: Tensor | None
    x: Tensor
    net: Network
    likelihood: str
    likelihood_params: list[Tensor]
    step: Tensor
    inv_mass: Tensor | None
    leapfrog: int
    precision: str
    tile: int
    backend: str | None


def net_trajectory_vjp(
    z: Tensor,
    p: Tensor,
    upstream: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    likelihood_params: Sequence[float | Tensor] = (),
    upstream_p: Tensor | None = None,
    accepted: Tensor | None = None,
    step: float | Tensor,
    inv_mass: Tensor | None = None,
    leapfrog: int,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pull cotangents of a trajectory's end back to its start, and to the images.

        z̄, p̄ of the end; backward through the kicks c·∇U at z_L … z_0 and the drifts between:
        z̄ ← z̄ − c·∂²U/∂z² p̄, x̄ ← x̄ − c·∂²U/∂x∂z p̄; p̄ ← p̄ + step·M⁻¹ z̄

    Equivalent to, with z, p and x that require grad::

        _, grad = net_potential(z, x, net, likelihood=likelihood, backend="reference")
        end = net_trajectory(z, p, grad, x, net, ..., backend="reference")
        torch.autograd.grad(end[:2], (z, p, x), (upstream, upstream_p))

    The shears' adjoints need positions only: these are computed anew from (z, p), a gradient
    each. Step sizes and masses are held.

    Args:
        z: the trajectory's start [N, d]. Row n belongs to x[n // C], with C = N / B.
        p: the momenta there [N, d].
        upstream: cotangents of the end's z [N, d].
        x: images [B, D] in z's dtype.
        net: the decoder, d to D, giving natural parameters.
        likelihood: one of ``vaefast.types.LIKELIHOODS``, as in :func:`log_likelihood`.
        likelihood_params: the Gaussian's [std], a float or tensor, in the scale of x: a scalar,
            [D], or [B, D]; default 1. The others take none.
        upstream_p: cotangents of the end's p [N, d]; None for zeros, which saves a product: a
            transition of HMC forgets its momentum.
        accepted: [N] bool, whether the chain went to the trajectory's end; a row that stayed gives
            its ``upstream`` back, and zeros for p and x. None for all.
        step: step size, float or [N].
        inv_mass: diagonal of M⁻¹ [B, d]; None for unit mass.
        leapfrog: number of steps L, at least 1.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        Cotangents of z [N, d], of p [N, d] and of x [B, D], summed over an input's chains in their
        order. NaN or infinity in an accepted row's inputs makes its rows NaN, and its input's in x.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: mathematics.md §10; the adjoint of the shears is derived there.
    """
    check_target(z, x, net, likelihood)
    shape = list(z.shape)
    check_like(p, "p", z, "z", shape)
    check_like(upstream, "upstream", z, "z", shape)
    if upstream_p is not None:
        check_like(upstream_p, "upstream_p", z, "z", shape)
    _check_accepted(accepted, z)
    like = likelihood, check_likelihood(likelihood, likelihood_params, x)
    check_mass(inv_mass, z, x)
    step = checks.per_row(step, "step", z.shape[0], like=z)
    leapfrog = checks.count(leapfrog, "leapfrog")
    how = check_precision(precision), check_tile(tile)
    state = z, p, upstream, upstream_p, accepted, x, net
    return _op(Call(*state, *like, step, inv_mass, leapfrog, *how, backend))


def _check_accepted(accepted: Tensor | None, z: Tensor) -> None:
    if accepted is None:
        return
    if list(checks.tensor(accepted, "accepted").shape) != [len(z)]:
        raise ValueError(
            f"accepted must be [N] = [{len(z)}] like z's rows, got {list(accepted.shape)}"
        )
    if accepted.dtype != torch.bool:
        raise TypeError(
            f"accepted must be bool, got {checks.short(accepted.dtype)}; pass accepted.bool()"
        )
    checks.same_device(z=z, accepted=accepted)


def _cpp(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    layers, _alive = layers_of(*call.net)
    N, step = len(call.z), call.step.contiguous()
    accepted = None if call.accepted is None else call.accepted.contiguous()
    into_z, into_p, into_x = _fake(call)
    shares = into_x if len(into_x) == N else into_x.zero_().new_empty((N, into_x.shape[1]))
    *given, images, mass = plain_rows(
        call.z, call.p, call.upstream, call.upstream_p, call.x, call.inv_mass
    )
    kernel("net_trajectory_vjp", into_z.dtype)(
        [rows_at(t) for t in (into_z, into_p, into_x, shares)],
        [rows_at(t) for t in given],
        [0 if accepted is None else accepted.data_ptr(), step.data_ptr()],
        rows_at(mass),
        N,
        call.leapfrog,
        layers,
        like_of(images, N, call.likelihood, call.likelihood_params),
        threads.count(),
    )
    return into_z, into_p, into_x


def _fake(call: Call) -> tuple[Tensor, Tensor, Tensor]:
    z, x = call.z, call.x
    return z.new_empty(z.shape), z.new_empty(z.shape), x.new_empty(x.shape)


_op = register(
    Call,
    returns=tuple[Tensor, Tensor, Tensor],
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    instead="its reference runs, on the way back through a chain in captured graphs",
)
