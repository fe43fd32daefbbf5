"""What decides a run's numbers, entry by entry, and what differs between two such lists."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

import vaefast
from vaefast.jobs.durable import checksum, file_checksum
from vaefast.jobs.plan import RunPlan
from vaefast.jobs.sources import Source
from vaefast.models import VAE, explain
from vaefast.runtime import backends, batching, memory
from vaefast.runtime.environment import processor_name, versions

__all__ = [
    "differences",
    "digest",
    "entries_of_machine",
    "entries_of_model",
    "entries_of_plan",
    "is_generic",
    "levels",
    "torch_level",
]

MATHS = (  # folders and files of vaefast that numbers come from
    *("types.py", "philox.py", "checks.py", "runtime", "functional", "reference", "kernels", "ops"),
    *("models", "metrics", "hmc", "geometry", "attacks", "certify"),
)
LIBRARIES = ("torch", "numpy", "scipy")
ONE_THREAD = 1  # of libraries: a block has the same bits on one


def entries_of_plan(plan: RunPlan, rows: int, source: Source) -> dict[str, Any]:
    """What the plan says: which ``rows`` of which data, and what is computed of them."""
    return {
        "data": source.fingerprint,
        "inputs": rows,
        "box": [str(end) for end in source.box],
        "task": plan.task,
        "options": json.loads(json.dumps(plan.options)),
        "r": list(plan.r),
        "band": plan.band,
        "alpha": plan.alpha,
        "level": plan.level,
        "seed": plan.seed,
        "precision": plan.precision,
        "arrays": plan.keeps_arrays,
    }


def entries_of_model(vae: VAE) -> dict[str, Any]:
    """All weights, and the settings that make numbers of them."""
    parts: list[bytes | memoryview] = []
    for name, t in (*vae.named_parameters(), *vae.named_buffers()):
        data = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        parts += [f"{name} {t.dtype} {tuple(t.shape)}".encode(), data.numpy().data]
    layers = [f"{name} {type(m).__name__} {m.extra_repr()}" for name, m in vae.named_modules()]
    params = [p if isinstance(p, float) else p.tolist() for p in _likelihood_params(vae)]
    dtype = next((t.dtype for t in vae.parameters()), torch.float32)
    return {
        "weights": checksum(*parts),
        "layers": checksum("\n".join(layers).encode()),
        "likelihood": [vae.likelihood, vae.decoder_output, vae.encoder_output, params],
        "dtype": str(dtype).removeprefix("torch."),
    }


def _likelihood_params(vae: VAE) -> tuple[Any, ...]:
    return () if vae.decoder_output == "mean_logvar" else vae.likelihood_params


def entries_of_machine(plan: RunPlan, libraries: bool) -> dict[str, Any]:
    """Versions, backend and processor, as far as they change a bit.

    Args:
        plan: of the run.
        libraries: whether some number comes from a library's products, which differ between kinds
            of processors; those run on one thread.
    """
    found = versions()
    entries: dict[str, Any] = {name: found[name] for name in ("vaefast", *LIBRARIES)}
    entries["maths"] = _maths()
    entries["backend"] = backends.named(None) or backends.fast(plan.device)
    if plan.device == "cuda":
        entries |= {"GPU": torch.cuda.get_device_name(0), "tile": plan.tile}
    else:
        own = levels()
        entries |= {"isa": own[0] if own else "none", "kernels": _kernels()}
        entries["torch_isa"] = torch_level()
    entries["libraries"] = libraries
    if libraries:
        entries |= {"processor": processor_name(), "threads": ONE_THREAD}
        entries |= {"block": batching.BLOCK, "memory": memory.budget()}
    return entries


def is_generic(vae: VAE, x: torch.Tensor) -> bool:
    """Whether some map is evaluated as the module that it is."""
    found = explain(vae, x)
    return not all(part.fused for part in (found.encoder_mean, found.encoder_logvar, found.decoder))


def levels() -> list[str]:
    """Instruction-set levels of the C++ kernels: the one in use, then all that this machine has."""
    if backends.availability("cpp", "cpu"):
        return []
    module = importlib.import_module("vaefast._C")
    return [module.isa(), *module.isa_levels()]


def torch_level() -> str:
    """The level of PyTorch's own loops."""
    return str(torch.backends.cpu.get_cpu_capability())


@cache
def _maths() -> str:
    """A checksum of the sources that numbers come from."""
    root = Path(vaefast.__file__).parent
    kernels = Path(importlib.import_module("vaefast.kernels.common").__path__[0]).parent
    parts = []
    for name in MATHS:
        place = kernels if name == "kernels" else root / name
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        for path in files:
            parts += [f"{name} {path.name}".encode(), path.read_bytes()]
    return checksum(*parts)[:16]


@cache
def _kernels() -> str:
    """A checksum of the compiled kernels: another compiler may round otherwise."""
    if backends.availability("cpp", "cpu"):
        return "none"
    module = importlib.import_module("vaefast._C")
    return file_checksum(Path(str(module.__file__)))[:16]


def digest(entries: Mapping[str, Any]) -> str:
    """One checksum of all entries."""
    return checksum(json.dumps(entries, sort_keys=True).encode())


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Each entry that differs, in a few words: "seed: 0 there, 1 here"."""
    found = []
    for name in dict.fromkeys((*theirs, *ours)):
        there, here = theirs.get(name), ours.get(name)
        if there != here:
            found.append(f"{name}: {_short(there)} there, {_short(here)} here")
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
