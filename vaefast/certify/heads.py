"""The encoder as networks whose outputs' movement bounds that of the posterior.

μ moves by the mean's network, log σ by a network up to a factor: log-variances by ½, and σ itself
where its last activation has a logarithm that is 1-Lipschitz in what it is applied to.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.models.compose import joined
from vaefast.models.maps import Maps
from vaefast.types import Network

__all__ = ["Head", "heads", "why_not"]

# d log σ / da lies in [0, factor]
LOG_FACTORS = {"exp": 1.0, "exp_half": 0.5, "softplus": 1.0, "sigmoid": 1.0}


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
    for part in (maps.mean, maps.scale):
        if part is not None and part.lowered is None:
            return part.why_not or "it is evaluated as a module"
    if maps.scale is not None and _log_scale(maps) is None:
        return f'σ is the activation "{maps.scale.lowered.activations[-1]}" of a layer'
    return ""


def heads(maps: Maps) -> list[Head]:
    """One network with both heads on a common trunk, or one per head."""
    mean = maps.mean.lowered
    if maps.scale is None:
        return [Head(mean, True)]
    net, factor = _log_scale(maps)
    both = joined(mean, net) if mean.activations[-1] == "identity" else None
    if both is not None:
        return [Head(both, True, factor)]
    return [Head(mean, True), Head(net, False, factor)]


def _log_scale(maps: Maps) -> tuple[Network, float] | None:
    """x ↦ a with |Δ log σ_i| ≤ factor·|Δa_i|."""
    net = maps.scale.lowered
    last = net.activations[-1].split(":")[0]
    if maps.scale is not maps.std:  # log σ²
        plain = last == "clamp"  # 1-Lipschitz
        return (net.with_epilogue("identity") if plain else net), 0.5
    if last not in LOG_FACTORS:
        return None
    return net.with_epilogue("identity"), LOG_FACTORS[last]
