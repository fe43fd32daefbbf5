"""Adapters: how models of other libraries become a VAE, looked up by the module's class.

``vaefast.integrations`` has those for known libraries. A package adds its own by an entry point of
the group ``vaefast.adapters`` whose value is an :class:`Adapter`, or by :func:`register`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

if TYPE_CHECKING:
    from vaefast.models.vae import VAE

__all__ = ["GROUP", "Adapter", "find", "is_from", "register"]

GROUP = "vaefast.adapters"
BUILT_IN = {  # also in pyproject.toml; a checkout that is not installed has no entry points
    "diffusers": "vaefast.integrations.diffusers:ADAPTER",
    "pythae": "vaefast.integrations.pythae:ADAPTER",
    "scvi": "vaefast.integrations.scvi:ADAPTER",
}

_registered: list[Adapter] = []


class Adapter(NamedTuple):
    """How models of one library become a VAE.

    Args:
        name: of the library.
        fits: whether the module is one of its models; it must not import the library.
        wrap: (module, options) -> VAE, with those options of :func:`vaefast.as_vae` that were
            given; raises TypeError or ValueError with the reason why a model has no place.
    """

    name: str
    fits: Callable[[nn.Module], bool]
    wrap: Callable[[nn.Module, dict[str, Any]], VAE]


def register(adapter: Adapter) -> None:
    """Add an adapter, which comes before all others."""
    if not isinstance(adapter, Adapter):
        raise TypeError(f"adapter must be a vaefast Adapter, got {type(adapter).__name__}")
    _registered.insert(0, adapter)


def find(module: nn.Module) -> Adapter | None:
    """The adapter for a module, if there is one."""
    return next((a for a in [*_registered, *_installed()] if a.fits(module)), None)


def is_from(module: nn.Module, library: str, *classes: str) -> bool:
    """Whether a library's class, one of these if any are named, is among the module's bases."""
    return any(
        base.__module__.partition(".")[0] == library and (not classes or base.__name__ in classes)
        for base in type(module).__mro__
    )


@cache
def _installed() -> tuple[Adapter, ...]:
    """The adapters of installed packages, then our own."""
    ours = set(BUILT_IN.values())
    others = [(e.name, e.value) for e in entry_points(group=GROUP) if e.value not in ours]
    loaded = [_load(name, value) for name, value in [*others, *BUILT_IN.items()]]
    return tuple(adapter for adapter in loaded if adapter is not None)


def _load(name: str, value: str) -> Adapter | None:
    path, _, attribute = value.partition(":")
    try:
        adapter = getattr(importlib.import_module(path), attribute)
    except Exception as error:  # another package's code may fail in any way
        warnings.warn(f"adapter {name!r} ({value}) cannot be loaded: {error}", stacklevel=2)
        return None
    return adapter if isinstance(adapter, Adapter) else None
