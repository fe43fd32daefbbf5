"""``net_jvp`` against torch.func, products by hand, their compiled forms, and JAX."""

from __future__ import annotations

from vaefast import ops
from vaefast.bench.ops import _jacobian as jac
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import _nets as nets
from vaefast.bench.ops._probes import PROBES, benchmark, cases_of, probes
from vaefast.bench.place import Place
from vaefast.bench.runner import Benchmark, Case

__all__ = ["cases"]


def cases(place: Place) -> list[Case]:
    """Norms of 8 products with an encoder's Jacobian."""
    return cases_of(case, place)


def case(place: Place, shape: nets.Shape, whose: str, precision: str) -> Benchmark:
    """Each provider returns the squared norms [B, K] and the output."""
    given = probes(place, shape, whose, precision, of_inputs=True)
    x, v, net, peer = given[3:]
    B, tangents = len(x), v[..., 0].numel()
    options = {"precision": precision, "backend": place.backend("net_jvp")}
    by_hand, func = place.compiled(jac.jvp_by_hand), place.compiled(jac.jvp_by_func)

    def products() -> list[nets.Product]:
        beyond = [nets.product(B * PROBES, weight) for weight in net.weights[1:]]
        first = nets.product(tangents, net.weights[0])
        return [*nets.forward_products(net, B), first, *beyond]

    found = {
        "vaefast": lambda: ops.net_jvp(x, v, net, **options)[::-1],
        **nets.ceiling(place, products),
        "torch.compile by hand": lambda: by_hand(x, v, peer),
        "torch.compile of torch.func": lambda: func(x, v, peer),
        **jx.jitted(jac.jvp_by_jax, x, v, *jx.network(peer)),
        "by hand": lambda: jac.jvp_by_hand(x, v, peer),
        "torch.func": lambda: jac.jvp_by_func(x, v, peer),
    }
    first = 2 * tangents * net.weights[0].numel()
    beyond = 2 * B * PROBES * sum(weight.numel() for weight in net.weights[1:])
    return benchmark("net_jvp", place, given, found, nets.flop(net, B) + first + beyond)
