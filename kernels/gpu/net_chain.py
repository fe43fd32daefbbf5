"""``net_chain`` in Triton: T transitions of HMC for a tile of chains in one launch.

The accepted state lies in the results; a trajectory moves a copy of it in the tile's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.chain import kept
from vaefast.functional.rows import rows_of
from vaefast.kernels.common.launch import device_of, two_floats, words
from vaefast.kernels.common.likelihoods import parameters_of
from vaefast.kernels.common.network import net_of, unpack
from vaefast.kernels.common.philox import uniform
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
from vaefast.kernels.common.trajectory import leapfrog, state_size
from vaefast.kernels.common.transition import (
    USE_ACCEPT,
    begin_transition,
    finish_trajectory,
    mark_nonfinite_rows,
    metropolis_accept,
    store_transition,
)

if TYPE_CHECKING:
    from vaefast.ops.net_chain import Call

__all__ = ["net_chain"]

INTEGERS = [
    "s_x", "s_inv_mass", "n_draws", "N", "chains", "L", "spread", "first_step", "steps",
    "thin", "begun", "seed_low", "seed_high", "s_std", "c_std",
]  # fmt: skip
INPUTS = [
    "p_x",
    "p_std",
    "p_constant",
    "p_step",
    "p_inv_mass",
    "p_index",
]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_chain_kernel(
    p_z, p_U, p_grad, p_accepted, p_divergent, p_draws, p_energies, p_x, p_std, p_constant,
    p_step, p_inv_mass, p_index, p_full, p_half, p_scratch, p_terms, p_barrier, p_rows, p_states,
    p_kinetic, s_std, c_std, s_x, s_inv_mass, n_draws, N, chains, L, spread, first_step,
    steps, thin, begun, seed_low, seed_high, jitter_high, jitter_low,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    group, rank, p_scratch, p_terms, p_barrier, p_rows = place_of(
        p_scratch, p_terms, p_barrier, p_rows, spread, NET, BLOCK_M, BLOCK_N
    )
    p_states += tl.program_id(0).to(tl.int64) * state_size(NET, BLOCK_N)
    for tile in tl.range(
        group, tl.cdiv(N, BLOCK_N), tl.num_programs(0) // spread, disable_licm=True
    ):
        note_rows(p_rows, tile, rank, N, BLOCK_N)
        mark_nonfinite_rows(
            p_rows, p_z, p_grad, p_U, p_x, p_constant, p_step, p_inv_mass, s_x, s_inv_mass,
            chains, N, NET, LIKELIHOOD, MASS, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        for i in tl.range(0, steps, disable_licm=True):
            t = first_step + i  # of which the random numbers take the low 32 bits
            begin_transition(
                p_states, p_rows, p_z, p_grad, p_inv_mass, p_step, p_kinetic, p_index,
                s_inv_mass, chains, N, t, jitter_high, jitter_low, seed_low, seed_high,
                NET, MASS, BLOCK_N,
            )  # fmt: skip
            logp = leapfrog(
                p_full, p_half, p_scratch, p_terms, p_barrier, p_states, p_rows, p_x, p_std,
                p_inv_mass, s_x, s_std, c_std, s_inv_mass, chains, N, L, rank, spread,
                NET, LIKELIHOOD, MASS, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
                END_BLOCK_K, END_PRECISION,
            )  # fmt: skip
            prior, kinetic = finish_trajectory(
                p_full, p_half, p_scratch, p_states, p_rows, p_inv_mass, s_inv_mass,
                chains, N, NET, MASS, BLOCK_M, END_BLOCK_K, BLOCK_N, END_PRECISION,
            )  # fmt: skip
            i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
            index = tl.load(p_index + i_n // chains, mask=m_n, other=0)
            u = uniform(0, t, index, USE_ACCEPT, i_n % chains, seed_low, seed_high)
            i_own = own_rows(p_rows, BLOCK_N)
            before = tl.load(p_U + i_own, mask=m_n, other=0.0)
            before += tl.load(p_kinetic + i_own, mask=m_n, other=0.0)
            end = energy_of(prior, logp, p_constant, i_n // chains, m_n, NET, LIKELIHOOD)
            takes, divergent = metropolis_accept(before, end + kinetic, u)
            done, every = (begun + i + 1).to(tl.uint32), tl.maximum(thin, 1).to(tl.uint32)
            keeps = (thin > 0) & (done % every == 0)
            i_kept = (done // every).to(tl.int64) - 1
            store_transition(
                p_states, p_rows, p_z, p_grad, p_U, p_accepted, p_divergent, p_draws, p_energies,
                takes, divergent, end, i_kept, n_draws, keeps, N, NET, BLOCK_N,
            )  # fmt: skip


def net_chain(call: Call) -> tuple[Tensor, ...]:
    """Launch the kernel."""
    z, U, grad, x, (weights, biases, layers, packed) = call[:5]
    first, steps, thin = call.first_step, call.steps, call.thin
    net, N, n = net_of(weights, layers), len(z), kept(first, steps, thin)
    draws, energies = z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))
    if not N:
        none = torch.zeros(0, dtype=torch.int64, device=z.device)
        return z.clone(), U.clone(), grad.clone(), none, none.clone(), draws, energies
    x, mass = rows_of(x), x if call.inv_mass is None else rows_of(call.inv_mass)
    full, half = unpack(weights, biases, packed, net)
    blocks = plan(N, z.dtype, call.precision, call.tile, z.device)
    memory = room(net, blocks, N, z)
    copies = memory.spread, N
    z, U, grad = (t.repeat(memory.spread, *[1] * t.ndim) for t in (z, U, grad))
    counts = [torch.zeros(copies, dtype=torch.int64, device=z.device) for _ in range(2)]
    states = z.new_empty((len(memory.rows), state_size(net, blocks.BLOCK_N)))
    std, constant, *of_std = parameters_of(call.likelihood, call.likelihood_params, x)
    begun = first % max(thin, 1)  # transitions since the last one that was kept
    every = thin if thin <= begun + steps else 0
    span = N, N // len(x), call.leapfrog, memory.spread, words(first)[0], steps, every, begun
    with device_of(z):
        _net_chain_kernel[(len(memory.rows),)](
            z, U, grad, *counts, draws, energies, x, std, constant, call.step.contiguous(), mass,
            call.index.contiguous(), full, half, *memory[:4], states, U.new_empty(copies), *of_std,
            x.stride(0), mass.stride(0), n, *span, *words(call.seed), *two_floats(call.jitter),
            NET=net, LIKELIHOOD=call.likelihood, MASS=call.inv_mass is not None,
            **blocks.trajectory_options(), **memory.launch(),
        )  # fmt: skip
    ends = z, U, grad, *counts
    return *(t[0].clone() if memory.spread > 1 else t[0] for t in ends), draws, energies


KNOWN_SPILLS = {  # bytes of a thread; on sm_80 operands pass through registers
    ("32-512-512-784 tf32 tile 16", "sm_80"): "8 bytes",
    ("32-512-512-784 bf16 tile 16", "sm_80"): "16 bytes",
    ("8-64-3072 bf16 tile 32", "sm_90"): "32 bytes",
}


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    wide = ("p_U", "p_energies", "p_kinetic"), ("p_accepted", "p_divergent", "p_index")
    types = dict.fromkeys(wide[0], "*fp64") | dict.fromkeys(wide[1], "*i64")
    types |= dict.fromkeys(("jitter_high", "jitter_low"), "fp32")
    yield from posterior_variants(_net_chain_kernel, types, MASS=True)
