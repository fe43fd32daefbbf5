"""What there is to measure: a module with ``cases(place)`` for every op, and for whole jobs."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from vaefast.bench.place import Place
from vaefast.bench.runner import Case

__all__ = ["JOBS", "cases", "chosen", "module", "names"]

JOBS = (  # in the order of what is asked of them on a GPU
    "pgd_step",
    "net_chain",
    "net_jacobian_gram",
    "decode_distance",
    "convolutional_hmc",
    "log_likelihood",
    "leapfrog_step",
    "net_forward",
    "net_potential",
    "net_trajectory",
    "net_trajectory_vjp",
    "net_jvp",
    "net_vjp",
    "eigenvalue_bound",
    "net_displacement_bound",
    "hmc_defence",
    "generic",
    "convolutional",
    "public_calls",
    "spectra",
    "threads",
    "integrations",
)
BESIDES = {
    "convolutional_hmc": "cuda",
    "generic": "cpu",
    "hmc_defence": "cpu",
    "convolutional": "cpu",
    "public_calls": "cpu",
    "spectra": "cpu",
    "threads": "cpu",
    "integrations": "cpu",
}  # no ops; where they are measured


def names(place: Place) -> tuple[str, ...]:
    """Those that a place has."""
    other = "cuda" if place.on_cpu else "cpu"
    return tuple(name for name in JOBS if BESIDES.get(name) != other)


def chosen(asked: list[str], place: Place) -> list[str]:
    """The jobs asked for, or all.

    Raises:
        ValueError: an unknown job, or no GPU.
    """
    known = names(place)
    for name in asked:
        if name not in known:
            where = "" if place.on_cpu else " on a GPU"
            raise ValueError(f"op must be one of {', '.join(known)}{where}, got {name!r}")
    if place.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device was found; pass --device cpu")
    return asked or list(known)


def module(name: str) -> ModuleType:
    folder = "vaefast.bench" if name in BESIDES else "vaefast.bench.ops"
    return importlib.import_module(f"{folder}.{name}")


def cases(name: str, place: Place) -> list[Case]:
    """Titles, and what builds each benchmark."""
    return module(name).cases(place)
