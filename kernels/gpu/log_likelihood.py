"""``log_likelihood`` in Triton: one launch, one read of out and one write of its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.common.likelihoods import constant_at, log_density, parameters_of, std_at
from vaefast.kernels.pgd_step import device_of
from vaefast.types import LIKELIHOODS

if TYPE_CHECKING:
    from vaefast.ops.log_likelihood import Call

__all__ = ["log_likelihood"]

FORMS = [  # few rows a thread, whose addresses would fill its registers
    {"BLOCK_N": 8, "BLOCK_D": 32, "num_warps": 4},
    {"BLOCK_N": 1, "BLOCK_D": 128, "num_warps": 1},
    {"BLOCK_N": 1, "BLOCK_D": 512, "num_warps": 4},
]
KNOWN_SPILLS = {("continuous_bernoulli D=32 fp64", "sm_100"): "8 bytes, of a narrow float64 row"}
NAN = tl.constexpr(float("nan"))
# One binary for every batch and alignment: wider accesses would spread a row over the threads in
# another way, and add its terms in another order.
SIZES = ("N", "C", "s_score", "s_out", "s_x", "s_std", "c_std")
POINTERS = ("p_logp", "p_score", "p_out", "p_x", "p_std", "p_constant")


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=POINTERS)
def _log_likelihood_kernel(
    p_logp, p_score, p_out, p_x, p_std, p_constant, N, D, C, s_score, s_out, s_x, s_std, c_std,
    LIKELIHOOD: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """BLOCK_N rows a program, in blocks of columns; a non-finite row is overwritten."""
    i_row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    i_col = tl.arange(0, BLOCK_D)[None, :]  # [1, BLOCK_D]
    m_row = (i_row < N)[:, None]  # [BLOCK_N, 1]
    p_out += i_row[:, None] * s_out + i_col  # [BLOCK_N, BLOCK_D]
    p_score += i_row[:, None] * s_score + i_col
    i_x = i_row // C
    a_std = i_x[:, None] * s_std + i_col * c_std
    p_x += i_x[:, None] * s_x + i_col
    total = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float64)
    flags = tl.zeros([BLOCK_N, BLOCK_D], dtype=p_x.dtype.element_ty)
    for o_col in range(0, D, BLOCK_D):
        m = m_row & (o_col + i_col < D)
        out = tl.load(p_out + o_col, mask=m, other=0.0)
        x = tl.load(p_x + o_col, mask=m, other=0.0)
        logp, score = log_density(
            out, x, LIKELIHOOD, std_at(p_std, a_std + o_col * c_std, m, LIKELIHOOD)
        )
        total += tl.where(m, logp, 0.0).to(tl.float64)
        flags += 0.0 * out + 0.0 * x  # NaN for NaN and ±inf, else 0
        tl.store(p_score + o_col, score, mask=m)
    constant = constant_at(p_constant, i_x, i_row < N, LIKELIHOOD)  # [BLOCK_N]
    nonfinite = tl.sum(flags, axis=1).to(tl.float64) + 0.0 * constant  # NaN for a non-finite row
    logp = tl.sum(total, axis=1) + constant + nonfinite
    tl.store(p_logp + i_row, logp, mask=i_row < N)
    if tl.max((nonfinite != nonfinite).to(tl.int32), axis=0) != 0:
        tl.debug_barrier()  # behind the stores above
        m_row &= (nonfinite != nonfinite)[:, None]
        for o_col in range(0, D, BLOCK_D):
            tl.store(p_score + o_col, NAN, mask=m_row & (o_col + i_col < D))


def log_likelihood(call: Call) -> tuple[Tensor, Tensor]:
    """Launch the kernel, on rows that are contiguous and not empty."""
    out, x, (N, D) = call.out, call.x, call.out.shape
    logp, score = out.new_empty(N, dtype=torch.float64), out.new_empty((N, D))
    constants, grid = plan(N, D)
    std, constant, *of_std = parameters_of(call.likelihood, call.likelihood_params, x)
    with device_of(out):
        _log_likelihood_kernel[grid](
            logp, score, out, x, std, constant, N, D, N // len(x),
            *(t.stride(0) for t in (score, out, x)), *of_std, LIKELIHOOD=call.likelihood,
            **constants,
        )  # fmt: skip
    return logp, score


def plan(N: int, D: int):
    """Block sizes and grid; they follow the width only, so rows keep their bits."""
    form = next((form for form in FORMS if form["BLOCK_D"] >= D), FORMS[-1])
    return form, (triton.cdiv(N, form["BLOCK_N"]),)


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    from vaefast.kernels.proof.aot import Variant

    for likelihood in LIKELIHOODS:
        for form in FORMS:
            for dtype in ("fp32", "fp64"):
                constants = {**form, "LIKELIHOOD": likelihood}
                if likelihood != "gaussian":
                    constants |= {"p_std": None, "p_constant": None}
                warps = constants.pop("num_warps")
                label = f"{likelihood} D={form['BLOCK_D']} {dtype}"
                yield Variant(
                    label, _log_likelihood_kernel, _signature(dtype, constants), constants, warps
                )


def _signature(dtype: str, constants: dict) -> dict[str, str]:
    types = dict.fromkeys(POINTERS, f"*{dtype}") | {"p_logp": "*fp64"}
    types |= dict.fromkeys((*SIZES, "D"), "i32") | {"p_constant": "*fp64"}
    free = types.keys() - constants.keys()
    names = _log_likelihood_kernel.arg_names
    return {name: types[name] if name in free else "constexpr" for name in names}
