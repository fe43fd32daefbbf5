"""``mlp_chain`` in Triton: T transitions of HMC for a tile of chains in one launch.

The accepted state lies in the results; a trajectory moves a copy of it in the tile's state.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.forms import mlp_variants
from vaefast.kernels.launch import device_of, plan, scratch, two_floats, words
from vaefast.kernels.mlp import COLUMN_BLOCK, flaw_of
from vaefast.kernels.mlp_trajectory import (
    GRADIENT,
    POSITION,
    STATES,
    end_of,
    follow,
    kick_and_drift,
    state_at,
    velocity_of,
)
from vaefast.kernels.network import net_of, of, unpack
from vaefast.kernels.philox import normal, uniform
from vaefast.kernels.posterior import NUMBERS, constant_energy, sum_of
from vaefast.ops._register import rows_of
from vaefast.philox import Use
from vaefast.reference.chain import kept

__all__ = ["mlp_chain"]

DIVERGENCE = tl.constexpr(1000.0)  # nats of energy error above which a trajectory diverges
USE_MOMENTUM = tl.constexpr(int(Use.MOMENTUM))
USE_ACCEPT = tl.constexpr(int(Use.ACCEPT))
USE_JITTER = tl.constexpr(int(Use.JITTER))
SCALARS = ("N", "chains", "leapfrog", "first_step", "steps", "thin", "seed_low", "seed_high")
FLOATS = ("jitter_high", "jitter_low", *NUMBERS)


@triton.jit
def set_out(
    p_state, p_z, p_grad, p_mass, i_n, m_n, step, t, index, lane, seed_low, seed_high,
    NET: tl.constexpr, MASS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Momenta, first half kick and drift from the accepted state; ½ pᵀM⁻¹p [BLOCK_N], float64."""
    d: tl.constexpr = of(NET, "widths", 0)
    kinetic = tl.zeros([BLOCK_N], dtype=tl.float64)
    for o in range(0, d, COLUMN_BLOCK):
        i_d = o + tl.arange(0, COLUMN_BLOCK)
        m = (i_d < d)[:, None] & m_n[None, :]
        a = i_n[None, :] * d + i_d[:, None]
        z = tl.load(p_z + a, mask=m, other=0.0)
        grad = tl.load(p_grad + a, mask=m, other=0.0)
        p = normal(
            i_d[:, None], t, index[None, :], USE_MOMENTUM, lane[None, :], seed_low, seed_high
        ).to(z.dtype)
        if MASS:
            p /= tl.sqrt(tl.load(p_mass[None, :] + i_d[:, None], mask=m, other=1.0))
        p = tl.where(m, p, 0.0)
        velocity = velocity_of(p, p_mass, i_d, m, MASS)
        kinetic += 0.5 * tl.sum(p.to(tl.float64) * velocity.to(tl.float64), axis=0)
        kick_and_drift(p_state, z, p, grad, 0.5 * step, step, p_mass, i_d, m, NET, MASS, BLOCK_N)
    return kinetic


