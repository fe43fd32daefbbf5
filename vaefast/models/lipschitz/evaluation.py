"""A network's value in float64 with a bound of its rounding error, entry by entry."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.activations import parse
from vaefast.functional.layers import apply
from vaefast.functional.slopes import largest_slope
from vaefast.types import Network

__all__ = ["with_error"]

UNIT = 2.0**-53
ULPS = 16.0  # of an activation's value, more than any of ours errs by


def with_error(x: Tensor, net: Network) -> tuple[Tensor, Tensor]:
    """h(x) and e ≥ |h(x) − the exact value|, [n, out] float64 each, for x [n, in].

    The running error of each layer: a product of length k errs by at most γ(|W||h| + |b|), γ = (k +
    3)u, in whatever order it is summed, and carries the error before it over by |W|. An activation
    carries it over by its slope; MaxMin, which sorts a pair, by the larger of the pair's two.
    """
    h = x.double()
    values, errors = {-1: h}, {-1: torch.zeros_like(h)}
    for index, (layer, activation) in enumerate(zip(net.parsed(), parse(net.activations))):
        weight, bias = net.weights[index].double(), net.biases[index]
        bias = None if bias is None else bias.double()
        size = None if bias is None else bias.abs()
        h, e = values[index - 1], errors[index - 1]
        a = apply(layer, h, weight, bias)
        gamma = (layer.in_features + 3) * 2.0 * UNIT
        e = apply(layer, (1.0 + gamma) * e + gamma * h.abs(), weight.abs(), None)
        e = e if size is None else e + gamma * apply(layer, torch.zeros_like(h), weight, size)
        if layer.residual is not None:
            a = a + values[layer.residual]
            e = e + errors[layer.residual] + 2.0 * UNIT * a.abs()
        h = activation.value(a)
        if layer.activation == "maxmin":
            e = e.unflatten(-1, (-1, 2)).amax(-1, keepdim=True).expand(*e.shape[:-1], -1, 2)
            e = e.flatten(-2)
        slope = largest_slope(layer.activation)
        values[index], errors[index] = h, slope * e + ULPS * UNIT * h.abs()
    last = len(net.layers) - 1
    return values[last], errors[last]
