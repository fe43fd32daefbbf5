"""Peak memory of one call beyond what was there before, measured in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

__all__ = ["peak_growth"]

SCRIPT = """
import importlib, torch
from vaefast.bench.memory import growth
torch.set_num_threads({threads})
call = importlib.import_module("{module}").{name}
print(growth(call(*{small}), call(*{large})))
"""


def peak_growth(module: str, name: str, small: tuple, large: tuple) -> float:
    """MiB that ``module.name(*large)()`` peaks above the memory in use before it.

    ``module.name(*small)()`` runs first, so that threads and libraries are not counted.

    Raises:
        RuntimeError: the process failed, or this is not Linux.
    """
    import torch

    script = SCRIPT.format(
        module=module, name=name, small=small, large=large, threads=torch.get_num_threads()
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")  # not in a checkout
    if done.returncode:
        raise RuntimeError(f"the peak of {module}.{name} was not measured: {done.stderr}")
    return float(done.stdout.split()[-1])


def growth(warm, call) -> float:
    """MiB that the peak of resident memory during ``call()`` lies above what came before."""
    warm()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    call()
    return (resident("VmHWM") - before) / 1024


def touch(mib: int):
    """A call that writes so many MiB, for the measurement's own test."""
    return lambda: bytes(b"1" * (mib << 20))


def resident(field: str) -> int:
    """KiB, of this process."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1])
