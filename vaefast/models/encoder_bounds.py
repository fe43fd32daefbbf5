"""Which bounds of an encoder's displacement there are, in words."""

from __future__ import annotations

from typing import NamedTuple

import torch

from vaefast.functional.activations import named
from vaefast.functional.displacement import why_affine
from vaefast.functional.secants import curve
from vaefast.models.maps import Maps
from vaefast.types import Network

__all__ = ["LogScale", "described_bounds", "log_scale"]

# of an activation φ > 0: (log φ)' lies in [0, factor]
LOG_FACTORS = {"exp_half": 0.5, "softplus": 1.0, "sigmoid": 1.0}


class LogScale(NamedTuple):
    """A network a with |Δ log σ_i| ≤ factor·|Δa_i| for any two inputs."""

    net: Network
    factor: float


def log_scale(maps: Maps) -> LogScale | str:
    """Of an encoder whose σ depends on x, or why there is none."""
    scale = maps.scale
    assert scale is not None
    if (variance := maps.encoder.variance) is not None:
        found = _of_positive(variance)
        return found if isinstance(found, str) else found._replace(factor=0.5 * found.factor)
    if scale.lowered is None:
        return scale.why_not
    if scale is maps.std:
        return _of_positive(scale.lowered)
    if named(scale.lowered.activations[-1])[0] != "clamp":
        return LogScale(scale.lowered, 0.5)
    return LogScale(scale.lowered.with_epilogue("identity"), 0.5)


def _of_positive(net: Network) -> LogScale | str:
    """Of s = net(x) > 0 in place of σ.

    s = w·p + b with w > 0, b ≥ 0 has (log s)' ≤ (log p)', and so has a clamp of it: such layers are
    left out. Of what is clamped to at least c > 0 the logarithm has slopes up to 1/c.
    """
    found, rest = list[LogScale](), net
    while True:
        kind, parameters = named(rest.activations[-1])
        factor = LOG_FACTORS.get(kind, 0.0)
        if kind == "clamp" and parameters[0] > 0.0:
            factor = 1.0 / parameters[0]
        if factor:
            found.append(LogScale(rest.with_epilogue("identity"), factor))
        if not _is_positive_affine(rest):
            break
        rest = Network(rest.weights[:-1], rest.biases[:-1], rest.layers[:-1])
    if found:
        return min(found, key=lambda one: one.factor)
    kinds = [named(activation)[0] for activation in net.activations]
    what = "ends in " + " after ".join(reversed(kinds[-2:]))
    if kinds[-1] == "identity" and kinds[-2:-1] and kinds[-2] in LOG_FACTORS:
        what = (
            f"ends in a layer after {kinds[-2]} that is more than w > 0 times each unit plus b ≥ 0"
        )
    return f"no logarithm with a known slope of σ, which {what}"


def _is_positive_affine(net: Network) -> bool:
    """Whether the last layer is h ↦ w⊙h + b with w > 0, b ≥ 0, perhaps clamped, of another."""
    last, weight, bias = net.layer(len(net.layers) - 1), net.weights[-1], net.biases[-1]
    kind, (_, high) = named(last.activation)
    if len(net.layers) < 2 or last.kind != "linear" or last.residual is not None:
        return False
    if kind != "identity" and not (kind == "clamp" and high > 0.0):
        return False
    if weight.shape[0] != weight.shape[1]:
        return False
    w = weight.diagonal()
    plain = bool((w > 0).all()) and torch.equal(weight, torch.diag(w))
    return plain and (bias is None or bool((bias >= 0).all()))


def described_bounds(maps: Maps) -> str:
    """The forms that ``certify.margin(method="local")`` can take, or why there is none."""
    found = None if maps.scale is None else log_scale(maps)
    nets = [] if maps.mean.lowered is None else [maps.mean.lowered]
    nets += [found.net] if isinstance(found, LogScale) else []
    reason = maps.mean.why_not if maps.mean.lowered is None else ""
    reason = reason or (found if isinstance(found, str) else "")
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
