"""What a compiled kernel takes and holds, read from the binary and its assembly."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import triton

from vaefast.kernels.proof.aot import AMD

__all__ = ["Binary", "examine"]

MATRIX = {
    "ptx": re.compile(
        r"\b(wgmma|mma)\.\w*sync[\w.]*\.(m\d+n\d+k\d+)(?:\.row\.col)?\.\w+\.(\w+)"
        r"|\b(tcgen05)\.mma\.[\w:.]*kind::(\w+)"
    ),
    "amdgcn": re.compile(r"\b(v_mfma_\w+)"),
}
PLAIN = re.compile(r"\b((?:min|max)\.(?:ftz\.)?(?:xorsign\.abs\.)?(?:f|bf)(?:16|32)\w*)")


class Binary(NamedTuple):
    """What a thread (registers, spilled bytes) or a program (the rest) of a binary takes."""

    warps: int
    stages: int
    registers: int
    spills: int
    shared: int
    tensor_memory: int  # columns
    matrix: dict[str, int]  # instructions of the matrix units
    plain_extrema: dict[str, int]  # minima and maxima that drop NaN; NVIDIA only


def examine(compiled, target: str) -> Binary:
    """Measure what :func:`vaefast.kernels.proof.aot.build` returns."""
    assembly = "amdgcn" if target in AMD else "ptx"
    text = compiled.asm[assembly]
    registers, spills = _registers_amd(text) if target in AMD else _registers(compiled.asm["cubin"])
    found = (match.groups("") for match in MATRIX[assembly].finditer(text))
    matrix = Counter(" ".join(filter(None, parts)) for parts in found)
    meta = compiled.metadata
    return Binary(
        meta.num_warps,
        meta.num_stages,
        registers,
        spills,
        meta.shared,
        getattr(meta, "tmem_size", None) or 0,
        dict(sorted(matrix.items())),
        dict(sorted(Counter(PLAIN.findall(text)).items())),
    )


def _registers_amd(text: str) -> tuple[int, int]:
    """Vector registers, of both files together, and bytes of scratch."""
    scratch = _number(r"\.private_segment_fixed_size:\s*(\d+)", text)
    return _number(r"\.vgpr_count:\s*(\d+)", text), scratch


def _registers(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of stack and local memory."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spills = _number(r"STACK:(\d+)", text) + _number(r"LOCAL:(\d+)", text)
    return _number(r"REG:(\d+)", text), spills


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"{pattern!r} is not in the binary's description:\n{text[:500]}")
    return int(match.group(1))
