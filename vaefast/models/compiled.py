"""Modules through torch.compile, compiled once per module and kept from call to call."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaefast.models.state import State
from vaefast.models.twins import channels_last, pays, twin_of

__all__ = ["CompileError", "compiled_twin"]


class CompileError(RuntimeError):
    """torch.compile could not do it."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(
            f"torch.compile of the {part} failed: {reason}; "
            'vaefast.set_generic("eager") runs it without'
        )


class _Compiled(NamedTuple):
    state: State
    twin: nn.Module
    run: nn.Module


_compiled: weakref.WeakKeyDictionary[nn.Module, dict[Any, _Compiled]] = weakref.WeakKeyDictionary()


def compiled_twin(owner: nn.Module, module: nn.Module, key: tuple) -> tuple[nn.Module, bool]:
    """A compiled twin of a module with the weights of the moment, and whether it is new.

    Args:
        owner: the caller's module, which the twin is kept with.
        module: what is compiled: the owner, or a part of it with the same layers.
        key: what else the twin depends on.
    """
    kept = _compiled.setdefault(owner, {})
    found = kept.get(key)
    if found is not None and found.state.fits():
        _refresh(found.twin, module)
        return found.run, False
    twin = channels_last(module) if pays(module) else twin_of(module)
    _refresh(twin, module)
    run: Any = torch.compile(twin, dynamic=True)
    kept[key] = _Compiled(State(owner), twin, run)
    return kept[key].run, True


@torch.no_grad()
def _refresh(twin: nn.Module, module: nn.Module) -> None:
    """Give the twin the module's weights; gradients for them would be computed for nothing."""
    for own, theirs in zip(twin.modules(), module.modules(), strict=True):
        for name, weight in theirs._parameters.items():
            if weight is not None:
                own._parameters[name] = _current(own._parameters[name], weight)


def _current(own: Any, weight: Tensor) -> Any:
    if own is weight:
        return nn.Parameter(weight.detach(), requires_grad=False)
    if own.stride() == weight.stride():
        own.data = weight.detach()
    else:
        own.copy_(weight)
    return own
