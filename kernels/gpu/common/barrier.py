"""Several programs on one tile: each computes a share of every layer's features, then they wait.

Blocks of features go round: program ``rank`` of ``spread`` takes blocks rank, rank + spread, ...
Which program computes a block changes nothing in its bits, so no result depends on ``spread``.
All programs of a launch must be resident at once; a launch with ``spread`` > 1 says so to the
driver (``launch_cooperative_grid``), which refuses it otherwise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vaefast.kernels.common.launch import ON_AMD, Plan, processors
from vaefast.kernels.common.network import Net

__all__ = ["BARRIER_STRIDE", "barrier", "barriers", "spread_of"]

BARRIER_STRIDE = tl.constexpr(16)  # int64 between two counters: a line of memory each


@triton.jit
def barrier(p_barrier, spread):
    """No program of a tile goes on before all have arrived; stores before it are visible behind it.

    The counter is never reset.
    """
    tl.debug_barrier()
    if spread > 1:
        arrived = tl.atomic_add(p_barrier, 1, sem="acq_rel", scope="gpu")
        last = arrived - arrived % spread + spread
        while arrived < last:
            arrived = tl.atomic_add(p_barrier, 0, sem="acquire", scope="gpu")
        tl.debug_barrier()


def barriers(groups: int, like: Tensor) -> Tensor:
    """A counter for each group of programs."""
    return torch.zeros((groups, BARRIER_STRIDE.value), dtype=torch.int64, device=like.device)


def spread_of(net: Net, blocks: Plan, tiles: int, device: torch.device) -> int:
    """How many programs share a tile: as many as the device has idle, or as there are blocks.

    A power of two, so that layers of 2ⁿ blocks are shared evenly.
    """
    # the interpreter runs one program after the other; on AMD a barrier within a program does not
    # wait for the stores of all its waves, which other processors must see behind the barrier
    if device.type != "cuda" or ON_AMD:
        return 1
    most = max(triton.cdiv(width, blocks.BLOCK_M) for width in net.widths[1:])
    spread = 1
    while 2 * spread * tiles <= processors(device) and spread < most:
        spread *= 2
    return spread
