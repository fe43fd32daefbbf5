"""``net_chain`` in Triton: T transitions of HMC for a tile of chains in one launch.

The accepted state lies in the results; a trajectory moves a copy of it in the tile's state.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.chain import kept
from vaefast.kernels.forms import net_variants
from vaefast.kernels.launch import device_of, two_floats, words
from vaefast.kernels.mlp import COLUMN_BLOCK, flaw_of
from vaefast.kernels.net_trajectory import (
    GRADIENT,
    POSITION,
    end_of,
    follow,
    kick_and_drift,
    state_at,
    state_size,
    steps_at,
    velocity_of,
)
from vaefast.kernels.network import net_of, of, unpack
from vaefast.kernels.philox import normal, uniform
from vaefast.kernels.posterior import (
    TYPES,
    WIDEST_TILE,
    blocks_of,
    constant_energy,
    note_rows,
    own_rows,
    place_of,
    plan,
    room,
    rows_of_tile,
    sum_of,
)
from vaefast.ops._register import rows_of
from vaefast.philox import Use

__all__ = ["net_chain"]

INTEGERS = [
    "s_x", "s_inv_mass", "n_draws", "N", "chains", "leapfrog", "spread", "first_step", "steps",
    "thin", "begun", "seed_low", "seed_high",
]  # fmt: skip
INPUTS = ["p_x", "p_step", "p_inv_mass", "p_index"]  # whose alignment must not choose a layout

DIVERGENCE = tl.constexpr(1000.0)  # nats of energy error above which a trajectory diverges
USE_MOMENTUM = tl.constexpr(int(Use.MOMENTUM))
USE_ACCEPT = tl.constexpr(int(Use.ACCEPT))
USE_JITTER = tl.constexpr(int(Use.JITTER))


@triton.jit
def set_out(
    p_state, p_rows, p_z, p_grad, p_mass, p_step, p_kinetic, p_index, s_mass, chains, N,
    t, jitter_high, jitter_low, seed_low, seed_high,
    NET: tl.constexpr, MASS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Momenta, first half kick and drift of transition t; its steps and ½ pᵀM⁻¹p to memory."""
    d: tl.constexpr = of(NET, "widths", 0)
    i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
    lane = (i_n % chains)[None, :]
    index = tl.load(p_index + i_n // chains, mask=m_n, other=0)
    step = tl.load(p_step + i_n // chains, mask=m_n, other=0.0)
    u = uniform(0, t, index, USE_JITTER, 0, seed_low, seed_high)
    jitter = sum_of(jitter_high, jitter_low)
    step = (step.to(tl.float64) * (1.0 + jitter * (2.0 * u - 1.0))).to(step.dtype)
    a_mass, i_own = i_n // chains * s_mass, own_rows(p_rows, BLOCK_N)
    kinetic = tl.zeros([BLOCK_N], dtype=tl.float64)
    for o in range(0, d, COLUMN_BLOCK):
        i_d = o + tl.arange(0, COLUMN_BLOCK)
        m = (i_d < d)[:, None] & m_n[None, :]
        a = i_own[None, :] * d + i_d[:, None]
        z = tl.load(p_z + a, mask=m, other=0.0)
        grad = tl.load(p_grad + a, mask=m, other=0.0)
        p = normal(i_d[:, None], t, index[None, :], USE_MOMENTUM, lane, seed_low, seed_high)
        p = tl.where(m, p.to(z.dtype), 0.0)
        if MASS:
            p /= tl.sqrt(tl.load(p_mass + a_mass[None, :] + i_d[:, None], mask=m, other=1.0))
        velocity = velocity_of(p, p_mass, a_mass, i_d, m, MASS)
        kinetic += 0.5 * tl.sum(p.to(tl.float64) * velocity.to(tl.float64), axis=0)
        kick_and_drift(
            p_state, z, p, grad, 0.5 * step, step, p_mass, a_mass, i_d, m, NET, MASS, BLOCK_N
        )
    tl.store(steps_at(p_state, NET, BLOCK_N), step)
    tl.store(p_kinetic + i_own, kinetic, mask=m_n)
    tl.debug_barrier()


@triton.jit
def arrive(
    p_full, p_half, p_scratch, p_state, p_rows, p_mass, s_mass, chains, N,
    NET: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The last gradient into the state; (½‖z‖², ½ pᵀM⁻¹p) at the end, [BLOCK_N] float64."""
    d: tl.constexpr = of(NET, "widths", 0)
    prior = tl.zeros([BLOCK_N], dtype=tl.float64)
    kinetic = tl.zeros([BLOCK_N], dtype=tl.float64)
    for o in tl.range(0, d, BLOCK_M, disable_licm=True):
        i_d = o + tl.arange(0, BLOCK_M)
        z, p, grad = end_of(
            p_full, p_half, p_scratch, p_state, i_d,
            NET, BLOCK_K, BLOCK_N, PRECISION,
        )  # fmt: skip
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        m = (i_d < d)[:, None] & m_n[None, :]
        velocity = velocity_of(p, p_mass, i_n // chains * s_mass, i_d, m, MASS)
        prior += 0.5 * tl.sum(z.to(tl.float64) * z.to(tl.float64), axis=0)
        kinetic += 0.5 * tl.sum(p.to(tl.float64) * velocity.to(tl.float64), axis=0)
        tl.store(state_at(p_state, GRADIENT, i_d, NET, BLOCK_N), grad)
    return prior, kinetic


@triton.jit
def settle(
    p_state, p_rows, p_z, p_grad, p_U, p_accepted, p_divergent, p_draws, p_energies,
    takes, divergent, end, i_kept, n_draws, keeps, N, NET: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Accepted rows into the results; where this transition is kept, the results into draws."""
    d: tl.constexpr = of(NET, "widths", 0)
    i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
    i_own, i_draw = own_rows(p_rows, BLOCK_N), i_n * n_draws + i_kept
    U = tl.where(takes, end, tl.load(p_U + i_own, mask=m_n, other=0.0))
    accepted = tl.load(p_accepted + i_own, mask=m_n, other=0) + takes.to(tl.int64)
    divergent = tl.load(p_divergent + i_own, mask=m_n, other=0) + divergent.to(tl.int64)
    tl.debug_barrier()
    tl.store(p_U + i_own, U, mask=m_n)
    tl.store(p_accepted + i_own, accepted, mask=m_n)
    tl.store(p_divergent + i_own, divergent, mask=m_n)
    tl.store(p_energies + i_draw, U, mask=m_n & keeps)
    for o in range(0, d, COLUMN_BLOCK):
        i_d = o + tl.arange(0, COLUMN_BLOCK)
        m = (i_d < d)[:, None] & m_n[None, :]
        a = i_own[None, :] * d + i_d[:, None]
        z = tl.load(state_at(p_state, POSITION, i_d, NET, BLOCK_N))
        grad = tl.load(state_at(p_state, GRADIENT, i_d, NET, BLOCK_N))
        z = tl.where(takes[None, :], z, tl.load(p_z + a, mask=m, other=0.0))
        tl.store(p_z + a, z, mask=m & takes[None, :])
        tl.store(p_grad + a, grad, mask=m & takes[None, :])
        tl.store(p_draws + i_draw[None, :] * d + i_d[:, None], z, mask=m & keeps)
    tl.debug_barrier()


@triton.jit
def mark_flaws(
    p_rows, p_z, p_grad, p_U, p_x, p_step, p_mass, s_x, s_mass, chains, N,
    NET: tl.constexpr, MASS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """U = NaN, so that it never moves, for a row whose inputs are not all finite."""
    d: tl.constexpr = of(NET, "widths", 0)
    i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
    i_x = i_n // chains
    flaw = flaw_of(p_x + i_x * s_x, m_n, of(NET, "widths", of(NET, "depth")), BLOCK)
    i_own = own_rows(p_rows, BLOCK_N)
    flaw += flaw_of(p_z + i_own * d, m_n, d, BLOCK) + flaw_of(p_grad + i_own * d, m_n, d, BLOCK)
    flaw += 0.0 * tl.load(p_step + i_x, mask=m_n, other=0.0)
    if MASS:
        flaw += flaw_of(p_mass + i_x * s_mass, m_n, d, BLOCK)
    U = tl.load(p_U + i_own, mask=m_n, other=0.0)
    tl.debug_barrier()
    tl.store(p_U + i_own, U + flaw.to(tl.float64) + 0.0 * U, mask=m_n)
    tl.debug_barrier()


@triton.jit
def takes_end(before, after, u):
    """(accepted, divergent) [BLOCK_N] for the energies H of a transition, u uniform in (0, 1)."""
    error = after - before
    divergent = (error - error != 0) | (error > DIVERGENCE)
    # exp(−|error|) is at most 1, so only those whose energy rises need the comparison
    return ~divergent & ((error <= 0) | (u < tl.exp(-tl.abs(error)))), divergent


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_chain_kernel(
    p_z, p_U, p_grad, p_accepted, p_divergent, p_draws, p_energies, p_x, p_step, p_inv_mass,
    p_index, p_full, p_half, p_scratch, p_terms, p_gate, p_rows, p_states, p_kinetic,
    s_x, s_inv_mass, n_draws, N, chains, leapfrog, spread, first_step, steps, thin, begun,
    seed_low, seed_high, jitter_high, jitter_low,
    std_high, std_low, energy_high, energy_low,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    group, rank, p_scratch, p_terms, p_gate, p_rows = place_of(
        p_scratch, p_terms, p_gate, p_rows, spread, NET, BLOCK_M, BLOCK_N
    )
    p_states += tl.program_id(0).to(tl.int64) * state_size(NET, BLOCK_N)
    obs_std = sum_of(std_high, std_low)
    for tile in tl.range(
        group, tl.cdiv(N, BLOCK_N), tl.num_programs(0) // spread, disable_licm=True
    ):
        note_rows(p_rows, tile, rank, N, BLOCK_N)
        mark_flaws(
            p_rows, p_z, p_grad, p_U, p_x, p_step, p_inv_mass, s_x, s_inv_mass, chains, N,
            NET, MASS, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        for i in tl.range(0, steps, disable_licm=True):
            t = first_step + i  # of which the random numbers take the low 32 bits
            set_out(
                p_states, p_rows, p_z, p_grad, p_inv_mass, p_step, p_kinetic, p_index,
                s_inv_mass, chains, N, t, jitter_high, jitter_low, seed_low, seed_high,
                NET, MASS, BLOCK_N,
            )  # fmt: skip
            logp = follow(
                p_full, p_half, p_scratch, p_terms, p_gate, p_states, p_rows, p_x, p_inv_mass,
                s_x, s_inv_mass, chains, N, leapfrog, obs_std, rank, spread,
                NET, LIKELIHOOD, MASS, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
                END_BLOCK_K, END_PRECISION,
            )  # fmt: skip
            prior, kinetic = arrive(
                p_full, p_half, p_scratch, p_states, p_rows, p_inv_mass, s_inv_mass,
                chains, N, NET, MASS, BLOCK_M, END_BLOCK_K, BLOCK_N, END_PRECISION,
            )  # fmt: skip
            i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
            index = tl.load(p_index + i_n // chains, mask=m_n, other=0)
            u = uniform(0, t, index, USE_ACCEPT, i_n % chains, seed_low, seed_high)
            i_own = own_rows(p_rows, BLOCK_N)
            before = tl.load(p_U + i_own, mask=m_n, other=0.0)
            before += tl.load(p_kinetic + i_own, mask=m_n, other=0.0)
            end = sum_of(energy_high, energy_low) + prior - logp
            takes, divergent = takes_end(before, end + kinetic, u)
            done, every = (begun + i + 1).to(tl.uint32), tl.maximum(thin, 1).to(tl.uint32)
            keeps = (thin > 0) & (done % every == 0)
            i_kept = (done // every).to(tl.int64) - 1
            settle(
                p_states, p_rows, p_z, p_grad, p_U, p_accepted, p_divergent, p_draws, p_energies,
                takes, divergent, end, i_kept, n_draws, keeps, N, NET, BLOCK_N,
            )  # fmt: skip


def net_chain(
    z, U, grad, x, weights, biases, layers, packed, likelihood, obs_std, step, inv_mass,
    index, leapfrog, jitter, seed, first_step, steps, thin, precision, tile,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Launch the kernel; arguments as the registered op's without the backend's name."""
    net, N, n = net_of(weights, layers), len(z), kept(first_step, steps, thin)
    draws, energies = z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))
    if not N:
        none = torch.zeros(0, dtype=torch.int64, device=z.device)
        return z.clone(), U.clone(), grad.clone(), none, none.clone(), draws, energies
    x, mass = rows_of(x), x if inv_mass is None else rows_of(inv_mass)
    full, half = unpack(weights, biases, packed, net)
    blocks = plan(N, z.dtype, precision, tile, z.device)
    memory = room(net, blocks, N, z)
    copies = memory.spread, N
    z, U, grad = (t.repeat(memory.spread, *[1] * t.ndim) for t in (z, U, grad))
    accepted, divergent = (torch.zeros(copies, dtype=torch.int64, device=z.device) for _ in "ad")
    states, kinetic = (
        z.new_empty((len(memory.rows), state_size(net, blocks.BLOCK_N))),
        U.new_empty(copies),
    )
    span = N, N // len(x), leapfrog, memory.spread, words(first_step)[0], steps
    begun = first_step % max(thin, 1)  # transitions since the last one that was kept
    every = thin if thin <= begun + steps else 0
    numbers = two_floats(jitter), two_floats(obs_std), constant_energy(net, likelihood, obs_std)
    with device_of(z):
        _net_chain_kernel[(len(memory.rows),)](
            z, U, grad, accepted, divergent, draws, energies, x, step.contiguous(), mass,
            index.contiguous(), full, half, *memory[:4], states, kinetic,
            x.stride(0), mass.stride(0), n, *span, every, begun, *words(seed),
            *numbers[0], *numbers[1], *two_floats(numbers[2]),
            NET=net, LIKELIHOOD=likelihood, MASS=inv_mass is not None,
            **blocks.trajectory_options(), **memory.launch(),
        )  # fmt: skip
    ends = z, U, grad, accepted, divergent
    return *(t[0].clone() if memory.spread > 1 else t[0] for t in ends), draws, energies


KNOWN_SPILLS = {  # bytes of a thread
    ("8-64-3072 bf16 tile 32", "sm_90"): "32 bytes",
}


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    wide = ("p_U", "p_energies", "p_kinetic"), ("p_accepted", "p_divergent", "p_index")
    yield from net_variants(
        _net_chain_kernel,
        blocks=blocks_of,
        widest=WIDEST_TILE,
        types=TYPES
        | dict.fromkeys(wide[0], "*fp64")
        | dict.fromkeys(wide[1], "*i64")
        | dict.fromkeys(("jitter_high", "jitter_low"), "fp32"),
        LIKELIHOOD="bernoulli",
        MASS=True,
    )
