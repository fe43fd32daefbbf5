"""L leapfrog steps of a tile of chains, whose positions and momenta lie in global memory."""

from __future__ import annotations

import triton
import triton.language as tl

from vaefast.kernels.common.barrier import barrier
from vaefast.kernels.common.mlp import COLUMN_BLOCK, input_cotangent, operands, put
from vaefast.kernels.common.network import of
from vaefast.kernels.common.posterior import log_likelihood_vjp, rows_of_tile
from vaefast.kernels.common.priors import prior_gradient

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
def leapfrog(
    p_full, p_half, p_scratch, p_terms, p_barrier, p_state, p_rows, p_x, p_std, p_mass,
    s_x, s_std, c_std, s_mass, chains, N, L, rank, spread,
    NET: tl.constexpr, LIKELIHOOD: tl.constexpr, MASS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    END_BLOCK_K: tl.constexpr, END_PRECISION: tl.constexpr,
):  # fmt: skip
    """From the state after the first drift to both passes at the last position.

    Gradients before the last may be cheap; the last one and the energy are full precision, as
    the first one was, which keeps the sequence of gradients a palindrome (mathematics.md §10).
    Returns Σ log p [BLOCK_N] as :func:`log_likelihood_vjp`.
    """
    TYPE: tl.constexpr = p_full.dtype.element_ty
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    for _ in tl.range(1, L, disable_licm=True):
        barrier(p_barrier, spread)  # the last cotangents have been read
        enter(p_h, p_state, NET, BLOCK_N)
        log_likelihood_vjp(
            p_full, p_half, p_scratch, p_terms, p_barrier, p_rows, p_x, p_std, s_x, s_std, c_std,
            chains, N, rank, spread,
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
                p_state,
                z,
                p,
                prior_gradient(z) + pull,
                step,
                step,
                p_mass,
                a_mass,
                i_d,
                m,
                NET,
                MASS,
                BLOCK_N,
            )
    _, p_h = operands(p_full, p_half, p_scratch, END_PRECISION)
    barrier(p_barrier, spread)
    enter(p_h, p_state, NET, BLOCK_N)
    return log_likelihood_vjp(
        p_full, p_half, p_scratch, p_terms, p_barrier, p_rows, p_x, p_std, s_x, s_std, c_std,
        chains, N, rank, spread,
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
    grad = prior_gradient(z) + pull
    step = tl.load(steps_at(p_state, NET, BLOCK_N))
    return z, tl.fma(-0.5 * step[None, :] + tl.zeros_like(p), grad, p), grad
