"""``leapfrog_step`` in Triton: kick and drift in one launch, in place."""

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from vaefast.kernels.pgd_step import device_of

if TYPE_CHECKING:
    from vaefast.ops.leapfrog_step import Call

__all__ = ["leapfrog_step"]

BLOCKS = (32, 128, 512)  # columns of a tile; the last is also the elements of a tile
NAN = tl.constexpr(float("nan"))
SIZES = ("N", "d", "C", "s_z", "s_p", "s_grad", "s_step", "s_mass")


@triton.jit(do_not_specialize=("N", "C"))
def _leapfrog_step_kernel(
    p_z, p_p, p_grad, p_step, p_mass, N, d, C, s_z, s_p, s_grad, s_step, s_mass, kick: tl.float64,
    MASS: tl.constexpr, DRIFT: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_N rows a program, in blocks of columns; a non-finite row is overwritten."""
    i_row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]  # [BLOCK_N, 1]
    i_col = tl.arange(0, BLOCK_D)[None, :]  # [1, BLOCK_D]
    m_row = i_row < N
    p_z += i_row * s_z + i_col  # [BLOCK_N, BLOCK_D]
    p_p += i_row * s_p + i_col
    step = tl.load(p_step + i_row * s_step, mask=m_row, other=0.0)  # [BLOCK_N, 1]
    kicked = tl.full([], kick, tl.float64).to(step.dtype) * step
    flags = tl.zeros([BLOCK_N, BLOCK_D], dtype=step.dtype) + 0.0 * step  # NaN for NaN and ±inf
    for o_col in range(0, d, BLOCK_D):
        m = m_row & (o_col + i_col < d)
        grad = tl.load(p_grad + i_row * s_grad + o_col + i_col, mask=m, other=0.0)
        p = tl.load(p_p + o_col, mask=m, other=0.0)
        flags += 0.0 * p + 0.0 * grad
        p -= kicked * grad
        tl.store(p_p + o_col, p, mask=m)
        if DRIFT:
            z = tl.load(p_z + o_col, mask=m, other=0.0)
            flags += 0.0 * z
            if MASS:
                mass = tl.load(p_mass + i_row // C * s_mass + o_col + i_col, mask=m, other=0.0)
                flags += 0.0 * mass
                p *= mass
            tl.store(p_z + o_col, z + step * p, mask=m)
    nonfinite = tl.sum(flags, axis=1)[:, None]  # [BLOCK_N, 1]
    nonfinite = nonfinite != nonfinite
    if tl.max(tl.max(nonfinite.to(tl.int32), axis=1), axis=0) != 0:
        tl.debug_barrier()  # behind the stores above
        for o_col in range(0, d, BLOCK_D):
            m = m_row & nonfinite & (o_col + i_col < d)
            tl.store(p_p + o_col, NAN, mask=m)
            if DRIFT:
                tl.store(p_z + o_col, NAN, mask=m)


def leapfrog_step(call: "Call") -> None:
    """Launch the kernel, on rows that are contiguous and not empty."""
    z, p, grad, step = call[:4]
    N, d = z.shape
    constants, grid = plan(N, d)
    mass = z if call.inv_mass is None else call.inv_mass  # not read where there is none
    with device_of(z):
        _leapfrog_step_kernel[grid](
            z, p, grad, step, mass, N, d, N // len(mass),
            *(t.stride(0) for t in (z, p, grad, step, mass)), call.kick,
            MASS=call.inv_mass is not None, DRIFT=call.drift, **constants,
        )  # fmt: skip


def plan(N: int, d: int):
    """Block sizes and grid; they follow the width only."""
    block_d = next((block for block in BLOCKS if d <= block), BLOCKS[-1])
    block_n = BLOCKS[-1] // block_d
    constants = {"BLOCK_N": block_n, "BLOCK_D": block_d, "num_warps": 4}
    return constants, (triton.cdiv(N, block_n),)


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    from vaefast.kernels.proof.aot import Variant

    for block_d in BLOCKS:
        for dtype in ("fp32", "fp64"):
            for massive, drift in ((False, False), (False, True), (True, True)):
                constants, _ = plan(64, block_d)
                warps = constants.pop("num_warps")
                label = f"d={block_d} {dtype}{' mass' * massive}{' drift' * drift}"
                constants |= {"MASS": massive, "DRIFT": drift}
                yield Variant(label, _leapfrog_step_kernel, _signature(dtype), constants, warps)


def _signature(dtype: str) -> dict[str, str]:
    types = dict.fromkeys(("p_z", "p_p", "p_grad", "p_step", "p_mass"), f"*{dtype}")
    types |= dict.fromkeys(SIZES, "i32") | {"kick": "fp64"}
    return {name: types.get(name, "constexpr") for name in _leapfrog_step_kernel.arg_names}
