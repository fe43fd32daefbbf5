"""``net_trajectory`` in Triton: L leapfrog steps of a tile of chains in one launch.

Positions and momenta of a tile wait in global memory, as its activations do: only the products'
operands stay in registers across a pass.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.forms import net_variants
from vaefast.kernels.gate import meet
from vaefast.kernels.launch import device_of, two_floats
from vaefast.kernels.mlp import COLUMN_BLOCK, flaw_of, input_cotangent, operands, put
from vaefast.kernels.network import net_of, of, unpack
from vaefast.kernels.posterior import (
    TYPES,
    WIDEST_TILE,
    blocks_of,
    constant_energy,
    note_rows,
    own_rows,
    place_of,
    plan,
    pull_score,
    room,
    rows_of_tile,
    sum_of,
)
from vaefast.ops._register import rows_of

__all__ = ["net_trajectory"]

INTEGERS = ["N", "chains", "leapfrog", "spread", "s_z", "s_p", "s_grad", "s_x", "s_inv_mass"]
INPUTS = [
    "p_z",
    "p_p",
    "p_grad",
    "p_x",
    "p_step",
    "p_inv_mass",
]  # whose alignment must not choose a layout

# of a tile's state: three of [BLOCK_N, columns of d], then a step size for each row
POSITION = tl.constexpr(0)
MOMENTUM = tl.constexpr(1)
GRADIENT = tl.constexpr(2)


@triton.jit
def state_at(p_state, STATE: tl.constexpr, i_d, NET: tl.constexpr, BLOCK_N: tl.constexpr):
    """Addresses [len(i_d), BLOCK_N] of a tile's positions, momenta or gradients."""
    i_n = STATE * BLOCK_N + tl.arange(0, BLOCK_N)
    return p_state + i_d[:, None] + i_n[None, :] * of(NET, "columns", 0)


@triton.constexpr_function
def state_size(net, block_n):
    """Elements of a tile's state."""
    return (3 * net.columns[0] + 1) * block_n


@triton.jit
def steps_at(p_state, NET: tl.constexpr, BLOCK_N: tl.constexpr):
    """Addresses [BLOCK_N] of a tile's step sizes."""
    return p_state + 3 * of(NET, "columns", 0) * BLOCK_N + tl.arange(0, BLOCK_N)


@triton.jit
def velocity_of(p, p_mass, a_mass, i_d, m, MASS: tl.constexpr):
    """M⁻¹p; a_mass [BLOCK_N] is where each row's inverse masses begin."""
    if MASS:
        p *= tl.load(p_mass + a_mass[None, :] + i_d[:, None], mask=m, other=0.0)
    return p


