"""Whether anything of torch looks at the calls of ops: then they must go through the dispatcher.

torch has no public names for some of this; where one of its own is gone, the answer is yes, which
costs time and is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad

__all__ = ["dual_level", "in_transform", "unobserved"]


def _private(path: str, missing: Any) -> Callable[[], Any]:
    """A function of torch; where it is gone, one that sees somebody."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if callable(found) else lambda: missing


_dispatch_modes = _private("_C._len_torch_dispatch_stack", 1)
_function_modes = _private("_C._len_torch_function_stack", 1)
_profiles = _private("_C._autograd._profiler_enabled", True)
_tracing = _private("_C._get_tracing_state", "a trace")


in_transform = _private("_C._are_functorch_transforms_active", True)  # of torch.func


def dual_level() -> bool:
    """Whether forward-mode derivatives are in progress."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def unobserved() -> bool:
    """No mode, transform, dual level, profiler or tracer is active in this thread."""
    return not (
        torch.compiler.is_compiling()
        or _dispatch_modes()
        or _function_modes()
        or dual_level()
        or _profiles()
        or in_transform()
        or _tracing() is not None
    )
