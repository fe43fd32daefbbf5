"""Block sizes of ``decode_distance``: as large as each family's registers hold.

A block of 64 samples and 128 outputs gives a thread of 4 warps 64 sums. In IEEE products it then
reads 20 numbers from shared memory for 64 multiplications, and two programs share a
multiprocessor, so that one's activations hide behind the other's products. On Hopper the matrix
units take blocks of 128 by 128, which halve what comes from the second-level cache for every
product; other families would spill.
"""

from __future__ import annotations

from functools import cache

import torch

from vaefast.kernels.common.launch import MOST_REGISTERS, NARROWEST_TILE, Plan, processors

__all__ = ["MIXED_TILE", "TARGETS", "WIDEST_TILE", "blocks_of", "plan"]

TARGETS = {"ampere": "sm_80", "hopper": "sm_90", "blackwell": "sm_100", "amd": "gfx942"}
INTERPRETED_TILE = 1024  # an operation costs the interpreter the same for any tile
WIDEST_TILE = {"fp64": 32, "ieee": 64, "tf32": 128, "bf16": 128}
MIXED_TILE = {"fp64": 32, "ieee": 64, "tf32": 64, "bf16": 64}


def plan(rows: int, kind: str, tile: int, mixed: bool, device: torch.device) -> Plan:
    """Block sizes for "fp64" or a precision; ``tile`` pins them, 0 follows the rows.

    Tiles of several inputs have one size: they serve few rows, or those that a band left open.
    """
    if not tile:
        widest = WIDEST_TILE[kind] if device.type == "cuda" else INTERPRETED_TILE
        tile = NARROWEST_TILE
        while tile < widest and rows > tile * processors(device):
            tile *= 2
    if device.type == "cuda" and (mixed or kind == "fp64"):
        tile = MIXED_TILE[kind]
    return blocks_of(kind, tile, mixed, _family(device))


def blocks_of(kind: str, tile: int, mixed: bool, family: str) -> Plan:
    """The launch for a tile on a family of GPUs, from :data:`TARGETS`."""
    if kind == "fp64":
        return _plan(family, 64, 16, tile, "ieee", 8, 2)
    stages = 2 if family == "amd" else 3
    if kind == "ieee":
        narrow = mixed if family == "amd" else tile < 64
        warps = 8 if tile >= 128 else 4
        return _plan(family, 64 if narrow else 128, 16, tile, "ieee", warps, stages)
    depth = 32 if kind == "tf32" else 64
    if family == "ampere":
        return _plan(family, 64, depth, tile, kind, 8 if tile >= 64 else 4, 3)
    if family == "blackwell":
        return _plan(family, 64, depth, tile, kind, 8, 3 if (kind, tile) == ("bf16", 128) else 2)
    wide = family == "hopper" and not mixed
    warps = 8 if tile >= 128 else 4
    return _plan(family, 128 if wide else 64, depth, tile, kind, warps, stages)


def _plan(
    family: str, width: int, depth: int, tile: int, precision: str, warps: int, stages: int
) -> Plan:
    told = family == "blackwell" or (precision == "ieee" and family != "amd")
    most = MOST_REGISTERS if told else None  # each spills the other way
    return Plan(width, depth, tile, precision, depth, precision, warps, stages, most)


@cache
def _family(device: torch.device) -> str:
    if torch.version.hip is not None:
        return "amd"
    generation = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 9
    return "ampere" if generation < 9 else "hopper" if generation == 9 else "blackwell"
