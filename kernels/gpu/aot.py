"""Ahead-of-time compilation of the kernels, which needs no GPU, and what the binaries cost."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

__all__ = ["TARGETS", "Resources", "Variant", "build", "resources"]

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_BYTES = {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}


class Variant(NamedTuple):
    """One compiled form of a kernel: argument types, constants, warps."""

    label: str
    kernel: triton.JITFunction
    signature: dict[str, str]
    constants: dict[str, object]
    num_warps: int


class Resources(NamedTuple):
    """What a thread or program of a binary takes; stack and local bytes are spills."""

    registers: int
    stack: int
    local: int
    shared: int


def build(variant: Variant, target: str):
    """Compile one variant for one target name of :data:`TARGETS`."""
    source = ASTSource(variant.kernel, variant.signature, constexprs=variant.constants)
    options = {"num_warps": variant.num_warps}
    return triton.compile(source, target=TARGETS[target], options=options)


def resources(compiled, target: str) -> Resources:
    """Registers, spills and shared memory, read from the binary itself."""
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        scratch = _number(r"\.private_segment_fixed_size:\s*(\d+)", text)
        registers = _number(r"\.vgpr_count:\s*(\d+)", text)
        return Resources(registers, scratch, 0, compiled.metadata.shared)
    text = _resource_usage(compiled.asm["cubin"])
    return Resources(
        _number(r"REG:(\d+)", text),
        _number(r"STACK:(\d+)", text),
        _number(r"LOCAL:(\d+)", text),
        compiled.metadata.shared,
    )


def _resource_usage(cubin: bytes) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"{pattern!r} is not in the binary's description:\n{text[:500]}")
    return int(match.group(1))
