"""``net_potential`` in Triton: energy and gradient of a tile of latents, both passes fused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common.barrier import barrier
from vaefast.kernels.common.launch import device_of
from vaefast.kernels.common.likelihoods import constant_at, parameters_of
from vaefast.kernels.common.mlp import input_cotangent, nonfinite_of, operands, take_rows
from vaefast.kernels.common.network import net_of, of, unpack
from vaefast.kernels.common.posterior import (
    energy_of,
    log_likelihood_vjp,
    note_rows,
    own_rows,
    place_of,
    plan,
    room,
    rows_of_tile,
)
from vaefast.kernels.common.posterior_forms import posterior_variants
from vaefast.kernels.common.priors import prior_energy, prior_gradient

if TYPE_CHECKING:
    from vaefast.ops.net_potential import Call

__all__ = ["net_potential"]

INTEGERS = ["N", "chains", "spread", "s_z", "s_x", "s_std", "c_std"]
INPUTS = ["p_z", "p_x", "p_std", "p_constant"]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_potential_kernel(
    p_U, p_grad, p_z, p_x, p_std, p_constant, p_full, p_half, p_scratch, p_terms, p_barrier, p_rows,
    s_std, c_std, N, chains, spread, s_z, s_x,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    TYPE: tl.constexpr = p_full.dtype.element_ty
    d: tl.constexpr = of(NET, "widths", 0)
    D: tl.constexpr = of(NET, "widths", of(NET, "depth"))
    group, rank, p_scratch, p_terms, p_barrier, p_rows = place_of(
        p_scratch, p_terms, p_barrier, p_rows, spread, NET, BLOCK_M, BLOCK_N
    )
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    for tile in tl.range(
        group, tl.cdiv(N, BLOCK_N), tl.num_programs(0) // spread, disable_licm=True
    ):
        note_rows(p_rows, tile, rank, N, BLOCK_N)
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        barrier(p_barrier, spread)
        nonfinite = take_rows(p_z, s_z, p_h, i_n, N, NET)
        nonfinite += nonfinite_of(p_x + i_n // chains * s_x, m_n, D, BLOCK_M)
        nonfinite = nonfinite.to(tl.float64) + 0.0 * constant_at(
            p_constant, i_n // chains, m_n, LIKELIHOOD
        )
        tl.store(p_U + own_rows(p_rows, BLOCK_N), nonfinite, mask=m_n)
        logp = log_likelihood_vjp(
            p_full, p_half, p_scratch, p_terms, p_barrier, p_rows, p_x, p_std, s_x, s_std, c_std,
            chains, N, rank, spread,
            NET, LIKELIHOOD, True, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
        )  # fmt: skip
        prior = tl.zeros([BLOCK_N], dtype=tl.float64)
        for o in tl.range(0, d, BLOCK_M, disable_licm=True):
            i_d = o + tl.arange(0, BLOCK_M)
            pull = input_cotangent(p_w, p_h, i_d, NET, BLOCK_K, BLOCK_N, PRECISION, TYPE)
            i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
            m = (i_d < d)[:, None] & m_n[None, :]
            z = tl.load(p_z + i_n[None, :] * s_z + i_d[:, None], mask=m, other=0.0)
            prior += prior_energy(z)
            marks = tl.load(p_U + own_rows(p_rows, BLOCK_N), mask=m_n, other=0.0).to(TYPE)
            grad = prior_gradient(z) + pull + marks[None, :]
            tl.store(p_grad + i_n[None, :] * d + i_d[:, None], grad, mask=m)
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        i_own = own_rows(p_rows, BLOCK_N)
        U = energy_of(prior, logp, p_constant, i_n // chains, m_n, NET, LIKELIHOOD)
        U += tl.load(p_U + i_own, mask=m_n, other=0.0)
        tl.debug_barrier()
        tl.store(p_U + i_own, U, mask=m_n)
        tl.debug_barrier()


def net_potential(call: Call) -> tuple[Tensor, Tensor]:
    """Launch the kernel."""
    weights, biases, layers, packed = call.net
    net = net_of(weights, layers)
    z, x = rows_of(call.z), rows_of(call.x)
    grad = z.new_empty(z.shape)
    if not len(z):
        return z.new_empty(0, dtype=torch.float64), grad
    full, half = unpack(weights, biases, packed, net)
    # the function that HMC's trajectories end with: no chain may start from another energy
    blocks = plan(len(z), z.dtype, call.precision, call.tile, z.device)
    memory = room(net, blocks, len(z), z)
    U = z.new_empty((memory.spread, len(z)), dtype=torch.float64)
    std, constant, *strides = parameters_of(call.likelihood, call.likelihood_params, x)
    with device_of(z):
        _net_potential_kernel[(len(memory.rows),)](
            U, grad, z, x, std, constant, full, half, *memory[:4], *strides,
            len(z), len(z) // len(x), memory.spread, z.stride(0), x.stride(0),
            NET=net, LIKELIHOOD=call.likelihood, **blocks.end_options(), **memory.launch(),
        )  # fmt: skip
    return U[0], grad


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    yield from posterior_variants(_net_potential_kernel, {"p_U": "*fp64"}, ends=True)
