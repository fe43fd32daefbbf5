"""Numbers and names as the page writes them."""

from __future__ import annotations

from typing import Any

from vaefast.audit.columns import FIRST_ORDER, NOT_ADAPTIVE
from vaefast.audit.stages import NORMS

__all__ = [
    "FIRST_ORDER",
    "NOT_ADAPTIVE",
    "attack_name",
    "change",
    "correlation",
    "number",
    "percent",
    "reach",
]

ATTACKS = {"latent": "Latent attack", "max_damage": "Maximum-damage attack"}


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits without an exponent where that stays short."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        text = f"{value:.{digits - 1}e}"
    else:
        text = f"{value:.{max(0, digits - 1 - _exponent(value))}f}"
    return text.replace("-", "−")


def correlation(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}".replace("-", "−")


def _exponent(value: float) -> int:
    return int(f"{abs(value):e}".split("e")[1])


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def attack_name(numbers: dict[str, Any]) -> str:
    """``Latent attack, ℓ∞ 0.1``."""
    return f"{ATTACKS[numbers['attack']]}, {NORMS[numbers['norm']]}\u00a0{numbers['radius']:.3g}"


def reach(numbers: dict[str, Any]) -> str:
    """What the attack may change, in words."""
    if numbers["norm"] == "linf":
        return f"changes no pixel by more than {numbers['radius']:g}"
    return (
        f"changes the image by at most {numbers['radius']:.3g} in length "
        f"({numbers['eps']:g} per pixel in the root mean square)"
    )


def change(before: float, after: float, *, tolerance: float = 0.01) -> str:
    """``raises``, ``lowers`` or ``leaves``."""
    if abs(after - before) <= tolerance:
        return "leaves"
    return "raises" if after > before else "lowers"