@triton.jit
def arrive(
    p_full, p_half, p_scratch, p_state, p_mass, m_n, step, NET: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The last gradient into the state; ½ pᵀM⁻¹p + ½‖z‖² at the end, [BLOCK_N] float64."""
    d: tl.constexpr = of(NET, "widths", 0)
    energy = tl.zeros([BLOCK_N], dtype=tl.float64)
    prior = tl.zeros([BLOCK_N], dtype=tl.float64)
    for o in range(0, d, BLOCK_M):
        i_d = o + tl.arange(0, BLOCK_M)
        m = (i_d < d)[:, None] & m_n[None, :]
        z, p, grad = end_of(
            p_full, p_half, p_scratch, p_state, i_d, step, NET, BLOCK_K, BLOCK_N, PRECISION
        )
        velocity = velocity_of(p, p_mass, i_d, m, MASS)
        energy += 0.5 * tl.sum(p.to(tl.float64) * velocity.to(tl.float64), axis=0)
        prior += 0.5 * tl.sum(z.to(tl.float64) * z.to(tl.float64), axis=0)
        tl.store(state_at(p_state, GRADIENT, i_d, NET, BLOCK_N), grad)
    tl.debug_barrier()
    return energy, prior


@triton.jit
def copy_state(
    p_state, p_z, p_grad, p_draws, i_n, i_draw, accepted, keeps, m_n, NET: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Accepted rows into the results; where this transition is kept, the results into draws."""
    d: tl.constexpr = of(NET, "widths", 0)
    for o in range(0, d, COLUMN_BLOCK):
        i_d = o + tl.arange(0, COLUMN_BLOCK)
        m = (i_d < d)[:, None] & m_n[None, :]
        a = i_n[None, :] * d + i_d[:, None]
        z = tl.load(state_at(p_state, POSITION, i_d, NET, BLOCK_N))
        grad = tl.load(state_at(p_state, GRADIENT, i_d, NET, BLOCK_N))
        z = tl.where(accepted[None, :], z, tl.load(p_z + a, mask=m, other=0.0))
        tl.store(p_z + a, z, mask=m & accepted[None, :])
        tl.store(p_grad + a, grad, mask=m & accepted[None, :])
        tl.store(p_draws + i_draw[None, :] * d + i_d[:, None], z, mask=m & keeps)
    tl.debug_barrier()


@triton.jit
def flaws(
    p_image, p_mass, p_z, p_grad, m_n, NET: tl.constexpr, MASS: tl.constexpr, BLOCK: tl.constexpr
):
    """0 [BLOCK_N], NaN where an image, inverse mass, position or gradient is not finite."""
    d: tl.constexpr = of(NET, "widths", 0)
    flaw = flaw_of(p_image, m_n, of(NET, "widths", of(NET, "depth")), BLOCK)
    flaw += flaw_of(p_z, m_n, d, BLOCK) + flaw_of(p_grad, m_n, d, BLOCK)
    if MASS:
        flaw += flaw_of(p_mass, m_n, d, BLOCK)
    return flaw


@triton.jit
def takes_end(before, after, u):
    """(accepted, divergent) [BLOCK_N] for the energies H of a transition, u uniform in (0, 1)."""
    error = after - before
    divergent = (error - error != 0) | (error > DIVERGENCE)
    # exp(−|error|) is at most 1, so only those whose energy rises need the comparison
    return ~divergent & ((error <= 0) | (u < tl.exp(-tl.abs(error)))), divergent


@triton.jit(do_not_specialize=list(SCALARS))
def _mlp_chain_kernel(
    p_z, p_U, p_grad, p_accepted, p_divergent, p_draws, p_energies, p_x, p_step, p_inv_mass,
    p_index, p_full, p_half, p_scratch, p_states, s_x, s_inv_mass, n_draws,
    N, chains, leapfrog, first_step, steps, thin, seed_low, seed_high, jitter_high, jitter_low,
    std_high, std_low, energy_high, energy_low,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    p_scratch += program * of(NET, "features") * BLOCK_N
    p_states += program * 3 * of(NET, "columns", 0) * BLOCK_N
    every = tl.maximum(thin, 1)
    obs_std, jitter = sum_of(std_high, std_low), sum_of(jitter_high, jitter_low)
    for tile in range(tl.program_id(0), tl.cdiv(N, BLOCK_N), tl.num_programs(0)):
        i_n = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        m_n = i_n < N
        i_x, lane = i_n // chains, i_n % chains
        p_image, p_mass = p_x + i_x * s_x, p_inv_mass + i_x * s_inv_mass  # [BLOCK_N]
        index = tl.load(p_index + i_x, mask=m_n, other=0)
        step = tl.load(p_step + i_x, mask=m_n, other=0.0)
        a_z = i_n * of(NET, "widths", 0)
        flaw = flaws(p_image, p_mass, p_z + a_z, p_grad + a_z, m_n, NET, MASS, BLOCK_M)
        U = tl.load(p_U + i_n, mask=m_n, other=0.0)
        U += (flaw + 0.0 * step).to(tl.float64) + 0.0 * U  # NaN never moves
        accepted = tl.zeros([BLOCK_N], dtype=tl.int64)
        divergent = tl.zeros([BLOCK_N], dtype=tl.int64)
        for t in range(first_step, first_step + steps):
            u = uniform(0, t, index, USE_JITTER, 0, seed_low, seed_high)
            step_t = (step.to(tl.float64) * (1.0 + jitter * (2.0 * u - 1.0))).to(step.dtype)
            kinetic = set_out(
                p_states, p_z, p_grad, p_mass, i_n, m_n, step_t, t, index, lane,
                seed_low, seed_high, NET, MASS, BLOCK_N,
            )  # fmt: skip
            logp = follow(
                p_full, p_half, p_scratch, p_states, p_image, p_mass, m_n, step_t, leapfrog,
                obs_std, NET, LIKELIHOOD, MASS, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
                END_BLOCK_K, END_PRECISION,
            )  # fmt: skip
            end_kinetic, prior = arrive(
                p_full, p_half, p_scratch, p_states, p_mass, m_n, step_t, NET, MASS,
                BLOCK_M, END_BLOCK_K, BLOCK_N, END_PRECISION,
            )  # fmt: skip
            end = sum_of(energy_high, energy_low) + prior - logp
            u = uniform(0, t, index, USE_ACCEPT, lane, seed_low, seed_high)
            takes, bad = takes_end(U + kinetic, end + end_kinetic, u)
            U = tl.where(takes, end, U)
            accepted += takes.to(tl.int64)
            divergent += bad.to(tl.int64)
            keeps = (thin > 0) & ((t + 1) % every == 0)
            i_draw = i_n * n_draws + (t + 1) // every - first_step // every - 1
            copy_state(p_states, p_z, p_grad, p_draws, i_n, i_draw, takes, keeps, m_n, NET, BLOCK_N)
            tl.store(p_energies + i_draw, U, mask=m_n & keeps)
        tl.store(p_U + i_n, U, mask=m_n)
        tl.store(p_accepted + i_n, accepted, mask=m_n)
        tl.store(p_divergent + i_n, divergent, mask=m_n)
        tl.debug_barrier()


def mlp_chain(
    z, U, grad, x, weights, biases, activations, packed, likelihood, obs_std, step, inv_mass,
    index, leapfrog, jitter, seed, first_step, steps, thin, precision, tile,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Launch the kernel; arguments as the registered op's without the backend's name."""
    net, N, n = net_of(weights, activations), len(z), kept(first_step, steps, thin)
    z, U, grad = (t.clone(memory_format=torch.contiguous_format) for t in (z, U, grad))
    counts = torch.zeros((2, N), dtype=torch.int64, device=z.device)
    draws, energies = z.new_empty((N, n, z.shape[1])), U.new_empty((N, n))
    if not N:
        return z, U, grad, *counts, draws, energies
    x, mass = rows_of(x), x if inv_mass is None else rows_of(inv_mass)
    full, half = unpack(weights, biases, packed, net)
    blocks = plan(N, z.dtype, precision, tile, z.device)
    work = scratch(net, blocks.BLOCK_N, N, z)
    states = z.new_empty((len(work), STATES, blocks.BLOCK_N, net.columns[0]))
    span = N, N // len(x), leapfrog, first_step, steps, thin, *words(seed)
    numbers = two_floats(jitter), two_floats(obs_std), constant_energy(net, likelihood, obs_std)
    with device_of(z):
        _mlp_chain_kernel[(len(work),)](
            z, U, grad, *counts, draws, energies, x, step.contiguous(), mass, index.contiguous(),
            full, half, work, states, x.stride(0), mass.stride(0), n, *span,
            *numbers[0], *numbers[1], *two_floats(numbers[2]),
            NET=net, LIKELIHOOD=likelihood, MASS=inv_mass is not None, **blocks._asdict(),
        )  # fmt: skip
    return z, U, grad, counts[0].clone(), counts[1].clone(), draws, energies


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    wide = ("p_U", "p_energies"), ("p_accepted", "p_divergent", "p_index")
    yield from mlp_variants(
        _mlp_chain_kernel,
        types=dict.fromkeys(wide[0], "*fp64")
        | dict.fromkeys(wide[1], "*i64")
        | dict.fromkeys(FLOATS, "fp32"),
        LIKELIHOOD="bernoulli",
        MASS=True,
    )
