"""The one way an op is registered with torch: schema, backends, shapes for tracing, autograd."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from vaefast.runtime import backends

library = torch.library.Library("vaefast", "DEF")


def register(
    name: str,
    schema: str,
    *,
    fake: Callable,
    reference: Callable,
    cpp: Callable | None = None,
    triton: Callable | None = None,
) -> Callable:
    """Define ``vaefast::<name>`` and return the callable.

    Every implementation takes the schema's arguments but the last, ``str backend``, which selects
    among them. The caller has resolved and checked everything.

    Args:
        schema: the op's schema, e.g. ``"(Tensor x, str backend) -> Tensor"``; arguments that it
            writes, ``Tensor(a!)``, come first.
        fake: shapes and dtypes of the results, for torch.compile and meta tensors.
    """
    # below the dispatcher's autograd no graph may be recorded: the reference would record one
    given = {"reference": torch.no_grad()(reference), "cpp": cpp, "triton": triton}
    implementations = {key: value for key, value in given.items() if value is not None}
    library.define(name + schema)
    run = _counting_writes(backends.dispatcher(implementations), schema.count("!)"))
    library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"vaefast::{name}", fake, lib=library)
    backends.declare(name, tuple(implementations))
    return getattr(torch.ops.vaefast, name).default


def _counting_writes(run: Callable, written: int) -> Callable:
    """Tell autograd that the first ``written`` arguments changed: it must not use stale values."""
    if not written:
        return run

    def call(*arguments):
        result = run(*arguments)
        for t in arguments[:written]:
            if not t.is_inference():
                torch.autograd.graph.increment_version(t)
        return result

    return call


def lazy(module: str, function: str) -> Callable:
    """A function of a module that is imported at its first call (triton takes a second to load)."""

    def call(*arguments):
        return getattr(importlib.import_module(module), function)(*arguments)

    return call


def refuse_grad(name: str, *tensors: Tensor | None) -> None:
    """A fast op without a derivative must not silently cut the graph."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        raise RuntimeError(f'{name} is not differentiable; use backend="reference"')


def rows_of(x: Tensor) -> Tensor:
    """[B, D] with contiguous rows (any row stride), copied only where it must be."""
    return x if x.shape[1] <= 1 or x.stride(1) == 1 else x.contiguous()
