"""What must stay within r: the event that a probability or a margin is of."""

from __future__ import annotations

from enum import Enum

__all__ = ["Event", "require_one_event"]


class Event(str, Enum):
    """Which two reconstructions are compared; a member equals its text.

    The two say nothing about each other: a margin of one is none of the other.
    """

    FIXED_CENTRE = "one draw against the fixed centre"
    """‖g(μ(x+δ) + σ(x+δ)⊙η) − g(μ(x))‖₂ ≤ r, one η ~ N(0, I)."""

    TWO_DRAWS = "two independent draws"
    """‖g(μ(x+δ) + σ(x+δ)⊙η) − g(μ(x) + σ(x)⊙η')‖₂ ≤ r, η and η' independent."""

    def __str__(self) -> str:
        return self.value


def require_one_event(**events: Event) -> Event:
    """The event that all of them are of.

    Raises:
        ValueError: two differ; nothing may compare or combine them.
    """
    (name, first), *others = events.items()
    for other, event in others:
        if event != first:
            raise ValueError(
                f'{name} is of the event "{first}", {other} of "{event}", which cannot be compared '
                "or combined; ask for both with the same variant"
            )
    return first
