"""The stages of an HMC transition around its trajectory, for a tile of chains."""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.kernels.common.likelihoods import constant_at
from vaefast.kernels.common.mlp import COLUMN_BLOCK, nonfinite_of
from vaefast.kernels.common.network import of
from vaefast.kernels.common.philox import normal, uniform
from vaefast.kernels.common.posterior import own_rows, rows_of_tile, sum_of
from vaefast.kernels.common.priors import prior_energy
from vaefast.kernels.common.trajectory import (
    GRADIENT,
    POSITION,
    end_of,
    kick_and_drift,
    state_at,
    steps_at,
    velocity_of,
)
from vaefast.philox import Use

DIVERGENCE = tl.constexpr(1000.0)  # nats of energy error above which a trajectory diverges
USE_MOMENTUM = tl.constexpr(int(Use.MOMENTUM))
USE_ACCEPT = tl.constexpr(int(Use.ACCEPT))
USE_JITTER = tl.constexpr(int(Use.JITTER))


@triton.jit
def begin_transition(
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
def finish_trajectory(
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
        prior += prior_energy(z)
        kinetic += 0.5 * tl.sum(p.to(tl.float64) * velocity.to(tl.float64), axis=0)
        tl.store(state_at(p_state, GRADIENT, i_d, NET, BLOCK_N), grad)
    return prior, kinetic


@triton.jit
def store_transition(
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
def mark_nonfinite_rows(
    p_rows, p_z, p_grad, p_U, p_x, p_constant, p_step, p_mass, s_x, s_mass, chains, N,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """U = NaN, so that it never moves, for a row whose inputs are not all finite."""
    d: tl.constexpr = of(NET, "widths", 0)
    i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
    i_x = i_n // chains
    nonfinite = nonfinite_of(p_x + i_x * s_x, m_n, of(NET, "widths", of(NET, "depth")), BLOCK)
    i_own = own_rows(p_rows, BLOCK_N)
    nonfinite += nonfinite_of(p_z + i_own * d, m_n, d, BLOCK) + nonfinite_of(
        p_grad + i_own * d, m_n, d, BLOCK
    )
    nonfinite += 0.0 * tl.load(p_step + i_x, mask=m_n, other=0.0)
    if MASS:
        nonfinite += nonfinite_of(p_mass + i_x * s_mass, m_n, d, BLOCK)
    nonfinite = nonfinite.to(tl.float64) + 0.0 * constant_at(p_constant, i_x, m_n, LIKELIHOOD)
    U = tl.load(p_U + i_own, mask=m_n, other=0.0)
    tl.debug_barrier()
    tl.store(p_U + i_own, U + nonfinite + 0.0 * U, mask=m_n)
    tl.debug_barrier()


@triton.jit
def metropolis_accept(before, after, u):
    """(accepted, divergent) [BLOCK_N] for the energies H of a transition, u uniform in (0, 1)."""
    error = after - before
    divergent = (error - error != 0) | (error > DIVERGENCE)
    # exp(−|error|) is at most 1, so only those whose energy rises need the comparison
    return ~divergent & ((error <= 0) | (u < tl.exp(-tl.abs(error)))), divergent
