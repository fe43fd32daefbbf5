"""``pgd_step`` in Triton: one launch, one read of each image and one write."""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.pgd import rounded_down
from vaefast.kernels.common.balls import add_block, inside, lifted, shrink

__all__ = ["pgd_step"]

LONGEST_ROW = 65536  # bytes of a row that one program holds in registers
PLAIN_EXTREMA = dict.fromkeys(
    ("_pgd_step_l2_kernel", "_pgd_step_l2_long_kernel"),
    "the reduction to a row's peak drops NaN, which comes back in the sum of squares",
)
NAN_ALL = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def _parameter(
    p_value, s_value, i_row, i_col, m_row, m, GIVEN: tl.constexpr, COLUMNS: tl.constexpr
):
    """A launch scalar, the rows' own values [BLOCK_B, 1], or the elements' [BLOCK_B, BLOCK_D]."""
    if not GIVEN:
        value = p_value
    elif COLUMNS:
        value = tl.load(p_value + i_row[:, None] * s_value + i_col[None, :], mask=m, other=0.0)
    else:
        value = tl.load(p_value + i_row * s_value, mask=m_row, other=0.0)[:, None]
    return value


@triton.jit
def _nan_rows(low, high):
    """[BLOCK_B]: NaN where a bound of the row's elements is NaN, else 0."""
    return tl.sum(tl.where((low != low) | (high != high), float("nan"), 0.0), axis=1)


@triton.jit
def _clip(v, low, high):
    v = tl.maximum(v, low, propagate_nan=NAN_ALL)
    return tl.minimum(v, high, propagate_nan=NAN_ALL)


@triton.jit
def _pgd_step_linf_kernel(
    p_out, p_x_adv, p_grad, p_x, B, D, s_out, s_x_adv, s_grad, s_x,
    alpha, eps, low, high, s_alpha, s_eps, s_low, s_high,
    GIVEN: tl.constexpr, COLUMNS: tl.constexpr, CLIP_FIRST: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    i_row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)  # [BLOCK_B]
    i_col = tl.program_id(1).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_row = i_row < B
    m = m_row[:, None] & (i_col < D)[None, :]
    a = tl.load(p_x_adv + i_row[:, None] * s_x_adv + i_col[None, :], mask=m, other=0.0)
    g = tl.load(p_grad + i_row[:, None] * s_grad + i_col[None, :], mask=m, other=0.0)
    x = tl.load(p_x + i_row[:, None] * s_x + i_col[None, :], mask=m, other=0.0)
    length = _parameter(alpha, s_alpha, i_row, i_col, m_row, m, GIVEN, COLUMNS[0])
    radius = _parameter(eps, s_eps, i_row, i_col, m_row, m, GIVEN, COLUMNS[1])
    lowest = _parameter(low, s_low, i_row, i_col, m_row, m, GIVEN, COLUMNS[2]).to(g.dtype)
    highest = _parameter(high, s_high, i_row, i_col, m_row, m, GIVEN, COLUMNS[3]).to(g.dtype)
    sign = tl.where(g > 0, 1.0, tl.where(g < 0, -1.0, 0.0)).to(g.dtype)
    moved = a + length * sign
    if CLIP_FIRST:
        moved = _clip(moved, lowest, highest)
    moved = inside(_clip(moved, x - radius, x + radius), x, radius)
    if not CLIP_FIRST:
        moved = _clip(moved, lowest, highest)
    not_finite = 0.0 * g + 0.0 * a + 0.0 * x  # NaN for NaN and ±inf, else 0
    o = i_row[:, None] * s_out + i_col[None, :]
    tl.store(p_out + o, (moved + not_finite).to(g.dtype), mask=m)


