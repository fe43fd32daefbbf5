"""Ahead-of-time compilation of the kernels, which needs no GPU: what there is to compile.

A kernel's module tells it with ``variants()``. It may also hold

- ``KNOWN_SPILLS``: {(label, target): reason} of variants that spill, each under 64 bytes a thread;
- ``PLAIN_EXTREMA``: {kernel: reason} of kernels with a minimum or maximum that drops NaN.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from inspect import Parameter
from types import ModuleType
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import vaefast.kernels

__all__ = ["AMD", "NVIDIA", "TARGETS", "Variant", "build", "modules", "ones", "variants_of"]

NVIDIA = ("sm_80", "sm_90", "sm_100")
AMD = ("gfx942",)
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
ALIGNED = [["tt.divisibility", 16]]
NEAR = [["tt.pointer_range", 32]]  # what the JIT adds on AMD for tensors of less than 2 GiB


class Variant(NamedTuple):
    """One compiled form of a kernel: argument types, constants, warps."""

    label: str  # unique in its module
    kernel: triton.JITFunction
    signature: dict[str, Any]  # run-time arguments; a tuple's types in a tuple, None as "constexpr"
    constants: dict[str, Any]
    num_warps: int
    num_stages: int | None = None  # None: what triton takes
    aligned: tuple[str, ...] = ()  # integers that are multiples of 16, as all pointers are
    matrix: str = ""  # on sm_90 "wgmma", "mma" or both; then the others use their units as well
    targets: tuple[str, ...] = tuple(TARGETS)
    maxnreg: int | None = None  # registers of a thread that NVIDIA's assembler may use


def modules() -> dict[str, ModuleType]:
    """The modules that have variants, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(vaefast.kernels.__path__))
    loaded = {name: importlib.import_module(f"vaefast.kernels.{name}") for name in names}
    return {name: module for name, module in loaded.items() if hasattr(module, "variants")}


@cache
def variants_of(module: str) -> dict[str, Variant]:
    """A module's variants by label."""
    found: dict[str, Variant] = {}
    for variant in importlib.import_module(f"vaefast.kernels.{module}").variants():
        if variant.label in found:
            raise ValueError(f"{module} has two variants named {variant.label!r}")
        found[variant.label] = variant
    return found


def build(variant: Variant, target: str):
    """Compile one variant for one target name of :data:`TARGETS`, as the JIT would."""
    options = {"num_warps": variant.num_warps}
    if variant.num_stages is not None:
        options["num_stages"] = variant.num_stages
    if variant.maxnreg is not None:
        options["maxnreg"] = variant.maxnreg
    source = ASTSource(variant.kernel, *_arguments(variant, target))
    return triton.compile(source, target=TARGETS[target], options=options)


def ones(variant: Variant) -> Variant:
    """The form for a call whose integers are all 1, which the JIT turns into constants."""
    kernel = variant.kernel
    free = {p.name for p in kernel.params if not p.do_not_specialize}
    fixed = {n for n, t in variant.signature.items() if n in free and t in ("i32", "i64")}
    signature = {n: t for n, t in variant.signature.items() if n not in fixed}
    constants = variant.constants | dict.fromkeys(fixed, 1)
    return variant._replace(signature=signature, constants=constants, aligned=())


def _arguments(variant: Variant, target: str) -> tuple[dict, dict, dict]:
    """Types, constants and known alignments of all arguments, as ASTSource takes them."""
    signature: dict[str, Any] = {}
    constants: dict[Any, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for i, parameter in enumerate(variant.kernel.params):
        name = parameter.name
        kind = signature[name] = variant.signature.get(name, "constexpr")
        if kind == "constexpr":
            constants[name] = _constant(variant, parameter)
            continue
        for path, leaf in _leaves(kind, (i,)):
            if leaf == "constexpr":
                constants[path] = None
            elif leaf.startswith("*"):
                free = parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
                attributes[path] = ALIGNED * (not free) + NEAR * (target in AMD)
            elif name in variant.aligned:
                attributes[path] = ALIGNED
    return signature, constants, attributes


def _constant(variant: Variant, parameter):
    value = variant.constants.get(parameter.name, parameter.default)
    if value is Parameter.empty:
        raise ValueError(f"{variant.label}: {parameter.name} has no type and no value")
    return value


def _leaves(kind: Any, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    if isinstance(kind, tuple):
        for i, inner in enumerate(kind):
            yield from _leaves(inner, (*path, i))
    else:
        yield path, kind
