"""``torch.distributions`` without its checks of arguments, in one thread and for a while.

Chains diverge: z is finite there and far away, and what a prior or a decoder makes of it is 0 or
infinite. A distribution that checks it raises for all chains of the batch, where a density that is
not finite has this one proposal rejected.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributions import Distribution

__all__ = ["unchecked"]

NAME = "_validate_args"  # of the class the default, of an instance what its caller passed
SETTER = "set_default_validate_args"

_thread = threading.local()
_lock = threading.Lock()
_users = 0  # blocks of all threads
_setter: Any = None  # torch's own, while there are users


class _Checks:
    """``Distribution._validate_args`` while any thread is inside: False in such a thread.

    Other threads see what they saw before. As a data descriptor it also precedes what a caller
    passed to one distribution, which stays where it was: in the instance's dictionary.
    """

    def __init__(self, default: bool) -> None:
        self.default = default

    def __get__(self, instance: Any, owner: type | None = None) -> bool:
        if _inside():
            return False
        return self.default if instance is None else vars(instance).get(NAME, self.default)

    def __set__(self, instance: Any, value: bool) -> None:
        vars(instance)[NAME] = value


@contextmanager
def unchecked() -> Iterator[None]:
    """No distribution checks its arguments in this thread inside, also where it was told to.

    What ``Distribution.set_default_validate_args`` is told meanwhile counts, but for this thread.
    """
    _enter()
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1
        _leave()


def _inside() -> bool:
    return getattr(_thread, "depth", 0) > 0


def _set_default(value: bool) -> None:
    """In the place of torch's own, which would put a value in the descriptor's place."""
    checks = vars(Distribution)[NAME]
    if not _inside() and value in (True, False):
        checks.default = value


def _enter() -> None:
    global _users, _setter
    with _lock:
        _users += 1
        if _users == 1:
            _setter = vars(Distribution)[SETTER]
            setattr(Distribution, NAME, _Checks(vars(Distribution)[NAME]))
            setattr(Distribution, SETTER, staticmethod(_set_default))


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            setattr(Distribution, NAME, vars(Distribution)[NAME].default)
            setattr(Distribution, SETTER, _setter)
