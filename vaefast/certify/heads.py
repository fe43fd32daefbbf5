"""The encoder as networks whose outputs' movement bounds that of the posterior.

μ moves by the mean's network, log σ by a network up to a factor: log-variances by ½, and σ itself
where its last activation has a logarithm that is 1-Lipschitz in what it is applied to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.secants import curve
from vaefast.models.compose import joined
from vaefast.models.encoder_bounds import LOG_FACTORS
from vaefast.models.maps import Maps
from vaefast.types import Network

__all__ = ["Head", "heads", "why_not"]


class Head(NamedTuple):
    """A network and what its outputs mean.

    Args:
        net: x ↦ the means, the logarithmic scales, or both in this order.
        mean: whether the means are among the outputs.
        factor: of the scales' outputs, per unit of log σ; 0 where there are none.
    """

    net: Network
    mean: bool
    factor: float = 0.0

    @property
    def groups(self) -> int:
        return int(self.mean) + int(self.factor > 0)

    def scale(self, std: Tensor) -> Tensor:
        """What whitens the outputs, [b, groups·d], for σ [b, d]."""
        parts = [1.0 / std.double()] if self.mean else []
        if self.factor:
            parts.append(torch.full_like(std, self.factor, dtype=torch.float64))
        return torch.cat(parts, dim=1)


def why_not(maps: Maps) -> str:
    """What keeps the encoder from being bounded, "" where nothing does."""
    found = _found(maps)
    return found if isinstance(found, str) else ""


def heads(maps: Maps) -> list[Head]:
    """One network with both heads on a common trunk, or one per head.

    Raises:
        ValueError: with what :func:`why_not` says.
    """
    found = _found(maps)
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _found(maps: Maps) -> list[Head] | str:
    """The heads, or what stands in their way."""
    mean, scale = maps.mean, maps.scale
    if mean.lowered is None:
        return mean.why_not
    if scale is None:
        return _known([Head(mean.lowered, True)])
    if scale.lowered is None:
        return scale.why_not
    log_scale = _log_scale(scale.lowered, given_as_std=scale is maps.std)
    if log_scale is None:
        return (
            "σ is no exp, softplus or sigmoid of a layer, of which the logarithm has a known slope"
        )
    plain = mean.lowered.activations[-1] == "identity" == log_scale.net.activations[-1]
    if plain and (both := joined(mean.lowered, log_scale.net)) is not None:
        return _known([log_scale._replace(net=both, mean=True)])
    return _known([Head(mean.lowered, True), log_scale])


def _known(found: list[Head]) -> list[Head] | str:
    """The heads, if every activation has a range of secants."""
    try:
        for head in found:
            for activation in head.net.activations:
                curve(activation)
    except ValueError as error:
        return str(error)
    return found


def _log_scale(net: Network, *, given_as_std: bool) -> Head | None:
    """x ↦ a with |Δ log σ_i| ≤ factor·|Δa_i|; None where there is none."""
    last, factor = net.activations[-1].split(":")[0], 0.5
    if given_as_std:
        if last not in LOG_FACTORS:
            return None
        factor = LOG_FACTORS[last]
    elif last != "clamp":
        return Head(net, False, factor)
    return Head(net.with_epilogue("identity"), False, factor)
