"""``net_vjp``: norms of 8 products with an encoder's transposed Jacobian at 16384 images."""

from __future__ import annotations

from collections.abc import Callable

from vaefast import ops
from vaefast.bench.gpu._probes import PROBES, benchmark, cases_of, probes
from vaefast.bench.gpu.place import Place
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.runner import Benchmark
from vaefast.types import Network

__all__ = ["cases"]


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    return cases_of(case, place)


def case(place: Place, whose: str, precision: str) -> Benchmark:
    given = probes(place, whose, precision, of_inputs=False)
    x, u, net, peer = given
    options = {"precision": precision, "backend": place.backend("net_vjp")}
    by_hand, func = place.compiled(jac.vjp_by_hand), place.compiled(jac.vjp_by_func)
    found = {
        "vaefast": lambda: ops.net_vjp(x, u, net, **options)[::-1],
        "torch.compile by hand, W1 W1ᵀ": lambda: by_hand(x, u, peer, "G"),
        "torch.compile by hand": lambda: by_hand(x, u, peer, "W1"),
        "torch.compile of torch.func": lambda: func(x, u, peer),
        **jx.jitted(jac.vjp_by_jax, x, u, *jx.network(peer)),
        "by hand, W1 W1ᵀ": lambda: jac.vjp_by_hand(x, u, peer, "G"),
        "torch.func": lambda: jac.vjp_by_func(x, u, peer),
    }
    rows = len(x) * PROBES
    flop = nets.flop(net, len(x)) + nets.flop(net, rows) - spared(net, rows)
    return benchmark("net_vjp", place, whose, precision, given, found, flop)


def spared(net: Network, rows: int) -> int:
    """FLOP that W₁W₁ᵀ, formed once, saves in the last product of the norms; 0 where none."""
    H, D = net.weights[0].shape
    return max(0, 2 * rows * H * (D - H) - 2 * H * H * D)
