"""``net_trajectory``: L leapfrog steps on the posterior of a decoder network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.ops._cpp import (
    by_rows_and_columns,
    kernel,
    layers_of,
    like_of,
    plain_rows,
    root_at,
    rows_at,
)
from vaefast.ops._dense import trajectory_of_launches
from vaefast.ops._inputs import check_like, check_mass, check_precision, check_root, check_target
from vaefast.ops._likelihood import check_likelihood
from vaefast.ops._register import lazy, register
from vaefast.reference.net_trajectory import net_trajectory as reference
from vaefast.runtime import threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["net_trajectory"]


class Call(NamedTuple):
    z: Tensor
    p: Tensor
    grad: Tensor
    x: Tensor
    net: Network
    likelihood: str
    likelihood_params: list[Tensor]
    step: Tensor
    inv_mass: Tensor | None
    root: Tensor | None
    leapfrog: int
    precision: str
    tile: int
    backend: str | None


def net_trajectory(
    z: Tensor,
    p: Tensor,
    grad: Tensor,
    x: Tensor,
    net: Network,
    *,
    likelihood: str,
    likelihood_params: Sequence[float | Tensor] = (),
    step: float | Tensor,
    inv_mass: Tensor | None = None,
    root: Tensor | None = None,
    leapfrog: int,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Follow Hamilton's equations for ``leapfrog`` steps, with exactly as many gradients.

        p ← p − ½ step·∇U(z);  L times: z ← z + step·M⁻¹p, p ← p − step·∇U(z) (the last by half)

    Equivalent to, with ``U`` and its gradient from :func:`net_potential`::

        for _ in range(leapfrog):
            leapfrog_step(z, p, grad, step, inv_mass=inv_mass, kick=0.5)
            U, grad = net_potential(z, x, net, likelihood=likelihood)
            leapfrog_step(z, p, grad, step, kick=0.5, drift=False)

    The first half kick uses ``grad``; the end's U comes from the last gradient's forward pass.
    The map preserves volume and is reversible: from (z', −p') it returns to (z, −p), to
    round-off. NaN or infinity in a row's inputs makes that row of every result NaN.

    Args:
        z: positions [N, d]. Row n belongs to x[n // C], with C = N / B.
        p: momenta [N, d].
        grad: gradients of U at z [N, d], from :func:`net_potential` or the last trajectory.
        x: images [B, D] in z's dtype.
        net: the decoder, d to D, giving natural parameters.
        likelihood: one of ``vaefast.types.LIKELIHOODS``, as in :func:`log_likelihood`.
        likelihood_params: the Gaussian's [std], a float or tensor, in the scale of x: a scalar,
            [D], or [B, D]; default 1. The others take none.
        step: step size, float or [N].
        inv_mass: diagonal of M⁻¹ [B, d]; None for unit mass.
        root: S [B, d, d] with M⁻¹ = S Sᵀ, in place of a diagonal. Then p is q = Sᵀ times the
            momentum, N(0, I) where that is N(0, M): leapfrogs of unit mass in S⁻¹z.
        leapfrog: number of steps L, at least 1.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        The end: z [N, d], p [N, d], grad [N, d], U [N] float64 in nats.

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §2.3; mathematics.md §10.
    """
    check_target(z, x, net, likelihood)
    check_like(p, "p", z, "z", list(z.shape))
    check_like(grad, "grad", z, "z", list(z.shape))
    like = likelihood, check_likelihood(likelihood, likelihood_params, x)
    check_mass(inv_mass, z, x)
    check_root(root, inv_mass, z, x)
    step = checks.per_row(step, "step", z.shape[0], like=z)
    leapfrog = checks.count(leapfrog, "leapfrog")
    how = check_precision(precision), check_tile(tile)
    return _op(Call(z, p, grad, x, net, *like, step, inv_mass, root, leapfrog, *how, backend))


def _cpp(call: Call) -> tuple[Tensor, ...]:
    layers, _alive = layers_of(*call.net)
    *end, U = _fake(call)
    step = call.step.contiguous()
    *start, images, mass = plain_rows(call.z, call.p, call.grad, call.x, call.inv_mass)
    root = by_rows_and_columns(call.root)
    kernel("net_trajectory", call.z.dtype)(
        [rows_at(t) for t in end],
        U.data_ptr(),
        [rows_at(t) for t in start],
        step.data_ptr(),
        rows_at(mass),
        root_at(root),
        len(U),
        call.leapfrog,
        layers,
        like_of(images, len(U), call.likelihood, call.likelihood_params),
        threads.count(),
    )
    return *end, U


def _fake(call: Call) -> tuple[Tensor, ...]:
    z = call.z
    state = [z.new_empty(z.shape) for _ in range(3)]
    return *state, z.new_empty(z.shape[0], dtype=torch.float64)


_in_triton = lazy("net_trajectory")


def _triton(call: Call) -> tuple[Tensor, ...]:
    """In one launch, but for a dense mass."""
    return _in_triton(call) if call.root is None else trajectory_of_launches(call)


_op = register(
    Call,
    returns=tuple[Tensor, Tensor, Tensor, Tensor],
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=_triton,
)
