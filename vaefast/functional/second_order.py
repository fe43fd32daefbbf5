"""Hessian-vector products of a posterior's potential energy by hand: tangents forward, and back.

Plain torch operations throughout, as in :mod:`vaefast.functional.network`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vaefast.functional import network
from vaefast.functional.activations import parse
from vaefast.functional.layers import adjoint, apply
from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS, beside_chains
from vaefast.functional.network import Tape
from vaefast.functional.rows import chains
from vaefast.types import Network

__all__ = ["bytes_per_row", "hessian_products"]


def hessian_products(
    z: Tensor,
    v: Tensor,
    x: Tensor,
    net: Network,
    likelihood: str,
    parameters: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """⟨v, ∇U⟩ derived in z [N, d] and, for each chain, in its image: ∇²U v [N, d] and [N, D].

    ⟨v, ∇U⟩ = ⟨v, z⟩ − ⟨J v, s⟩ with s = d log p/d out: J v goes forward, the cotangents of the
    output and of J v back.
    """
    tape = network.forward(z, net)
    out = tape.out.unflatten(0, (len(x), chains(z, x)))
    pixels, own = x.unsqueeze(1), beside_chains(parameters)
    record = PIXEL_LIKELIHOODS[likelihood]
    second = record.second(out, pixels, *own)
    score = record.derivative(out, pixels, *own)
    curvature, mixed, score = (t.flatten(0, 1) for t in (second.curvature, second.mixed, score))
    rates, moved = _tangents(tape, v, net)
    bent = _pull(tape, rates, curvature * moved, score, net)
    return v - bent, -mixed * moved


def _tangents(tape: Tape, v: Tensor, net: Network) -> tuple[list[Tensor], Tensor]:
    """Tangents of the pre-activations, one per layer, and J v."""
    rates, moving = [], [v]  # that of layer l at l + 1
    for index, (layer, activation) in enumerate(zip(net.parsed(), parse(net.activations))):
        rate = apply(layer, moving[-1], net.weights[index], None)
        if layer.residual is not None:
            rate = rate + moving[layer.residual + 1]
        rates.append(rate)
        moving.append(activation.multiply(tape.pre[index], tape.post[index], rate))
    return rates, moving[-1]


def _pull(tape: Tape, rates: list[Tensor], value: Tensor, along: Tensor, net: Network) -> Tensor:
    """⟨J v, s⟩ derived in z, from its derivatives ``value`` in the output, ``along`` in J v."""
    activations = parse(net.activations)
    into = {len(net.layers) - 1: (value, along)}  # of each layer's output and its tangent
    for index in reversed(range(len(net.layers))):
        layer, activation, weight = net.layer(index), activations[index], net.weights[index]
        a, h = tape.pre[index], tape.post[index]
        value, along = into.pop(index)
        value = activation.multiply(a, h, value)
        if activation.second is not None:
            value = value + activation.second(a, h) * rates[index] * along
        along = activation.multiply(a, h, along)
        if layer.residual is not None:
            _add(into, layer.residual, value, along)
        _add(into, index - 1, adjoint(layer, value, weight), adjoint(layer, along, weight))
    return into[-1][0]


def _add(into: dict[int, tuple[Tensor, Tensor]], index: int, value: Tensor, along: Tensor) -> None:
    if index in into:
        value, along = into[index][0] + value, into[index][1] + along
    into[index] = value, along


def bytes_per_row(net: Network, like: Tensor) -> int:
    """Bytes that one row holds at once: values, tangents and two cotangents, and pixels' terms."""
    widths = [net.in_features, *(layer.out_features for layer in net.parsed())]
    return like.element_size() * (4 * sum(widths) + 12 * max(widths))
