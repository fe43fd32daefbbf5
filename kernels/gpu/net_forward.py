"""``net_forward`` in Triton: all layers of a tile of rows in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

from vaefast.functional.rows import rows_of
from vaefast.kernels.common.forms import net_variants
from vaefast.kernels.common.launch import device_of, plan, scratch
from vaefast.kernels.common.mlp import forward_hidden, layer_tile, operands, take_rows
from vaefast.kernels.common.network import net_of, of, unpack

if TYPE_CHECKING:
    from vaefast.ops.net_forward import Call

__all__ = ["net_forward"]

INTEGERS = ["N", "s_z"]
INPUTS = ["p_z"]  # whose alignment must not choose a layout


@triton.jit(do_not_specialize=INTEGERS, do_not_specialize_on_alignment=INPUTS)
def _net_forward_kernel(
    p_out, p_z, p_full, p_half, p_scratch, N, s_z,
    NET: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    p_scratch += tl.program_id(0).to(tl.int64) * of(NET, "features") * BLOCK_N
    p_w, p_h = operands(p_full, p_half, p_scratch, PRECISION)
    LAST: tl.constexpr = of(NET, "depth") - 1
    D: tl.constexpr = of(NET, "widths", LAST + 1)
    for tile in tl.range(
        tl.program_id(0), tl.cdiv(N, BLOCK_N), tl.num_programs(0), disable_licm=True
    ):
        i_n = tile * BLOCK_N + tl.arange(0, BLOCK_N).to(tl.int64)
        nonfinite = take_rows(p_z, s_z, p_h, i_n, N, NET)  # [BLOCK_N]
        forward_hidden(p_full, p_w, p_h, NET, False, BLOCK_M, BLOCK_K, BLOCK_N, PRECISION)
        for o in tl.range(0, D, BLOCK_M, disable_licm=True):
            i_out = o + tl.arange(0, BLOCK_M)
            y, _ = layer_tile(p_full, p_w, p_h, i_out, NET, LAST, BLOCK_K, BLOCK_N, PRECISION)
            m = (i_out < D)[:, None] & (i_n < N)[None, :]
            tl.store(p_out + i_n[None, :] * D + i_out[:, None], y + nonfinite[None, :], mask=m)
        tl.debug_barrier()


def net_forward(call: Call) -> Tensor:
    """Launch the kernel."""
    z, (weights, biases, layers, packed) = rows_of(call.z), call.net
    net = net_of(weights, layers)
    out = z.new_empty((len(z), net.widths[-1]))
    if not len(z):
        return out
    full, half = unpack(weights, biases, packed, net)
    blocks = plan(len(z), z.dtype, call.precision, call.tile, z.device)
    work = scratch(net, blocks.BLOCK_N, len(z), z)
    with device_of(z):
        _net_forward_kernel[(len(work),)](
            out, z, full, half, work, len(z), z.stride(0), NET=net, **blocks.options(),
        )  # fmt: skip
    return out


def variants():
    """Every form of the kernel that ``plan`` can choose, for ahead-of-time compilation."""
    yield from net_variants(_net_forward_kernel, last="sigmoid")
