"""Whether a network computes what a module does: rows to try, and the tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

from vaefast.functional.network import evaluate, forward
from vaefast.models.values import ROWS
from vaefast.types import Network

__all__ = ["agrees", "difference", "drawn"]

ULPS = 64
SOFTPLUS = 4e-12  # torch's is the identity above 20, which is off by 2e-9 < 64·SOFTPLUS·20


def drawn(example: Tensor) -> Tensor:
    """ROWS + 1 rows that look like the example's, from a generator of their own."""
    generator = torch.Generator().manual_seed(0)
    shape = (ROWS + 1, *example.shape[1:])
    values = example.detach().double()
    spread = values.std().item() if values.numel() > 1 else 0.0
    if not 0.0 < spread < float("inf"):
        rows = torch.rand(shape, generator=generator, dtype=torch.float64)
    else:
        rows = torch.randn(shape, generator=generator, dtype=torch.float64)
        low, high = values.min().item(), values.max().item()
        rows = (values.mean().item() + spread * rows).clamp(low, high)
    return rows.to(example)


def agrees(net: Network, x: Tensor, out: Tensor) -> bool:
    """Whether the network gives ``out``, the module's result on x, in x's own precision.

    What passes here passes :func:`difference`, but for the network's own rounding; what does not
    may still pass there.
    """
    if not (x.dtype == out.dtype == net.weights[0].dtype) or x.element_size() < 4:
        return False
    got, out = evaluate(x.flatten(1), net), out.reshape(len(x), -1)
    if torch.equal(got, out):
        return True
    if got.shape != out.shape:
        return False
    allowed = ULPS // 2 * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(out, torch.inf)
    return bool(torch.dist(got, out, torch.inf) <= allowed)


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