@triton.jit
def _pgd_step_l2_kernel(
    p_out, p_x_adv, p_grad, p_x, B, D, s_out, s_x_adv, s_grad, s_x,
    alpha, eps, low, high, s_alpha, s_eps, s_low, s_high, norm_eps,
    GIVEN: tl.constexpr, COLUMNS: tl.constexpr, CLIP_FIRST: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rows of at most BLOCK_D elements, held in registers: each image is read once."""
    i_row = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)  # [BLOCK_B]
    i_col = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    m_row = i_row < B
    m = m_row[:, None] & (i_col < D)[None, :]
    a = tl.load(p_x_adv + i_row[:, None] * s_x_adv + i_col[None, :], mask=m, other=0.0)
    g = tl.load(p_grad + i_row[:, None] * s_grad + i_col[None, :], mask=m, other=0.0)
    x = tl.load(p_x + i_row[:, None] * s_x + i_col[None, :], mask=m, other=0.0)
    lowest = _parameter(low, s_low, i_row, i_col, m_row, m, GIVEN, COLUMNS[2]).to(g.dtype)
    highest = _parameter(high, s_high, i_row, i_col, m_row, m, GIVEN, COLUMNS[3]).to(g.dtype)
    zero = tl.zeros([BLOCK_B], dtype=g.dtype)
    peak, total = add_block(zero, zero, g)
    lift, length = lifted(peak[:, None], tl.sqrt(total)[:, None], norm_eps)
    scale = _parameter(alpha, s_alpha, i_row, i_col, m_row, m, GIVEN, False) / length
    moved = a + scale * (lift * g)
    if CLIP_FIRST:
        moved = tl.where(m, _clip(moved, lowest, highest) + 0.0 * moved, 0.0)  # NaN for ±inf
    delta = moved - x
    peak, total = add_block(zero, zero, delta)
    if COLUMNS[2] or COLUMNS[3]:
        total += _nan_rows(lowest, highest)
    radius = _parameter(eps, s_eps, i_row, i_col, m_row, m, GIVEN, False)
    moved = x + shrink((peak * tl.sqrt(total))[:, None], radius) * delta
    if not CLIP_FIRST:
        moved = _clip(moved, lowest, highest)
    o = i_row[:, None] * s_out + i_col[None, :]
    tl.store(p_out + o, moved.to(g.dtype), mask=m)


@triton.jit
def _pgd_step_l2_long_kernel(
    p_out, p_x_adv, p_grad, p_x, B, D, s_out, s_x_adv, s_grad, s_x,
    alpha, eps, low, high, s_alpha, s_eps, s_low, s_high, norm_eps,
    GIVEN: tl.constexpr, COLUMNS: tl.constexpr, CLIP_FIRST: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rows of any length, one a program, in three passes over blocks in ascending order."""
    i_row = tl.program_id(0).to(tl.int64) + tl.zeros([BLOCK_B], dtype=tl.int64)  # [1]
    m_row = i_row < B
    p_out += i_row[:, None] * s_out
    p_x_adv += i_row[:, None] * s_x_adv
    p_grad += i_row[:, None] * s_grad
    p_x += i_row[:, None] * s_x
    i_col = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    peak = tl.zeros([BLOCK_B], dtype=p_x.dtype.element_ty)
    total = peak
    for o_col in range(0, D, BLOCK_D):
        m = o_col + i_col[None, :] < D
        g = tl.load(p_grad + o_col + i_col[None, :], mask=m, other=0.0)
        peak, total = add_block(peak, total, g)
    lift, length = lifted(peak[:, None], tl.sqrt(total)[:, None], norm_eps)
    scale = (
        _parameter(alpha, s_alpha, i_row, i_col, m_row, m_row[:, None], GIVEN, False) / length
    )  # [1, 1]
    radius = _parameter(eps, s_eps, i_row, i_col, m_row, m_row[:, None], GIVEN, False)
    peak = tl.zeros([BLOCK_B], dtype=p_x.dtype.element_ty)
    total = peak
    for o_col in range(0, D, BLOCK_D):
        x, delta, lowest, highest = _delta(
            p_x_adv, p_grad, p_x, scale, lift, low, high, s_low, s_high, i_row, o_col + i_col, B, D,
            GIVEN, COLUMNS, CLIP_FIRST,
        )  # fmt: skip
        peak, total = add_block(peak, total, delta)
        if COLUMNS[2] or COLUMNS[3]:
            total += _nan_rows(lowest, highest)
    factor = shrink((peak * tl.sqrt(total))[:, None], radius)
    for o_col in range(0, D, BLOCK_D):
        x, delta, lowest, highest = _delta(
            p_x_adv, p_grad, p_x, scale, lift, low, high, s_low, s_high, i_row, o_col + i_col, B, D,
            GIVEN, COLUMNS, CLIP_FIRST,
        )  # fmt: skip
        moved = x + factor * delta
        if not CLIP_FIRST:
            moved = _clip(moved, lowest, highest)
        m = o_col + i_col[None, :] < D
        tl.store(p_out + o_col + i_col[None, :], moved.to(x.dtype), mask=m)


@triton.jit
def _delta(
    p_x_adv, p_grad, p_x, scale, lift, low, high, s_low, s_high, i_row, i_col, B, D,
    GIVEN: tl.constexpr, COLUMNS: tl.constexpr, CLIP_FIRST: tl.constexpr,
):  # fmt: skip
    """Of one row's columns i_col: x, what the step moves from it, and the box."""
    m_row, m = i_row < B, (i_col < D)[None, :]
    a = tl.load(p_x_adv + i_col[None, :], mask=m, other=0.0)
    g = tl.load(p_grad + i_col[None, :], mask=m, other=0.0)
    x = tl.load(p_x + i_col[None, :], mask=m, other=0.0)
    lowest = _parameter(low, s_low, i_row, i_col, m_row, m, GIVEN, COLUMNS[2]).to(x.dtype)
    highest = _parameter(high, s_high, i_row, i_col, m_row, m, GIVEN, COLUMNS[3]).to(x.dtype)
    moved = a + scale * (lift * g)
    if CLIP_FIRST:
        moved = tl.where(m, _clip(moved, lowest, highest) + 0.0 * moved, 0.0)  # NaN for ±inf
    return x, moved - x, lowest, highest


def pgd_step(out, x_adv, grad, x, scalars, given, norm, order, norm_eps) -> None:
    """Launch the kernel; arguments as the registered op's without the backend's name."""
    B, D = x.shape
    kernel, constants, grid = plan(B, D, norm, x.element_size())
    if not given and x.dtype == torch.float64:  # launch scalars are float32
        given = [x.new_full((1, 1), value) for value in scalars]
    alpha, eps, *box = scalars
    scalars = [alpha, rounded_down(eps, x.dtype), *box]
    images = (out, x_adv, grad, x)
    if norm == "l2":
        images = tuple(_aligned_as_its_width(image) for image in images)
    strides = [t.stride(0) if t.shape[0] > 1 else 0 for t in given]
    columns = tuple(t.shape[1] > 1 for t in given)
    extra = () if norm == "linf" else (norm_eps,)
    with device_of(x):
        kernel[grid](
            *images, B, D, *(t.stride(0) for t in images), *(given or scalars),
            *(strides or [0] * 4), *extra, GIVEN=bool(given), COLUMNS=columns or (False,) * 4,
            CLIP_FIRST=order == "clip_project", **constants,
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
    for norm, widths in (("linf", (3, 784, 3072)), ("l2", (3, 784, 3072, 12288, 16384, 150528))):
        for D in widths:
            yield _variant(norm, D, "fp32", given=False)
            for dtype in ("fp32", "fp64"):
                yield _variant(norm, D, dtype, given=True)
    for norm, D in (("linf", 3072), ("l2", 784), ("l2", 150528)):
        for first in (False, True):
            yield _variant(norm, D, "fp32", given=True, elements=True, clip_first=first)


def _variant(norm: str, D: int, dtype: str, given: bool, elements=False, clip_first=False):
    from vaefast.kernels.proof.aot import Variant

    kernel, constants, _ = plan(64, D, norm, 4 if dtype == "fp32" else 8)
    columns = (elements and norm == "linf",) * 2 + (elements,) * 2
    constants |= {"GIVEN": given, "COLUMNS": columns, "CLIP_FIRST": clip_first}
    warps = constants.pop("num_warps")
    label = f"{norm} D={D} {dtype}" + (" per element" if elements else " per row" if given else "")
    label += " clip first" if clip_first else ""
    aligned = ("D", "s_out", "s_x_adv", "s_grad", "s_x") if D % 16 == 0 else ()
    signature = _signature(kernel, dtype, given)
    return Variant(label, kernel, signature, constants, warps, aligned=aligned)


def _signature(kernel, dtype: str, given: bool) -> dict[str, str]:
    types = dict.fromkeys(("p_out", "p_x_adv", "p_grad", "p_x"), f"*{dtype}")
    types |= dict.fromkeys(("B", "D", "s_out", "s_x_adv", "s_grad", "s_x"), "i32")
    types |= dict.fromkeys(("alpha", "eps", "low", "high"), f"*{dtype}" if given else "fp32")
    types |= dict.fromkeys(("s_alpha", "s_eps", "s_low", "s_high"), "i32")
    types["norm_eps"] = "fp32"
    return {name: types.get(name, "constexpr") for name in kernel.arg_names}
