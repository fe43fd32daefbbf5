"""What a module's forward depends on, as far as objects tell."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vaefast.models.encoders import GaussianEncoder

__all__ = ["State", "watched"]

_HELD = (Tensor, int, float, complex, str, bytes, bool, torch.dtype, torch.device, type(None))
_PLAIN = (*_HELD, list, dict, set)
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")
_STATE = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")


class State:
    """The objects that a module's forward depends on; those that can die are held weakly."""

    def __init__(self, module: nn.Module) -> None:
        modules = list(module.modules())
        self._modules = [weakref.ref(m) for m in modules]
        values = list(_values(modules))
        self._ids = [id(value) for value in values]
        self._held = [value for value in values if isinstance(value, _HELD)]
        self._weak = [*filter(None, map(_weakly, {id(value): value for value in values}.values()))]
        self.tensors = [*module.parameters(), *module.buffers()]

    @cached_property
    def is_all(self) -> bool:
        """Whether the forward depends on nothing else: exactly torch's layers, or ours of them."""
        modules = [reference() for reference in self._modules]
        return all(m is not None and _is_known(m) for m in modules)

    def fits(self) -> bool:
        modules = [reference() for reference in self._modules]
        gone = [True for reference in self._weak if reference() is None]  # no generator: hot
        if None in modules or gone:
            return False
        return self._ids == [*map(id, _values(modules))]

    def versions(self) -> list[tuple[int, int]] | None:
        """None where a tensor counts no versions, as those of inference mode and lazy ones."""
        try:
            return [(t._version, t.data_ptr()) for t in self.tensors]
        except (RuntimeError, ValueError):
            return None


def _is_known(module: nn.Module) -> bool:
    """Whether its forward is torch's or ours, without hooks."""
    home = type(module).__module__
    known = home.startswith("torch.nn.modules.") or type(module) is GaussianEncoder
    hooks = module._forward_hooks or module._forward_pre_hooks
    return known and not hooks and "forward" not in module.__dict__


def watched() -> bool:
    """Whether hooks of all modules are registered."""
    found = [getattr(torch.nn.modules.module, name, {None: None}) for name in _GLOBAL_HOOKS]
    return any(found)


def _values(modules: list[Any]) -> Iterator[Any]:
    root = type(modules[0])
    methods = getattr(root, "encode", None), getattr(root, "decode", None)
    states = [module.__dict__ for module in modules]
    found = [state.get(name) for state in states for name in _STATE]
    inner = [held for held in found if isinstance(held, dict)]  # TorchScript has others
    forwards = [getattr(type(module), "forward", None) for module in modules]
    return chain(
        map(type, modules), methods, forwards, *map(dict.values, states), *map(dict.values, inner)
    )


def _weakly(value: Any) -> weakref.ref | None:
    """None for what is held, and for lists, dicts and sets, which are known by their ids alone."""
    if isinstance(value, _PLAIN):
        return None
    try:
        return weakref.ref(value)
    except TypeError:
        return None
