"""Which bounds of an encoder's displacement there are, in words."""

from __future__ import annotations

from vaefast.functional.displacement import why_affine
from vaefast.functional.secants import curve
from vaefast.models.maps import Maps

__all__ = ["LOG_FACTORS", "described_bounds"]

# of the last activation of σ: d log σ / da lies in [0, factor]
LOG_FACTORS = {"exp_half": 0.5, "softplus": 1.0, "sigmoid": 1.0}


def described_bounds(maps: Maps) -> str:
    """The forms that ``certify.margin(method="local")`` can take, or why there is none."""
    parts = [part for part in (maps.mean, maps.scale) if part is not None]
    nets = [part.lowered for part in parts if part.lowered is not None]
    reason = next((part.why_not for part in parts if part.lowered is None), "")
    if maps.scale is not None and maps.scale is maps.std and maps.scale.lowered is not None:
        last = maps.scale.lowered.activations[-1].split(":")[0]
        if last not in LOG_FACTORS:
            reason = f"no logarithm with a known slope of σ, which ends in {last}"
    try:
        for activation in {name for net in nets for name in net.activations}:
            curve(activation)
    except ValueError as error:
        reason = str(error)
    if reason:
        return f"none of method local: {reason}"
    if all(net.is_mlp for net in nets):
        return "affine and multiplier forms, by default the smaller; joint where it is asked for"
    if too_large := next((why for why in map(why_affine, nets) if why), ""):
        return f"affine form alone: {too_large}"
    return "multiplier form by default; affine (cheaper) and joint (tightest) where asked for"
