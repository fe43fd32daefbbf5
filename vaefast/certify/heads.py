"""The encoder as networks whose outputs' movement bounds that of the posterior.

μ moves by the mean's network, log σ by a network up to a factor: log-variances by ½, and σ itself
where it is a positive function whose logarithm has a known slope, with a floor or not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.functional.secants import curve
from vaefast.models.compose import joined
from vaefast.models.encoder_bounds import log_scale
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
    found = log_scale(maps)
    if isinstance(found, str):
        return found
    own = Head(found.net, False, found.factor)
    plain = mean.lowered.activations[-1] == "identity" == own.net.activations[-1]
    if plain and (both := joined(mean.lowered, own.net)) is not None:
        return _known([own._replace(net=both, mean=True)])
    return _known([Head(mean.lowered, True), own])


def _known(found: list[Head]) -> list[Head] | str:
    """The heads, if every activation has a range of secants."""
    try:
        for head in found:
            for activation in head.net.activations:
                curve(activation)
    except ValueError as error:
        return str(error)
    return found
