"""``net_vjp`` against torch.func, products by hand, their compiled forms, and JAX."""

from __future__ import annotations

from torch import Tensor

from vaefast import ops
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops._probes import PROBES, benchmark, cases_of, probes
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case
from vaefast.types import Network

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """Norms of 8 products with an encoder's transposed Jacobian."""
    return cases_of(case, place)


def case(place: Place, shape: nets.Shape, whose: str, precision: str) -> Benchmark:
    """Each provider returns the squared norms [B, K] and the output."""
    given = probes(place, shape, whose, precision, of_inputs=False)
    x, u, net, peer = given[3:]
    options = {"precision": precision, "backend": place.backend("net_vjp")}
    by_hand, func = place.compiled(jac.vjp_by_hand), place.compiled(jac.vjp_by_func)
    found = {
        "vaefast": lambda: ops.net_vjp(x, u, net, **options)[::-1],
        **nets.ceiling(place, lambda: products(u, net, len(x))),
        "torch.compile by hand, W1 W1ᵀ": lambda: by_hand(x, u, peer, "G"),
        "torch.compile by hand": lambda: by_hand(x, u, peer, "W1"),
        "torch.compile of torch.func": lambda: func(x, u, peer),
        **jx.jitted(jac.vjp_by_jax, x, u, *jx.network(peer)),
        "by hand, W1 W1ᵀ": lambda: jac.vjp_by_hand(x, u, peer, "G"),
        "by hand": lambda: jac.vjp_by_hand(x, u, peer, "W1"),
        "torch.func": lambda: jac.vjp_by_func(x, u, peer),
    }
    rows = len(x) * PROBES
    flop = nets.flop(net, len(x)) + nets.flop(net, rows) - spared(net, rows)
    return benchmark("net_vjp", place, given, found, flop)


def spared(net: Network, rows: int) -> int:
    """FLOP that W₁W₁ᵀ, formed once, saves in the last product of the norms; 0 where none."""
    H, D = net.weights[0].shape
    return max(0, 2 * rows * H * (D - H) - 2 * H * H * D)


def products(u: Tensor, net: Network, B: int) -> list[nets.Product]:
    first, *others = net.weights
    rows = B * PROBES
    last = nets.product(u[..., 0].numel(), others[-1], back=True)
    inner = [nets.product(rows, weight, back=True) for weight in others[-2::-1]]
    if not spared(net, rows):
        return [*nets.forward_products(net, B), last, *inner, nets.product(rows, first, back=True)]
    gram = nets.product(len(first), first)  # W₁ times W₁ᵀ
    return [*nets.forward_products(net, B), last, *inner, gram, nets.product(rows, gram[2])]
