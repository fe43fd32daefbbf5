"""Numbers and names as the page writes them."""

from __future__ import annotations

from typing import Any, NamedTuple

from vaefast.audit.columns import FIRST_ORDER, NOT_ADAPTIVE
from vaefast.audit.job import NORMS

__all__ = [
    "FIRST_ORDER",
    "MEASURES",
    "NOT_ADAPTIVE",
    "Measure",
    "attack_name",
    "change",
    "correlation",
    "number",
    "percent",
    "reach",
    "scale",
]


class Measure(NamedTuple):
    """What compares two reconstructions, by its key in the columns."""

    key: str
    noun: str  # how the page calls it
    formula: str
    subject: str  # of a sentence: what an attack raises or lowers
    bounded: bool  # whether it runs from 0 to 1

    def number(self, value: float | None) -> str:
        if value is None or not self.bounded:
            return number(value)
        return f"{value:.2f}"


MEASURES = {
    "msssim": Measure(
        "msssim", "similarity", "MSSSIM", "the similarity of the reconstruction", True
    ),
    "distance": Measure(
        "distance",
        "distance",
        "ℓ2",
        "the distance of the reconstruction from the clean input's",
        False,
    ),
}

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


def reach(numbers: dict[str, Any], *, images: bool = True) -> str:
    """What the attack may change, in words."""
    entry, whole = ("pixel", "image") if images else ("entry", "input")
    if numbers["norm"] == "linf":
        return f"changes no {entry} by more than {numbers['radius']:g}"
    return (
        f"changes the {whole} by at most {numbers['radius']:.3g} in length "
        f"({numbers['eps']:g} per {entry} in the root mean square)"
    )


def scale(numbers: dict[str, Any]) -> str:
    """The unit of an input's entries."""
    return "pixel scale" if numbers["images"] else "data scale"


def change(before: float, after: float, *, relative: bool = False) -> str:
    """``raises``, ``lowers`` or ``leaves``: within 0.01, or within one percent."""
    if abs(after - before) <= 0.01 * (max(abs(before), abs(after)) if relative else 1.0):
        return "leaves"
    return "raises" if after > before else "lowers"
