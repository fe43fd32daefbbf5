"""Whether a network computes what a module does: rows to try, and the tolerance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaefast.functional.network import evaluate, forward
from vaefast.models.values import ROWS
from vaefast.types import Network

__all__ = ["agree", "difference", "drawn"]

ULPS = 64
SOFTPLUS = 4e-12  # torch's is the identity above 20, which is off by 2e-9 < 64·SOFTPLUS·20


def drawn(example: Tensor) -> Tensor:
    """ROWS + 1 rows that look like the example's, from a generator of their own."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    how: Any = {"generator": generator, "dtype": torch.float64, "device": "cpu"}
    shape = (ROWS + 1, *example.shape[1:])
    values = example.detach().double()
    spread = values.std().item() if values.numel() > 1 else 0.0
    if not 0.0 < spread < float("inf"):
        rows = torch.rand(shape, **how)
    else:
        rows = torch.randn(shape, **how)
        low, high = values.min().item(), values.max().item()
        rows = (values.mean().item() + spread * rows).clamp(low, high)
    return rows.to(example)


def agree(pairs: list[tuple[Network, Tensor]], x: Tensor) -> bool:
    """Whether each network gives the module's result on x that stands beside it.

    All in x's own precision. What passes here passes :func:`difference`, but for the network's own
    rounding; what does not may still pass there.
    """
    dtypes = {
        x.dtype,
        *(out.dtype for _, out in pairs),
        *(net.weights[0].dtype for net, _ in pairs),
    }
    if len(dtypes) > 1 or x.element_size() < 4:
        return False
    for got, (_, out) in zip(_outputs([net for net, _ in pairs], x.flatten(1)), pairs):
        out = out.reshape(len(x), -1)
        if got.shape != out.shape or not (torch.equal(got, out) or _is_close(got, out)):
            return False
    return True


def _is_close(got: Tensor, out: Tensor) -> bool:
    allowed = ULPS // 2 * torch.finfo(out.dtype).eps * torch.linalg.vector_norm(out, torch.inf)
    return bool(torch.dist(got, out, torch.inf) <= allowed)


def _outputs(nets: list[Network], x: Tensor) -> list[Tensor]:
    """The networks' outputs; layers before the last that all have in common run once."""
    first, *others = nets
    if not others or not all(_has_trunk_of(first, net) for net in others):
        return [evaluate(x, net) for net in nets]
    h = evaluate(x, _some(first, slice(None, -1)))
    return [evaluate(h, _some(net, slice(-1, None))) for net in nets]


def _has_trunk_of(first: Network, net: Network) -> bool:
    """Whether they differ in the last layer only, and nothing goes around a layer."""
    if len(net.layers) < 2 or net.layers[:-1] != first.layers[:-1]:
        return False
    pairs = zip([*first.weights[:-1], *first.biases[:-1]], [*net.weights[:-1], *net.biases[:-1]])
    residual = any(" +" in layer for layer in (*first.layers, *net.layers))
    return not residual and all(own is other for own, other in pairs)


def _some(net: Network, layers: slice) -> Network:
    return Network(net.weights[layers], net.biases[layers], net.layers[layers])


def difference(net: Network, x: Tensor, out: Tensor) -> str:
    """Why the network does not give ``out``, the module's result on x, or nothing if it does.

    |network in float64 − module in its dtype| ≤ 64 ulp of the largest intermediate magnitude.
    """
    tape = forward(x.double().flatten(1), _in_float64(net))
    expected, got = tape.out, out.double().reshape(len(x), -1)
    if expected.shape != got.shape:
        return f"returns {got.shape[1]} values per row, its trace {expected.shape[1]}"
    eps = max(torch.finfo(t.dtype).eps for t in (x, out, *net.weights))
    if any(" softplus" in layer for layer in net.layers):
        eps = max(eps, SOFTPLUS)
    allowed = ULPS * eps * max(map(_magnitude, (x, *tape.pre, *tape.post)))
    same = (expected == got) | (expected.isnan() & got.isnan())
    error = torch.where(same, torch.zeros_like(got), (expected - got).abs()).max().item()
    if error <= allowed:
        return ""
    return (
        f"differs from its trace by {error:.2g} on random rows, {allowed:.2g} is allowed; it "
        "depends on values or on other rows in a way that one run does not show"
    )


def _in_float64(net: Network) -> Network:
    biases = [None if b is None else b.double() for b in net.biases]
    return Network([w.double() for w in net.weights], biases, net.layers)


def _magnitude(t: Tensor) -> float:
    finite = torch.where(t.isfinite(), t, torch.zeros_like(t))
    return finite.abs().max().item() if t.numel() else 0.0
