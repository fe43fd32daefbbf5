"""What the settings of all experiments can do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, TypeVar

__all__ = ["Sized", "check_positive", "option_name"]

S = TypeVar("S", bound="Sized")


class Sized:
    """The base of an experiment's settings, a frozen dataclass of plain values and tuples."""

    def with_sizes(self: S, **given: Any) -> S:
        """Those that are not None in place of its own."""
        sizes = {name: value for name, value in given.items() if value is not None}
        return replace(self, **sizes)  # type: ignore[type-var]

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        found = asdict(self)  # type: ignore[call-overload]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}

    @classmethod
    def of_data(cls: type[S], data: str, *, full: bool, **given: Any) -> S:
        """The default or the full size for a data set, with what is given in its place."""
        own: dict[str, Any] = cls.sizes(data, full=full)
        return cls(data, **own).with_sizes(**given)  # type: ignore[call-arg]

    @classmethod
    def sizes(cls, data: str, *, full: bool) -> dict[str, Any]:
        """What differs from the defaults of the class; here nothing does."""
        return {}


def option_name(name: str) -> str:
    """``train_inputs`` as ``--train-inputs``."""
    return f"--{name.replace('_', '-')}"


def check_positive(named: Iterable[tuple[str, float]]) -> None:
    """Raise ValueError for the first value, by its option, that is not positive and finite."""
    for name, value in named:
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value:g}")
