"""Arguments that have another name now: an error that says which."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

__all__ = ["renamed"]

F = TypeVar("F", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[F], F]:
    """Refuse arguments by their old names with the new ones, as in ``renamed(space="of")``.

    Raises:
        TypeError: in a call with an old name.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            for old, new in names.items():
                if old in options:
                    raise TypeError(
                        f"{function.__name__} has no argument {old!r}; "
                        f"pass {new}= in its place, got {old}={options[old]!r}"
                    )
            return function(*arguments, **options)

        return call  # type: ignore[return-value]

    return decorate
