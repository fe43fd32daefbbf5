"""How many programs of a compiled kernel a multiprocessor holds at once.

NVIDIA: the arithmetic of ``cuda_occupancy.h`` (CUDA 13), which rounds a warp's registers up to
256 and a program's shared memory, with the 1 KiB that the driver takes, up to 128 bytes; limits
from the CUDA programming guide's table of compute capabilities, and tensor memory on sm_100 from
the PTX manual (512 columns). AMD: LLVM's ``AMDGPUBaseInfo.cpp`` for gfx90a and later, whose four
units of a compute unit have 512 vector registers a lane, given out by 8, and room for 8 waves.
"""

from __future__ import annotations

from typing import NamedTuple

from vaefast.kernels.proof.aot import AMD
from vaefast.kernels.proof.binary import Binary

__all__ = ["LARGEST_SHARED", "most_warps", "programs"]

LARGEST_SHARED = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}  # a program
REGISTERS = 65536  # of a multiprocessor, 32 bits each
WARP_REGISTERS = 256  # a warp's registers come in such pieces
PARTS = 4  # of a multiprocessor or compute unit: each has its share of registers and warps
TENSOR_COLUMNS = 512
WAVE_REGISTERS = 512  # of a lane on AMD, architectural and accumulation registers together


class Limits(NamedTuple):
    """What one multiprocessor (NVIDIA) or compute unit (AMD) has."""

    warps: int
    programs: int
    shared: int  # bytes
    shared_unit: int  # bytes; a program's memory is a multiple
    shared_reserved: int  # bytes taken from every program


LIMITS = {
    "sm_80": Limits(64, 32, 167936, 128, 1024),
    "sm_90": Limits(64, 32, 233472, 128, 1024),
    "sm_100": Limits(64, 32, 233472, 128, 1024),
    "gfx942": Limits(32, 16, 65536, 512, 0),
}


def most_warps(target: str) -> int:
    """Warps (waves on AMD) that a multiprocessor holds at most."""
    return LIMITS[target].warps


def programs(binary: Binary, target: str) -> int:
    """Programs that fit beside each other on one multiprocessor; 0 where not even one does."""
    limits = LIMITS[target]
    fit = [limits.programs, limits.warps // binary.warps, _by_registers(binary, target)]
    shared = _up(binary.shared + limits.shared_reserved, limits.shared_unit)
    if shared:
        fit.append(limits.shared // shared)
    if binary.tensor_memory:
        fit.append(TENSOR_COLUMNS // binary.tensor_memory)
    return min(fit)


def _by_registers(binary: Binary, target: str) -> int:
    if target in AMD:
        waves = WAVE_REGISTERS // _up(max(binary.registers, 1), 8)
        return waves * PARTS // binary.warps
    per_warp = _up(binary.registers * 32, WARP_REGISTERS)
    if per_warp * _up(binary.warps, PARTS) > REGISTERS:
        return 0
    return REGISTERS // PARTS // per_warp * PARTS // binary.warps


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit
