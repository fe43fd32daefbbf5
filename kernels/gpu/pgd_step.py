"""``pgd_step`` in Triton: one launch, one read of each image and one write."""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["pgd_step"]

LONGEST_ROW = 65536  # bytes of a row that one program holds in registers
PLAIN_EXTREMA = dict.fromkeys(
    ("_pgd_step_l2_kernel", "_pgd_step_l2_long_kernel"),
    "the reduction to a row's peak drops NaN, which comes back in the sum of squares",
)
NAN_ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def _parameter(p_value, i_row, m_row, PER_ROW: tl.constexpr):
    """A launch scalar, or the rows' own values [BLOCK_B, 1]."""
    if PER_ROW:
        value = tl.load(p_value + i_row, mask=m_row, other=0.0)[:, None]
    else:
        value = p_value
    return value


@triton.jit
def _clip(v, low, high):
    v = tl.maximum(v, low, propagate_nan=NAN_ALL)
    return tl.minimum(v, high, propagate_nan=NAN_ALL)


@triton.jit
def _add_block(peak, total, v):
    """Take v [BLOCK_B, BLOCK_D] into (peak, total), with ‖row‖₂ = peak·√total."""
    above = tl.maximum(peak, tl.max(tl.abs(v), axis=1))  # [BLOCK_B]
    safe = tl.where(above > 0, above, 1.0)
    ratio = v / safe[:, None]  # NaN where v is NaN or infinite
    return above, total * (peak / safe) * (peak / safe) + tl.sum(ratio * ratio, axis=1)


@triton.jit
def _pgd_step_linf_kernel(
    p_out, p_x_adv, p_grad, p_x, B, D, s_out, s_x_adv, s_grad, s_x,
    alpha, eps, low, high,
    PER_ROW: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)  # [BLOCK_B]
    i_col = tl.program_id(1).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_row = i_row < B
    m = m_row[:, None] & (i_col < D)[None, :]
    a = tl.load(p_x_adv + i_row[:, None] * s_x_adv + i_col[None, :], mask=m, other=0.0)
    g = tl.load(p_grad + i_row[:, None] * s_grad + i_col[None, :], mask=m, other=0.0)
    x = tl.load(p_x + i_row[:, None] * s_x + i_col[None, :], mask=m, other=0.0)
    radius = _parameter(eps, i_row, m_row, PER_ROW)
    sign = tl.where(g > 0, 1.0, tl.where(g < 0, -1.0, 0.0)).to(g.dtype)
    moved = a + _parameter(alpha, i_row, m_row, PER_ROW) * sign
    moved = _clip(moved, x - radius, x + radius)
    moved = _clip(
        moved,
        _parameter(low, i_row, m_row, PER_ROW).to(g.dtype),
        _parameter(high, i_row, m_row, PER_ROW).to(g.dtype),
    )
    not_finite = 0.0 * g + 0.0 * a + 0.0 * x  # NaN for NaN and ±inf, else 0
    o = i_row[:, None] * s_out + i_col[None, :]
    tl.store(p_out + o, (moved + not_finite).to(g.dtype), mask=m)


