"""Whether anything of torch looks at the calls of ops: then they must go through the dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["unobserved"]


def _private(path: str, missing: Any) -> Callable[[], Any]:
    """A function of torch without a public name; where it is gone, one that sees somebody."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if callable(found) else lambda: missing


_dispatch_modes = _private("_C._len_torch_dispatch_stack", 1)
_function_modes = _private("_C._len_torch_function_stack", 1)
_transforms = _private("_C._functorch.peek_interpreter_stack", "a transform")
_profiles = _private("_C._autograd._profiler_enabled", True)
_tracing = _private("_C._get_tracing_state", "a trace")


def unobserved() -> bool:
    """No mode, transform, dual level, profiler or tracer is active in this thread."""
    return not (
        torch.compiler.is_compiling()
        or _dispatch_modes()
        or _function_modes()
        or getattr(forward_ad, "_current_level", 0) >= 0
        or _profiles()
        or _transforms() is not None
        or _tracing() is not None
    )
