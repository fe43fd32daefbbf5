"""``net_chain``: T transitions of Hamiltonian Monte Carlo on a decoder network, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast import checks
from vaefast.functional.chain import Chain, kept
from vaefast.ops._cpp import (
    by_rows_and_columns,
    kernel,
    layers_of,
    like_of,
    plain_rows,
    root_at,
    rows_at,
)
from vaefast.ops._dense import chain_of_launches
from vaefast.ops._inputs import (
    check_energy,
    check_jitter,
    check_lanes,
    check_like,
    check_mass,
    check_precision,
    check_range,
    check_root,
    check_seed,
    check_target,
)
from vaefast.ops._likelihood import check_likelihood
from vaefast.ops._register import lazy, register
from vaefast.reference.net_chain import net_chain as reference
from vaefast.runtime import threads
from vaefast.runtime.tiles import check_tile
from vaefast.types import Network

__all__ = ["Chain", "net_chain"]


class Call(NamedTuple):
    z: Tensor
    U: Tensor
    grad: Tensor
    x: Tensor
    net: Network
    likelihood: str
    likelihood_params: list[Tensor]
    step: Tensor
    inv_mass: Tensor | None
    root: Tensor | None
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name
    leapfrog: int
    jitter: float
    seed: int
    first_step: int
    steps: int
    thin: int
    precision: str
    tile: int
    backend: str | None


def net_chain(
    z: Tensor,
    U: Tensor,
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
    jitter: float = 0.0,
    seed: int = 0,
    index: Tensor | None = None,
    first_step: int = 0,
    steps: int,
    thin: int = 0,
    precision: str = "ieee",
    tile: int | None = None,
    backend: str | None = None,
) -> Chain:
    """Run HMC transitions: momentum, trajectory, Metropolis; each costs L gradients.

        p ~ N(0, M),  (z', p') = L leapfrogs,  H = U + ½ pᵀM⁻¹p,
        z ← z' iff u < exp(H(z, p) − H(z', p')),  u uniform in (0, 1)

    The step of row b in transition t is ``step[b]·(1 + jitter·w)``, w uniform in (−1, 1), one
    per row and transition. A trajectory whose energy error exceeds 1000 nats or is not finite is
    rejected and counted as divergent. Two calls, the second with ``first_step`` raised by the
    first one's ``steps``, give the chain of one call.

    A row with NaN or infinity in its inputs gets U = NaN: it never moves, and each of its
    transitions counts as divergent.

    Args:
        z: positions [N, d]. Row n belongs to x[n // C], with C = N / B chains.
        U: potential energies at z [N] float64, in nats, from :func:`net_potential`.
        grad: gradients of U at z [N, d], from :func:`net_potential`.
        x: images [B, D] in z's dtype.
        net: the decoder, d to D, giving natural parameters.
        likelihood: one of ``vaefast.types.LIKELIHOODS``, as in :func:`log_likelihood`.
        likelihood_params: the Gaussian's [std], a float or tensor, in the scale of x: a scalar,
            [D], or [B, D]; default 1. The others take none.
        step: step size, float or [B].
        inv_mass: diagonal of M⁻¹ [B, d]; None for unit mass.
        root: S [B, d, d] with M⁻¹ = S Sᵀ, in place of a diagonal.
        leapfrog: steps per trajectory L, at least 1.
        jitter: relative half-width of the step's jitter, in [0, 1).
        seed: 64-bit seed of the random numbers.
        index: global number of each input [B] int64; default ``arange(B)``.
        first_step: number of the first transition.
        steps: how many transitions T.
        thin: k > 0 keeps each transition whose number plus one is a multiple of k; 0 keeps none.
        precision, tile, backend: as for every op, see :mod:`vaefast.ops`.

    Returns:
        A named tuple: z [N, d], U [N] float64, grad [N, d], accepted [N] int64, divergent [N]
        int64, draws [N, n, d], energies [N, n] float64 (U of each draw, in nats).

    Raises:
        TypeError: not tensors, or dtypes that differ or are not floating.
        ValueError: shapes, devices or options that do not fit together.
        RuntimeError: an input requires grad; the backend asked for by name cannot run here.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), §3.2; Kuzina et al. 2022
    (mathematics.md §1.3,
    §10), without their adaptation, which belongs to the caller.
    """
    check_lanes(check_target(z, x, net, likelihood))
    check_energy(U, z)
    check_like(grad, "grad", z, "z", list(z.shape))
    like = likelihood, check_likelihood(likelihood, likelihood_params, x)
    check_mass(inv_mass, z, x)
    check_root(root, inv_mass, z, x)
    how = check_precision(precision), check_tile(tile)
    check_range(first_step, steps, "first_step", "steps")
    rows = len(x)
    step = checks.per_row(step, "step", rows, like=z)
    index = checks.row_index(index, rows, z.device)
    numbers = checks.count(leapfrog, "leapfrog"), check_jitter(jitter), check_seed(seed)
    span = first_step, steps, checks.count(thin, "thin", minimum=0)
    state = z, U, grad, x, net, *like, step, inv_mass, root, index
    return _op(Call(*state, *numbers, *span, *how, backend))


def _cpp(call: Call) -> tuple[Tensor, ...]:
    layers, _alive = layers_of(*call.net)
    N, n = len(call.z), kept(call.first_step, call.steps, call.thin)
    z, U, grad = (
        t.clone(memory_format=torch.contiguous_format) for t in (call.z, call.U, call.grad)
    )
    counts = [call.index.new_zeros(N) for _ in range(2)]
    draws, energies = z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))
    rows = [call.step.contiguous(), call.index.contiguous()]
    images, mass = plain_rows(call.x, call.inv_mass)
    root = by_rows_and_columns(call.root)
    span = call.first_step, call.steps, call.thin
    kernel("net_chain", z.dtype)(
        [rows_at(t) for t in (z, grad)],
        [t.data_ptr() for t in (U, *counts, draws, energies)],
        [t.data_ptr() for t in rows],
        rows_at(mass),
        root_at(root),
        (N, call.leapfrog, *span, n),
        call.jitter,
        call.seed % (1 << 64),
        layers,
        like_of(images, N, call.likelihood, call.likelihood_params),
        threads.count(),
    )
    return z, U, grad, *counts, draws, energies


def _fake(call: Call) -> tuple[Tensor, ...]:
    z, U, index = call.z, call.U, call.index
    N, n = z.shape[0], kept(call.first_step, call.steps, call.thin)
    state = z.new_empty(z.shape), U.new_empty(N), z.new_empty(z.shape)
    counts = index.new_empty(N), index.new_empty(N)
    return *state, *counts, z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))


_in_triton = lazy("net_chain")


def _triton(call: Call) -> tuple[Tensor, ...]:
    """In one launch, but for a dense mass."""
    return _in_triton(call) if call.root is None else chain_of_launches(call)


_op = register(
    Call,
    returns=Chain,
    fake=_fake,
    reference=reference,
    cpp=_cpp,
    triton=_triton,
)
