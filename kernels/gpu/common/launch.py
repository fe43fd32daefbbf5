"""How the MLP kernels are launched: tile sizes by precision, programs by device, scratch."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
from torch import Tensor

from vaefast.kernels.common.network import Net
from vaefast.runtime import memory

__all__ = [
    "ON_AMD",
    "Plan",
    "blocks_of",
    "device_of",
    "kind_of",
    "most_programs",
    "plan",
    "processors",
    "scratch",
    "two_floats",
    "words",
]

NARROWEST_TILE = 16  # the fewest columns of a matrix instruction
WIDEST_TILE = {"fp64": 16, "ieee": 64, "tf32": 64, "bf16": 64}  # that leaves registers enough
PROGRAMS_PER_PROCESSOR = 2
MOST_REGISTERS = 255  # left alone, the assembler spills some kernels to stay below 128
INTERPRETED_PROGRAMS = 3
INTERPRETED_TILE = 256  # an operation costs the interpreter about the same for any tile
ON_AMD = torch.version.hip is not None


class Plan(NamedTuple):
    """A launch of an MLP kernel: block sizes and warps follow precision and tile only."""

    BLOCK_M: int
    BLOCK_K: int
    BLOCK_N: int
    PRECISION: str
    END_BLOCK_K: int
    END_PRECISION: str  # of a trajectory's energies and of its first and last gradient
    num_warps: int
    num_stages: int
    maxnreg: int | None = None  # registers of a thread that NVIDIA's assembler may use

    def options(self) -> dict[str, Any]:
        """Launch options of a kernel with one precision."""
        ends = ("END_BLOCK_K", "END_PRECISION")
        return {k: v for k, v in self._asdict().items() if k not in ends and v is not None}

    def end_options(self) -> dict[str, Any]:
        """The same in the precision of a trajectory's ends."""
        return self._replace(BLOCK_K=self.END_BLOCK_K, PRECISION=self.END_PRECISION).options()

    def trajectory_options(self) -> dict[str, Any]:
        """Launch options of a kernel with a precision for the ends."""
        return {k: v for k, v in self._asdict().items() if v is not None}


def plan(rows: int, dtype: torch.dtype, precision: str, tile: int, device: torch.device) -> Plan:
    """Block sizes for a batch; ``tile`` pins them, as far as registers go; 0 follows the batch.

    A tile is as wide as leaves each multiprocessor one: fewer programs would idle it, narrower
    tiles would stream the weights more often.
    """
    kind = kind_of(dtype, precision)
    widest = WIDEST_TILE[kind] if device.type == "cuda" else INTERPRETED_TILE
    if tile:
        return blocks_of(kind, min(tile, widest))
    tile = NARROWEST_TILE
    while tile < widest and rows > tile * processors(device):
        tile *= 2
    return blocks_of(kind, tile)


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """What a plan follows: float64 has one precision."""
    return "fp64" if dtype == torch.float64 else precision


def blocks_of(kind: str, tile: int, amd: bool = ON_AMD) -> Plan:
    """The launch for "fp64" or a precision, and a tile.

    Weights take longer from the second-level cache than a narrow tile takes to use them: several
    blocks are under way. Where the rest is cheap, ends take three
    passes of tf32, or AMD's matrix units for float32.
    """
    most = None if amd else MOST_REGISTERS
    if kind in ("fp64", "ieee"):
        warps, stages = (4, 2) if amd else (8, 2 if kind == "fp64" else 4)
        return Plan(64, 16, tile, "ieee", 16, "ieee", warps, stages, most)
    block, ends = 32 if kind == "tf32" else 64, "ieee" if amd else "tf32x3"
    end_block = 32 if (kind, tile) == ("bf16", 16) else 16  # each spills where the other does not
    warps, stages = (4, 2) if amd else (4 if tile < 64 else 8, 4)
    return Plan(64, block, tile, kind, end_block, ends, warps, stages, most)


def two_floats(value: float) -> tuple[float, float]:
    """A number as a sum of two float32, which is what a launch can carry."""
    high = float(np.float32(value))
    return high, value - high


def words(seed: int) -> tuple[int, int]:
    """A 64-bit seed's low and high half as signed 32-bit launch arguments."""
    low, high = np.array([seed % (1 << 64)], np.uint64).view(np.int32).tolist()
    return low, high


def scratch(net: Net, tile: int, rows: int, like: Tensor) -> Tensor:
    """Scratch [programs, features, tile] of a persistent launch over tiles of rows."""
    programs = min(triton.cdiv(rows, tile), most_programs(net.features * tile, like))
    return like.new_empty((max(programs, 1), net.features, tile))


def most_programs(elements: int, like: Tensor) -> int:
    """As many as find a place, each with so many elements of scratch within the memory budget."""
    fit = memory.rows_within(elements * like.element_size())
    return min(PROGRAMS_PER_PROCESSOR * processors(like.device), fit)


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; under the interpreter programs run one after the other."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count


def device_of(x: Tensor):
    """Launch on the tensor's own GPU; nothing to switch on the CPU."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
