"""Which module's forward runs, by the names that the caller knows it by."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

__all__ = ["ModuleStack", "Root", "module_stack"]


class Root(NamedTuple):
    """What is traced: a function of one tensor, and the module whose forward it runs, if any."""

    function: Callable[[Tensor], Any]
    module: nn.Module | None
    label: str  # of the function itself
    prefix: str = ""  # of the module's path
    ours: bool = False  # whether the function adds no code of the caller's to the module's


class ModuleStack:
    """The modules whose forwards run, and their names below the root's."""

    def __init__(self, root: Root) -> None:
        self._root, self._running = root, list[nn.Module]()
        modules = [] if root.module is None else root.module.named_modules()
        self._names = {id(module): name for name, module in modules}
        self._thread = threading.get_ident()

    def enter(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self._running.append(module)

    def leave(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() == self._thread and self._running:
            self._running.pop()

    def __call__(self) -> str:
        """Which module's forward runs."""
        named = [m for m in self._running if id(m) in self._names]
        if not named:
            return self._root.label
        path = ".".join(filter(None, (self._root.prefix, self._names[id(named[-1])])))
        kind = type(named[-1]).__name__
        return f"layer {path!r} ({kind})" if path else kind

    def way_out_of_drawing(self) -> str:
        """What to do where random numbers are drawn now."""
        layers = [m for m in self._running if type(m).__module__.startswith("torch.nn.")]
        if any(m.training and not isinstance(m, nn.Sequential) for m in layers):
            return "call model.eval()"
        own = [m.training for m in self._running if id(m) in self._names]
        mode = ", or call model.eval()" if any(own) else ""
        return f"the forward samples; return mean and logvar{mode}"


@contextmanager
def module_stack(root: Root) -> Iterator[ModuleStack]:
    """Inside, what is yielded knows which module's forward runs."""
    stack = ModuleStack(root)
    hooks = [
        register_module_forward_pre_hook(stack.enter),
        register_module_forward_hook(stack.leave, always_call=True),
    ]
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()