@triton.jit
def _pgd_step_l2_kernel(
    p_out, p_x_adv, p_grad, p_x, B, D, s_out, s_x_adv, s_grad, s_x,
    alpha, eps, low, high, norm_eps,
    PER_ROW: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rows of at most BLOCK_D elements, held in registers: each image is read once."""
    i_row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)  # [BLOCK_B]
    i_col = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_row = i_row < B
    m = m_row[:, None] & (i_col < D)[None, :]
    a = tl.load(p_x_adv + i_row[:, None] * s_x_adv + i_col[None, :], mask=m, other=0.0)
    g = tl.load(p_grad + i_row[:, None] * s_grad + i_col[None, :], mask=m, other=0.0)
    x = tl.load(p_x + i_row[:, None] * s_x + i_col[None, :], mask=m, other=0.0)
    zero = tl.zeros([BLOCK_B], dtype=g.dtype)
    peak, total = _add_block(zero, zero, g)
    length = _longer((peak * tl.sqrt(total))[:, None], norm_eps)
    delta = a + _parameter(alpha, i_row, m_row, PER_ROW) / length * g - x
    peak, total = _add_block(zero, zero, delta)
    radius = _parameter(eps, i_row, m_row, PER_ROW)
    shrink = _shrink((peak * tl.sqrt(total))[:, None], radius)
    moved = _clip(
        x + shrink * delta,
        _parameter(low, i_row, m_row, PER_ROW).to(g.dtype),
        _parameter(high, i_row, m_row, PER_ROW).to(g.dtype),
    )
    o = i_row[:, None] * s_out + i_col[None, :]
    tl.store(p_out + o, moved.to(g.dtype), mask=m)


@triton.jit
def _pgd_step_l2_long_kernel(
    p_out, p_x_adv, p_grad, p_x, B, D, s_out, s_x_adv, s_grad, s_x,
    alpha, eps, low, high, norm_eps,
    PER_ROW: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rows of any length, one a program, in three passes over blocks in ascending order."""
    i_row = tl.program_id(0).to(tl.int64) + tl.zeros([BLOCK_B], dtype=tl.int64)  # [1]
    m_row = i_row < B
    p_out += i_row[:, None] * s_out
    p_x_adv += i_row[:, None] * s_x_adv
    p_grad += i_row[:, None] * s_grad
    p_x += i_row[:, None] * s_x
    i_col = tl.arange(0, BLOCK_D)[None, :]  # [1, BLOCK_D]
    peak = tl.zeros([BLOCK_B], dtype=p_x.dtype.element_ty)
    total = peak
    for o_col in range(0, D, BLOCK_D):
        m = o_col + i_col < D
        peak, total = _add_block(peak, total, tl.load(p_grad + o_col + i_col, mask=m, other=0.0))
    length = _longer((peak * tl.sqrt(total))[:, None], norm_eps)
    scale = _parameter(alpha, i_row, m_row, PER_ROW) / length  # [1, 1]
    peak = tl.zeros([BLOCK_B], dtype=p_x.dtype.element_ty)
    total = peak
    for o_col in range(0, D, BLOCK_D):
        m = o_col + i_col < D
        a = tl.load(p_x_adv + o_col + i_col, mask=m, other=0.0)
        g = tl.load(p_grad + o_col + i_col, mask=m, other=0.0)
        x = tl.load(p_x + o_col + i_col, mask=m, other=0.0)
        peak, total = _add_block(peak, total, a + scale * g - x)
    radius = _parameter(eps, i_row, m_row, PER_ROW)
    shrink = _shrink((peak * tl.sqrt(total))[:, None], radius)
    lowest = _parameter(low, i_row, m_row, PER_ROW).to(shrink.dtype)
    highest = _parameter(high, i_row, m_row, PER_ROW).to(shrink.dtype)
    for o_col in range(0, D, BLOCK_D):
        m = o_col + i_col < D
        a = tl.load(p_x_adv + o_col + i_col, mask=m, other=0.0)
        g = tl.load(p_grad + o_col + i_col, mask=m, other=0.0)
        x = tl.load(p_x + o_col + i_col, mask=m, other=0.0)
        moved = _clip(x + shrink * (a + scale * g - x), lowest, highest)
        tl.store(p_out + o_col + i_col, moved.to(x.dtype), mask=m)


@triton.jit
def _longer(length, norm_eps):
    return tl.maximum(length, norm_eps, propagate_nan=NAN_ALL)


@triton.jit
def _shrink(distance, radius):
    """min(1, radius / distance): 1 at distance 0, NaN for NaN."""
    return tl.where(distance <= radius, 1.0, radius / distance)


def pgd_step(out, x_adv, grad, x, scalars, rows, norm, norm_eps) -> None:
    """Launch the kernel; arguments as the registered op's without the backend's name."""
    B, D = x.shape
    kernel, constants, grid = plan(B, D, norm, x.element_size())
    if rows is None and x.dtype == torch.float64:  # launch scalars are float32
        rows = torch.stack([x.new_full((B,), value) for value in scalars])
    images = (out, x_adv, grad, x)
    if norm == "l2":
        images = tuple(_aligned_as_its_width(image) for image in images)
    parameters = scalars if rows is None else rows.unbind(0)
    extra = () if norm == "linf" else (norm_eps,)
    with device_of(x):
        kernel[grid](
            *images, B, D, *(t.stride(0) for t in images), *parameters, *extra,
            PER_ROW=rows is not None, **constants,
        )  # fmt: skip
    if images[0] is not out:
        out.copy_(images[0])


def _aligned_as_its_width(image: Tensor) -> Tensor:
    """The image, or a copy where its width and its memory do not agree on multiples of 16.

    Triton loads aligned rows in another layout, in which the sums of a norm have another order.
    """
    wide = image.shape[1] % 16 == 0
    as_wide = (image.stride(0) % 16 == 0) == wide and not (wide and image.data_ptr() % 16)
    return image if as_wide else image.clone(memory_format=torch.contiguous_format)


def plan(B: int, D: int, norm: str, itemsize: int):
    """Kernel, block sizes and grid; they follow the width only, so rows keep their bits."""
    if norm == "linf":
        block_d = min(triton.next_power_of_2(D), 1024)
        block_b = 1024 // block_d
        constants = {"BLOCK_B": block_b, "BLOCK_D": block_d, "num_warps": 4}
        return _pgd_step_linf_kernel, constants, (triton.cdiv(B, block_b), triton.cdiv(D, block_d))
    block_d = triton.next_power_of_2(D)
    row_bytes = block_d * itemsize
    if row_bytes > LONGEST_ROW:
        constants = {"BLOCK_B": 1, "BLOCK_D": 4096, "num_warps": 8}
        return _pgd_step_l2_long_kernel, constants, (B,)
    block_b = max(1, 1024 // block_d)
    warps = min(16, max(4, row_bytes // 2048))
    constants = {"BLOCK_B": block_b, "BLOCK_D": block_d, "num_warps": warps}
    return _pgd_step_l2_kernel, constants, (triton.cdiv(B, block_b),)


def device_of(x: Tensor):
    """Launch on the tensor's own GPU; nothing to switch on the CPU."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def variants():
    """Every form of the kernels that ``plan`` can choose, for ahead-of-time compilation."""
    from vaefast.kernels.proof.aot import Variant

    for norm, widths in (("linf", (3, 784, 3072)), ("l2", (3, 784, 3072, 12288, 16384, 150528))):
        for D in widths:
            for dtype in ("fp32", "fp64"):
                for per_row in {False, True} if dtype == "fp32" else {True}:
                    kernel, constants, _ = plan(64, D, norm, 4 if dtype == "fp32" else 8)
                    constants = {**constants, "PER_ROW": per_row}
                    warps = constants.pop("num_warps")
                    label = f"{norm} D={D} {dtype}" + (" per row" if per_row else "")
                    signature = _signature(kernel, dtype, per_row)
                    aligned = ("D", "s_out", "s_x_adv", "s_grad", "s_x") if D % 16 == 0 else ()
                    yield Variant(label, kernel, signature, constants, warps, aligned=aligned)


def _signature(kernel, dtype: str, per_row: bool) -> dict[str, str]:
    types = dict.fromkeys(("p_out", "p_x_adv", "p_grad", "p_x"), f"*{dtype}")
    types |= dict.fromkeys(("B", "D", "s_out", "s_x_adv", "s_grad", "s_x"), "i32")
    types |= dict.fromkeys(("alpha", "eps", "low", "high"), f"*{dtype}" if per_row else "fp32")
    types["norm_eps"] = "fp32"
    return {name: types.get(name, "constexpr") for name in kernel.arg_names}
