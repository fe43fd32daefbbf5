"""``net_trajectory`` in Triton: L leapfrog steps of a tile of chains in one launch.

Positions and momenta of a tile wait in global memory, as its activations do: only the products'
operands stay in registers across a pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common.launch import device_of
from vaefast.kernels.common.likelihoods import constant_at, parameters_of
from vaefast.kernels.common.mlp import COLUMN_BLOCK, nonfinite_of
from vaefast.kernels.common.network import net_of, of, unpack
from vaefast.kernels.common.posterior import (
    energy_of,
    note_rows,
    own_rows,
    place_of,
    plan,
    room,
    rows_of_tile,
)
from vaefast.kernels.common.posterior_forms import posterior_variants
from vaefast.kernels.common.priors import prior_energy
from vaefast.kernels.common.trajectory import end_of, kick_and_drift, leapfrog, state_size, steps_at

if TYPE_CHECKING:
    from vaefast.ops.net_trajectory import Call

__all__ = ["net_trajectory"]

INTEGERS = [
    "N", "chains", "L", "spread", "s_z", "s_p", "s_grad", "s_x", "s_inv_mass",
    "s_std", "c_std",
]  # fmt: skip
INPUTS = [
    "p_z",
    "p_p",
    "p_grad",
    "p_x",
    "p_step",
    "p_inv_mass",
    "p_std",
    "p_constant",
]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_trajectory_kernel(
    p_z_end, p_p_end, p_grad_end, p_U, p_z, p_p, p_grad, p_x, p_std, p_constant, p_step,
    p_inv_mass, p_full, p_half, p_scratch, p_terms, p_barrier, p_rows, p_states, s_std, c_std,
    N, chains, L, spread, s_z, s_p, s_grad, s_x, s_inv_mass,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    d: tl.constexpr = of(NET, "widths", 0)
    D: tl.constexpr = of(NET, "widths", of(NET, "depth"))
    group, rank, p_scratch, p_terms, p_barrier, p_rows = place_of(
        p_scratch, p_terms, p_barrier, p_rows, spread, NET, BLOCK_M, BLOCK_N
    )
    p_states += tl.program_id(0).to(tl.int64) * state_size(NET, BLOCK_N)
    for tile in tl.range(
        group, tl.cdiv(N, BLOCK_N), tl.num_programs(0) // spread, disable_licm=True
    ):
        note_rows(p_rows, tile, rank, N, BLOCK_N)
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        a_mass = i_n // chains * s_inv_mass
        step = tl.load(p_step + i_n, mask=m_n, other=0.0)
        tl.store(steps_at(p_states, NET, BLOCK_N), step)
        nonfinite = 0.0 * step + nonfinite_of(p_x + i_n // chains * s_x, m_n, D, BLOCK_M)
        if MASS:
            nonfinite += nonfinite_of(p_inv_mass + a_mass, m_n, d, BLOCK_M)
        for o in range(0, d, COLUMN_BLOCK):
            i_d = o + tl.arange(0, COLUMN_BLOCK)
            m = (i_d < d)[:, None] & m_n[None, :]
            z = tl.load(p_z + i_n[None, :] * s_z + i_d[:, None], mask=m, other=0.0)
            p = tl.load(p_p + i_n[None, :] * s_p + i_d[:, None], mask=m, other=0.0)
            grad = tl.load(p_grad + i_n[None, :] * s_grad + i_d[:, None], mask=m, other=0.0)
            nonfinite += tl.sum(0.0 * z + 0.0 * p + 0.0 * grad, axis=0)
            kick_and_drift(
                p_states, z, p, grad, 0.5 * step, step, p_inv_mass, a_mass, i_d, m,
                NET, MASS, BLOCK_N,
            )  # fmt: skip
        nonfinite = nonfinite.to(tl.float64) + 0.0 * constant_at(
            p_constant, i_n // chains, m_n, LIKELIHOOD
        )
        tl.store(p_U + own_rows(p_rows, BLOCK_N), nonfinite, mask=m_n)
        logp = leapfrog(
            p_full, p_half, p_scratch, p_terms, p_barrier, p_states, p_rows, p_x, p_std, p_inv_mass,
            s_x, s_std, c_std, s_inv_mass, chains, N, L, rank, spread,
            NET, LIKELIHOOD, MASS, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
            END_BLOCK_K, END_PRECISION,
        )  # fmt: skip
        prior = tl.zeros([BLOCK_N], dtype=tl.float64)
        for o in tl.range(0, d, BLOCK_M, disable_licm=True):
            i_d = o + tl.arange(0, BLOCK_M)
            z, p, grad = end_of(
                p_full, p_half, p_scratch, p_states, i_d,
                NET, END_BLOCK_K, BLOCK_N, END_PRECISION,
            )  # fmt: skip
            prior += prior_energy(z)
            i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
            m = (i_d < d)[:, None] & m_n[None, :]
            marks = tl.load(p_U + own_rows(p_rows, BLOCK_N), mask=m_n, other=0.0).to(z.dtype)
            a_end = i_n[None, :] * d + i_d[:, None]
            tl.store(p_z_end + a_end, z + marks[None, :], mask=m)
            tl.store(p_p_end + a_end, p + marks[None, :], mask=m)
            tl.store(p_grad_end + a_end, grad + marks[None, :], mask=m)
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        i_own = own_rows(p_rows, BLOCK_N)
        U = energy_of(prior, logp, p_constant, i_n // chains, m_n, NET, LIKELIHOOD)
        U += tl.load(p_U + i_own, mask=m_n, other=0.0)
        tl.debug_barrier()
        tl.store(p_U + i_own, U, mask=m_n)
        tl.debug_barrier()


def net_trajectory(call: Call) -> tuple[Tensor, ...]:
    """Launch the kernel."""
    weights, biases, layers, packed = call.net
    net = net_of(weights, layers)
    z, p, grad, x = map(rows_of, (call.z, call.p, call.grad, call.x))
    mass = z if call.inv_mass is None else rows_of(call.inv_mass)
    N, end = len(z), [z.new_empty(z.shape) for _ in range(3)]
    if not N:
        return *end, z.new_empty(0, dtype=torch.float64)
    full, half = unpack(weights, biases, packed, net)
    blocks = plan(N, z.dtype, call.precision, call.tile, z.device)
    memory = room(net, blocks, N, z)
    U = z.new_empty((memory.spread, N), dtype=torch.float64)
    states = z.new_empty((len(memory.rows), state_size(net, blocks.BLOCK_N)))
    std, constant, *of_std = parameters_of(call.likelihood, call.likelihood_params, x)
    strides = z.stride(0), p.stride(0), grad.stride(0), x.stride(0), mass.stride(0)
    with device_of(z):
        _net_trajectory_kernel[(len(memory.rows),)](
            *end, U, z, p, grad, x, std, constant, call.step.contiguous(), mass, full, half,
            *memory[:4], states, *of_std, N, N // len(x), call.leapfrog, memory.spread, *strides,
            NET=net, LIKELIHOOD=call.likelihood, MASS=call.inv_mass is not None,
            **blocks.trajectory_options(), **memory.launch(),
        )  # fmt: skip
    return *end, U[0]


KNOWN_SPILLS = {  # bytes of a thread
    ("8-64-3072 bf16 tile 32", "sm_90"): "40 bytes",
}


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    yield from posterior_variants(_net_trajectory_kernel, {"p_U": "*fp64"}, MASS=True)
