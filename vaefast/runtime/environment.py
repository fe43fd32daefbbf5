"""``vaefast.info()``: what is installed, what this machine offers, and why a backend is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import warnings
from pathlib import Path

import torch

from vaefast.runtime import backends, openmp, threads

__all__ = ["Info", "info", "processor_name"]

PACKAGES = ("vaefast", "torch", "triton", "numpy", "scipy", "safetensors")


class Info(str):
    """A printable report; its representation is the text itself."""

    def __repr__(self) -> str:
        return str(self)


def info() -> Info:
    """Versions, processor, GPU, OpenMP runtimes, and every op's status on each backend.

    Returns:
        The report as text. Two OpenMP runtimes in one process also raise a warning: they fight
        for the same cores.
    """
    runtimes = openmp.runtimes()
    if len(runtimes) > 1:
        warnings.warn(
            f"{len(runtimes)} OpenMP runtimes are loaded ({', '.join(runtimes)}); import torch "
            "before the library that brings the other one",
            RuntimeWarning,
            stacklevel=2,
        )
    sections = [_versions(), _machine(runtimes), _status("cpu")]
    if torch.cuda.is_available():
        sections.append(_status("cuda"))
    return Info("\n\n".join(sections))


def versions() -> dict[str, str]:
    """Python's and the packages' versions, ``"not installed"`` where one is missing."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """The processor's name and the instruction-set levels that the C++ kernels can use."""
    return f"{processor_name()}, {threads.count()} threads, {_levels()}"


def gpu() -> str:
    """The first GPU's name, or ``"none"``."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"


def processor_name() -> str:
    """The processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (match := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())):
        return match.group(1).strip()
    return platform.processor() or platform.machine()


def _levels() -> str:
    if backends.availability("cpp", "cpu"):
        return "reference: no C++ kernels"
    module = importlib.import_module("vaefast._C")
    others = [level for level in module.isa_levels() if level != module.isa()]
    return f"kernels for {module.isa()}" + (f" (also {', '.join(others)})" if others else "")


def _versions() -> str:
    return "\n".join(f"{name:12} {version}" for name, version in versions().items())


def _machine(runtimes: list[str]) -> str:
    names = ", ".join(Path(path).name for path in runtimes) or "none"
    return f"{'processor':12} {processor()}\n{'GPU':12} {gpu()}\n{'OpenMP':12} {names}"


def _status(device: str) -> str:
    lines = [f"ops on {device}"]
    for op in backends.ops():
        lines.append(f"  {op}")
        for backend in backends.BACKENDS:
            support = backends.supports(op, backend, device=device)
            lines.append(f"    {backend:10} {'ready' if support else 'no: ' + support.reason}")
    return "\n".join(lines)
