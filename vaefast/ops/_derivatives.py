"""First derivatives of the differentiable ops: closed forms per pixel, one loop over layers.

No op's reference runs here; the tables of activations and likelihoods are shared with it. The
loop's products are the library's: a derivative in weights sums over rows, so it is no row of
contract 4, and none of it is registered as an op. What needs a row's bits, the derivative of
``net_forward`` in its inputs alone, is ``net_vjp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaefast.functional.activations import Activation, parse
from vaefast.functional.layers import adjoint, apply, bias_gradient, weight_gradient
from vaefast.functional.likelihoods import PIXEL_LIKELIHOODS, beside_chains, parameter_rows
from vaefast.functional.rows import chains, chunked, of_chains
from vaefast.ops._autograd import zero_biases
from vaefast.types import Network

__all__ = [
    "Seed",
    "Totals",
    "bytes_per_row",
    "likelihood_gradients",
    "network_gradients",
    "pixel_gradients",
    "potential_gradients",
]

TEMPORARIES = 8  # of the size of a row of ``out``, alive at once


def pixel_gradients(
    out: Tensor,
    x: Tensor,
    likelihood: str,
    parameters: Sequence[Tensor],
    in_logp: Tensor | None,
    in_slope: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """⟨in_logp, log p⟩ + ⟨in_slope, d log p/d out⟩ derived in out [N, D] and in x [B, D]."""
    a, pixels = out.unflatten(0, (len(x), chains(out, x))), x.unsqueeze(1)  # [B, C, D]
    record, own = PIXEL_LIKELIHOODS[likelihood], beside_chains(parameters)
    slope, pixel = record.derivative(a, pixels, *own), record.second(a, pixels, *own)
    into_out, into_x = torch.zeros_like(a), torch.zeros_like(a)
    if in_logp is not None:
        weight = in_logp.view(*a.shape[:2], 1).to(a.dtype)
        into_out, into_x = into_out + weight * slope, into_x + weight * pixel.in_x
    if in_slope is not None:
        weight = in_slope.reshape(a.shape)
        into_out, into_x = into_out + weight * pixel.curvature, into_x + weight * pixel.mixed
    return into_out.flatten(0, 1), into_x.sum(1)


def likelihood_gradients(
    out: Tensor,
    x: Tensor,
    likelihood: str,
    parameters: Sequence[Tensor],
    in_logp: Tensor | None,
    in_slope: Tensor | None,
) -> tuple[Tensor, ...]:
    """:func:`pixel_gradients` within the memory budget."""
    count = chains(out, x)

    def run(rows: slice) -> tuple[Tensor, ...]:
        of = of_chains(rows, count)
        parts = (None if t is None else t[of] for t in (in_logp, in_slope))
        own = parameter_rows(parameters, rows)
        return pixel_gradients(out[of], x[rows], likelihood, own, *parts)

    return chunked(run, len(x), TEMPORARIES * count * out.shape[-1] * out.element_size())


class Seed(NamedTuple):
    """Cotangents of a layer's output and of the output's tangent."""

    value: Tensor  # [n, D]
    tangent: Tensor | None = None  # [n, D]


class Totals:
    """Derivatives in the weights and biases, summed over chunks of rows."""

    def __init__(self, net: Network) -> None:
        self.weights: list[Tensor | None] = [torch.zeros_like(w) for w in net.weights]
        self.biases: list[Tensor | None] = [*zero_biases(net)]

    def add(self, layer: int, weight: Tensor, bias: Tensor) -> None:
        for totals, part in ((self.weights, weight), (self.biases, bias)):
            total = totals[layer]
            assert total is not None
            totals[layer] = total + part


class _Pass(NamedTuple):
    """Layer by layer what the way back needs: inputs h, pre-activations a, and their tangents."""

    h: list[Tensor]
    a: list[Tensor]
    h_rate: list[Tensor | None]
    a_rate: list[Tensor | None]


def network_gradients(
    z: Tensor,
    net: Network,
    seed: Callable[[Tensor, Tensor | None], Seed],
    totals: Totals | None = None,
    tangent: Tensor | None = None,
) -> Tensor:
    """One pass forward and one back: the derivative in z [n, d] of what ``seed`` derives.

    With a_l = W_l h_{l−1} + b_l + h_k, h_l = φ_l(a_l); tangents ȧ_l = W_l ḣ_{l−1} + ḣ_k,
    ḣ_l = φ_l'(a_l) ȧ_l.

    Args:
        seed: (h_L, ḣ_L) to their cotangents; ḣ_L is None without a ``tangent``.
        totals: takes the derivatives in weights and biases, where they are wanted.
        tangent: ḣ_0 [n, d]; not differentiated.
    """
    run = _forward(z, net, tangent)
    ends, activations = seed(run.h[-1], run.h_rate[-1]), parse(net.activations)
    into = {len(net.layers): ends}  # cotangents of h by its index, 0 being z
    for index in reversed(range(len(net.layers))):
        layer, weight, activation = net.layer(index), net.weights[index], activations[index]
        value, along = into.pop(index + 1)
        a, rate = run.a[index], run.a_rate[index]
        value = activation.multiply(a, run.h[index + 1], value)
        if rate is not None and along is not None:
            value = value + _curvature_term(activation, a, run.h[index + 1], rate * along)
            along = activation.multiply(a, run.h[index + 1], along)
        if totals is not None:
            totals.add(index, *_of_layer(run, net, index, Seed(value, along)))
        if layer.residual is not None:
            _add(into, layer.residual + 1, Seed(value, along))
        back = adjoint(layer, value, weight)
        _add(into, index, Seed(back, None if along is None else adjoint(layer, along, weight)))
    return into[0].value


def _add(into: dict[int, Seed], index: int, own: Seed) -> None:
    before = into.get(index)
    if before is not None:
        value, tangent = before.value + own.value, own.tangent
        if before.tangent is not None:
            tangent = before.tangent if tangent is None else before.tangent + tangent
        own = Seed(value, tangent)
    into[index] = own


def _forward(z: Tensor, net: Network, tangent: Tensor | None) -> _Pass:
    run = _Pass([z], [], [tangent], [])
    for index, activation in enumerate(parse(net.activations)):
        layer, weight = net.layer(index), net.weights[index]
        a, moving = apply(layer, run.h[-1], weight, net.biases[index]), run.h_rate[-1]
        rate = None if moving is None else apply(layer, moving, weight, None)
        if layer.residual is not None:
            a = a + run.h[layer.residual + 1]
            around = run.h_rate[layer.residual + 1]
            rate = rate if around is None or rate is None else rate + around
        h = activation.value(a)
        run.a.append(a)
        run.h.append(h)
        run.a_rate.append(rate)
        run.h_rate.append(None if rate is None else activation.multiply(a, h, rate))
    return run


def _of_layer(run: _Pass, net: Network, index: int, own: Seed) -> tuple[Tensor, Tensor]:
    """The derivatives in a layer's weight and bias; cotangents are the pre-activation's."""
    layer, like, moving = net.layer(index), net.weights[index], run.h_rate[index]
    weight = weight_gradient(layer, run.h[index], own.value, like)
    if own.tangent is not None and moving is not None:
        weight = weight + weight_gradient(layer, moving, own.tangent, like)
    return weight, bias_gradient(layer, own.value)


def _curvature_term(activation: Activation, a: Tensor, h: Tensor, along: Tensor) -> Tensor:
    """φ''(a)·along."""
    second = activation.second
    return torch.zeros_like(a) if second is None else second(a, h) * along


def potential_gradients(
    z: Tensor,
    x: Tensor,
    net: Network,
    likelihood: str,
    parameters: Sequence[Tensor],
    in_energy: Tensor | None,
    in_gradient: Tensor | None,
) -> list[Any]:
    """⟨in_energy, U⟩ + ⟨in_gradient, ∇U⟩ derived in z, x, weights and biases.

    ⟨v, ∇U⟩ = ⟨v, z⟩ − ⟨J v, s⟩ with s = d log p/d out: the tangent v goes forward, and both the
    output and its tangent J v are pulled back.
    """
    count, totals = chains(z, x), Totals(net)

    def run(rows: slice) -> tuple[Tensor, ...]:
        of = of_chains(rows, count)
        energy, v = (None if t is None else t[of] for t in (in_energy, in_gradient))
        end = _PotentialEnd(x[rows], likelihood, parameter_rows(parameters, rows), energy)
        into_z = network_gradients(z[of], net, end.seed, totals, v)
        if energy is not None:
            into_z = into_z + energy.unsqueeze(-1).to(z.dtype) * z[of]
        return into_z if v is None else into_z + v, end.into_x

    per_input = count * bytes_per_row(net, z)
    into_z, into_x = chunked(run, len(x), per_input)
    return [into_z, into_x, totals.weights, totals.biases]


class _PotentialEnd:
    """Where the pixels end the network: −⟨energy, log p⟩ − ⟨tangent, s⟩ and its derivatives."""

    def __init__(
        self, x: Tensor, likelihood: str, parameters: list[Tensor], energy: Tensor | None
    ) -> None:
        self.x, self.like = x, (likelihood, parameters)
        self.energy = None if energy is None else -energy
        self.into_x = torch.zeros_like(x)

    def seed(self, out: Tensor, tangent: Tensor | None) -> Seed:
        moved = None if tangent is None else -tangent
        value, self.into_x = pixel_gradients(out, self.x, *self.like, self.energy, moved)
        return Seed(value, None if tangent is None else -slope(out, self.x, *self.like))


def slope(out: Tensor, x: Tensor, likelihood: str, parameters: Sequence[Tensor]) -> Tensor:
    """d log p/d out [N, D]."""
    a = out.unflatten(0, (len(x), chains(out, x)))
    derivative = PIXEL_LIKELIHOODS[likelihood].derivative
    return derivative(a, x.unsqueeze(1), *beside_chains(parameters)).flatten(0, 1)


def bytes_per_row(net: Network, like: Tensor) -> int:
    """Bytes that one row's passes hold at once: values and tangents, and the pixels' terms."""
    widths = [net.in_features, *(layer.out_features for layer in net.parsed())]
    return like.element_size() * (4 * sum(widths) + TEMPORARIES * max(widths))
