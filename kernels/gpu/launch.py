"""How the MLP kernels are launched: tile sizes by precision, programs by device, scratch."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import triton
from torch import Tensor

from vaefast.kernels.network import Net

__all__ = [
    "Plan",
    "blocks_of",
    "device_of",
    "plan",
    "processors",
    "scratch",
    "two_floats",
    "words_of",
]

NARROWEST_TILE = 16  # the fewest columns of a matrix instruction
WIDEST_TILE = {"fp64": 32, "ieee": 64, "tf32": 64, "bf16": 64}  # that leaves registers enough
PROGRAMS_PER_PROCESSOR = 2
INTERPRETED_PROGRAMS = 3


class Plan(NamedTuple):
    """A launch of an MLP kernel: block sizes and warps follow precision and tile only."""

    BLOCK_M: int
    BLOCK_K: int
    BLOCK_N: int
    PRECISION: str
    num_warps: int
    num_stages: int


def plan(rows: int, dtype: torch.dtype, precision: str, tile: int, device: torch.device) -> Plan:
    """Block sizes for a batch; ``tile`` pins them, 0 follows the batch.

    A tile is as wide as leaves each multiprocessor one: fewer programs would idle it, narrower
    tiles would stream the weights more often.
    """
    kind = "fp64" if dtype == torch.float64 else precision
    if not tile:
        tile = NARROWEST_TILE
        while tile < WIDEST_TILE[kind] and rows > tile * processors(device):
            tile *= 2
    return blocks_of(kind, tile)


def blocks_of(kind: str, tile: int) -> Plan:
    """The launch for "fp64" or a precision, and a tile."""
    if kind in ("fp64", "ieee"):
        return Plan(64, 16 if kind == "fp64" else 32, tile, "ieee", 8, 2)
    return Plan(64, 32 if kind == "tf32" else 64, tile, kind, 4 if tile < 64 else 8, 3)


def two_floats(value: float) -> tuple[float, float]:
    """A number as a sum of two float32, which is what a launch can carry."""
    high = float(np.float32(value))
    return high, value - high


def words_of(seed: int) -> tuple[int, int]:
    """A seed's low and high half, as the signed numbers that a launch carries."""
    halves = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    low, high = ((half ^ 1 << 31) - (1 << 31) for half in halves)
    return low, high


def scratch(net: Net, tile: int, rows: int, like: Tensor) -> Tensor:
    """Scratch [programs, features, tile] of a persistent launch over tiles of rows."""
    tiles = triton.cdiv(rows, tile)
    programs = min(tiles, PROGRAMS_PER_PROCESSOR * processors(like.device))
    return like.new_empty((max(programs, 1), net.features, tile))


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; under the interpreter programs run one after the other."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count


def device_of(x: Tensor):
    """Launch on the tensor's own GPU; nothing to switch on the CPU."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
