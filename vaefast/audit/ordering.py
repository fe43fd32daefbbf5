"""Certified ≤ true ≤ empirical: how much of what an attack leaves is certified, and if it holds.

An attack that breaks an input inside its certified ball would show that the certificate is wrong
there: by chance, which alpha bounds, or by a mistake.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["compared", "violations"]

Values = dict[str, np.ndarray]


def compared(values: Values) -> dict[str, Any] | None:
    """Of the inputs that were searched: how many, how many broke, and the ratio's median.

    Returns:
        ``inputs``, ``broken``, ``median`` (of the empirical margin), and where there are
        certified margins ``certified`` (how many have one), ``ratio`` (median of certified over
        empirical, of those that broke) and ``violated`` (numbers of the inputs whose certified
        margin is the larger). None where none was searched.
    """
    empirical = values.get("margin_empirical")
    if empirical is None:
        return None
    searched = ~np.isnan(empirical)
    if not searched.any():
        return None
    broken = searched & np.isfinite(empirical)
    found: dict[str, Any] = {"inputs": int(searched.sum()), "broken": int(broken.sum())}
    found["median"] = float(np.median(empirical[searched]))
    if "margin_certified" in values:
        certified = values["margin_certified"]
        found["violated"] = values["index"][searched & (certified > empirical)].tolist()
        known = ~np.isnan(certified)
        found["certified"] = int((searched & known).sum())
        rows = broken & known & (empirical > 0)
        share = certified[rows] / empirical[rows]
        found["ratio"] = float(np.median(share)) if len(share) else None
    return found


def violations(values: Values) -> list[str]:
    """One loud note where an attack broke an input inside its certified ball."""
    found = compared(values)
    if found is None or not found.get("violated"):
        return []
    rows = ", ".join(map(str, found["violated"]))
    return [
        f"A CERTIFICATE IS CONTRADICTED on {len(found['violated'])} of {found['inputs']} inputs "
        f"({rows}): an attack broke them inside the certified ball. Do not rely on these margins; "
        "beyond what alpha and the attack's own test allow by chance this is a mistake to report."
    ]