@triton.jit
def kick_and_drift(
    p_state, z, p, grad, kick, step, p_mass, a_mass, i_d, m,
    NET: tl.constexpr, MASS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """p ← p − kick·grad, then z ← z + step·M⁻¹p, into a tile's state."""
    p = tl.fma(-kick[None, :] + tl.zeros_like(p), grad, p)
    velocity = velocity_of(p, p_mass, a_mass, i_d, m, MASS)
    z = tl.fma(step[None, :] + tl.zeros_like(p), velocity, z)
    tl.store(state_at(p_state, MOMENTUM, i_d, NET, BLOCK_N), p)
    tl.store(state_at(p_state, POSITION, i_d, NET, BLOCK_N), z)


@triton.jit
def enter(p_h, p_state, NET: tl.constexpr, BLOCK_N: tl.constexpr):
    """The tile's positions become the first layer's inputs."""
    for o in range(0, of(NET, "widths", 0), COLUMN_BLOCK):
        i_d = o + tl.arange(0, COLUMN_BLOCK)
        z = tl.load(state_at(p_state, POSITION, i_d, NET, BLOCK_N))
        put(p_h, of(NET, "post", 0), i_d, z, NET)
    tl.debug_barrier()


@triton.jit
def follow(
    p_full, p_half, p_scratch, p_terms, p_gate, p_state, p_rows, p_x, p_mass, s_x, s_mass,
    chains, N, leapfrog, obs_std, rank, spread,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    """From the state after the first drift to both passes at the last position.

    Gradients before the last may be cheap; the last one and the energy are full precision, as
    the first one was, which keeps the sequence of gradients a palindrome (mathematics.md §10).
    Returns Σ log p [BLOCK_N] as :func:`pull_score`.
    """
    TYPE: tl.constexpr = p_full.dtype.element_ty
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    for _ in tl.range(1, leapfrog, disable_licm=True):
        meet(p_gate, spread)  # the last cotangents have been read
        enter(p_h, p_state, NET, BLOCK_N)
        pull_score(
            p_full, p_half, p_scratch, p_terms, p_gate, p_rows, p_x, s_x, chains, N, obs_std,
            rank, spread,
            NET, LIKELIHOOD, False, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
        )  # fmt: skip
        for o in tl.range(0, of(NET, "widths", 0), BLOCK_M, disable_licm=True):
            i_d = o + tl.arange(0, BLOCK_M)
            pull = input_cotangent(p_w, p_h, i_d, NET, BLOCK_K, BLOCK_N, PRECISION, TYPE)
            i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
            m = (i_d < of(NET, "widths", 0))[:, None] & m_n[None, :]
            step = tl.load(steps_at(p_state, NET, BLOCK_N))
            a_mass = i_n // chains * s_mass
            z = tl.load(state_at(p_state, POSITION, i_d, NET, BLOCK_N))
            p = tl.load(state_at(p_state, MOMENTUM, i_d, NET, BLOCK_N))
            kick_and_drift(
                p_state, z, p, z + pull, step, step, p_mass, a_mass, i_d, m, NET, MASS, BLOCK_N
            )
    _, p_h = operands(p_full, p_half, p_scratch, END_PRECISION)
    meet(p_gate, spread)
    enter(p_h, p_state, NET, BLOCK_N)
    return pull_score(
        p_full, p_half, p_scratch, p_terms, p_gate, p_rows, p_x, s_x, chains, N, obs_std,
        rank, spread,
        NET, LIKELIHOOD, True, BLOCK_M, END_BLOCK_K, BLOCK_N, END_PRECISION,
    )  # fmt: skip


@triton.jit
def end_of(
    p_full, p_half, p_scratch, p_state, i_d,
    NET: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(z, p, grad) of latents i_d after the last half kick, each [len(i_d), BLOCK_N]."""
    TYPE: tl.constexpr = p_full.dtype.element_ty
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    pull = input_cotangent(p_w, p_h, i_d, NET, BLOCK_K, BLOCK_N, PRECISION, TYPE)
    z = tl.load(state_at(p_state, POSITION, i_d, NET, BLOCK_N))
    p = tl.load(state_at(p_state, MOMENTUM, i_d, NET, BLOCK_N))
    grad = z + pull
    step = tl.load(steps_at(p_state, NET, BLOCK_N))
    return z, tl.fma(-0.5 * step[None, :] + tl.zeros_like(p), grad, p), grad


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_trajectory_kernel(
    p_z_end, p_p_end, p_grad_end, p_U, p_z, p_p, p_grad, p_x, p_step, p_inv_mass,
    p_full, p_half, p_scratch, p_terms, p_gate, p_rows, p_states, N, chains, leapfrog, spread,
    s_z, s_p, s_grad, s_x, s_inv_mass,
    std_high, std_low, energy_high, energy_low,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    d: tl.constexpr = of(NET, "widths", 0)
    D: tl.constexpr = of(NET, "widths", of(NET, "depth"))
    group, rank, p_scratch, p_terms, p_gate, p_rows = place_of(
        p_scratch, p_terms, p_gate, p_rows, spread, NET, BLOCK_M, BLOCK_N
    )
    p_states += tl.program_id(0).to(tl.int64) * state_size(NET, BLOCK_N)
    obs_std = sum_of(std_high, std_low)
    for tile in tl.range(
        group, tl.cdiv(N, BLOCK_N), tl.num_programs(0) // spread, disable_licm=True
    ):
        note_rows(p_rows, tile, rank, N, BLOCK_N)
        i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        a_mass = i_n // chains * s_inv_mass
        step = tl.load(p_step + i_n, mask=m_n, other=0.0)
        tl.store(steps_at(p_states, NET, BLOCK_N), step)
        flaw = 0.0 * step + flaw_of(p_x + i_n // chains * s_x, m_n, D, BLOCK_M)
        if MASS:
            flaw += flaw_of(p_inv_mass + a_mass, m_n, d, BLOCK_M)
        for o in range(0, d, COLUMN_BLOCK):
            i_d = o + tl.arange(0, COLUMN_BLOCK)
            m = (i_d < d)[:, None] & m_n[None, :]
            z = tl.load(p_z + i_n[None, :] * s_z + i_d[:, None], mask=m, other=0.0)
            p = tl.load(p_p + i_n[None, :] * s_p + i_d[:, None], mask=m, other=0.0)
            grad = tl.load(p_grad + i_n[None, :] * s_grad + i_d[:, None], mask=m, other=0.0)
            flaw += tl.sum(0.0 * z + 0.0 * p + 0.0 * grad, axis=0)
            kick_and_drift(
                p_states, z, p, grad, 0.5 * step, step, p_inv_mass, a_mass, i_d, m,
                NET, MASS, BLOCK_N,
            )  # fmt: skip
        tl.store(p_U + own_rows(p_rows, BLOCK_N), flaw.to(tl.float64), mask=m_n)
        logp = follow(
            p_full, p_half, p_scratch, p_terms, p_gate, p_states, p_rows, p_x, p_inv_mass,
            s_x, s_inv_mass, chains, N, leapfrog, obs_std, rank, spread,
            NET, LIKELIHOOD, MASS, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION,
            END_BLOCK_K, END_PRECISION,
        )  # fmt: skip
        square = tl.zeros([BLOCK_N], dtype=tl.float64)
        for o in tl.range(0, d, BLOCK_M, disable_licm=True):
            i_d = o + tl.arange(0, BLOCK_M)
            z, p, grad = end_of(
                p_full, p_half, p_scratch, p_states, i_d,
                NET, END_BLOCK_K, BLOCK_N, END_PRECISION,
            )  # fmt: skip
            square += tl.sum(z.to(tl.float64) * z.to(tl.float64), axis=0)
            i_n, m_n = rows_of_tile(p_rows, N, BLOCK_N)
            m = (i_d < d)[:, None] & m_n[None, :]
            flaws = tl.load(p_U + own_rows(p_rows, BLOCK_N), mask=m_n, other=0.0).to(z.dtype)
            a_end = i_n[None, :] * d + i_d[:, None]
            tl.store(p_z_end + a_end, z + flaws[None, :], mask=m)
            tl.store(p_p_end + a_end, p + flaws[None, :], mask=m)
            tl.store(p_grad_end + a_end, grad + flaws[None, :], mask=m)
        _, m_n = rows_of_tile(p_rows, N, BLOCK_N)
        i_own = own_rows(p_rows, BLOCK_N)
        U = sum_of(energy_high, energy_low) + 0.5 * square - logp
        U += tl.load(p_U + i_own, mask=m_n, other=0.0)
        tl.debug_barrier()
        tl.store(p_U + i_own, U, mask=m_n)
        tl.debug_barrier()


def net_trajectory(
    z, p, grad, x, weights, biases, layers, packed, step, inv_mass, likelihood, obs_std,
    leapfrog, precision, tile,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Launch the kernel; arguments as the registered op's without the backend's name."""
    net = net_of(weights, layers)
    z, p, grad, x = map(rows_of, (z, p, grad, x))
    mass = z if inv_mass is None else rows_of(inv_mass)
    N, end = len(z), [z.new_empty(z.shape) for _ in range(3)]
    if not N:
        return *end, z.new_empty(0, dtype=torch.float64)
    full, half = unpack(weights, biases, packed, net)
    blocks = plan(N, z.dtype, precision, tile, z.device)
    memory = room(net, blocks, N, z)
    U = z.new_empty((memory.spread, N), dtype=torch.float64)
    states = z.new_empty((len(memory.rows), state_size(net, blocks.BLOCK_N)))
    numbers = *two_floats(obs_std), *two_floats(constant_energy(net, likelihood, obs_std))
    strides = z.stride(0), p.stride(0), grad.stride(0), x.stride(0), mass.stride(0)
    with device_of(z):
        _net_trajectory_kernel[(len(memory.rows),)](
            *end, U, z, p, grad, x, step.contiguous(), mass, full, half, *memory[:4], states,
            N, N // len(x), leapfrog, memory.spread, *strides, *numbers,
            NET=net, LIKELIHOOD=likelihood, MASS=inv_mass is not None,
            **blocks.trajectory_options(), **memory.launch(),
        )  # fmt: skip
    return *end, U[0]


KNOWN_SPILLS = {  # bytes of a thread
    ("8-64-3072 bf16 tile 32", "sm_90"): "32 bytes",
}


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    yield from net_variants(
        _net_trajectory_kernel,
        blocks=blocks_of,
        widest=WIDEST_TILE,
        types={**TYPES, "p_U": "*fp64"},
        LIKELIHOOD="bernoulli",
        MASS=True,
    )
