"""The rules by which operations become values: one per name, filled in by the modules beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["RULES", "Rule", "rule"]

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function of an operation's arguments under the operation's ATen names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register
