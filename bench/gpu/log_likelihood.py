"""``log_likelihood`` on 0.4 GB of pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaefast import ops
from vaefast.bench.gpu.place import Place
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import log_likelihood as rivals
from vaefast.bench.runner import Benchmark

__all__ = ["cases"]

PIXELS = 100 << 20
CASES = (("bernoulli", 784), ("bernoulli", 3072), ("gaussian", 784), ("continuous_bernoulli", 784))


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """12 bytes an element: two reads and one write."""
    return [(f"{name} D={D}", partial(case, place, name, D)) for name, D in CASES]


def case(place: Place, likelihood: str, D: int) -> Benchmark:
    N = place.size(PIXELS // D, 4)
    x, out = place.pixels(N, D), 3 * place.normal(N, D, seed=1)
    compiled = place.compiled(rivals.eager)
    options = {"likelihood": likelihood, "likelihood_params": rivals.params(likelihood)}
    options["backend"] = place.backend("log_likelihood")
    found = {
        "vaefast": lambda: ops.log_likelihood(out, x, **options)[::-1],
        "autograd": lambda: rivals.by_autograd(out, x, likelihood),
    }
    if likelihood == "bernoulli":
        found["torch.compile"] = lambda: compiled(out, x)[1]
        found["eager"] = lambda: rivals.eager(out, x)[1]
        found |= jx.jitted(rivals.jax_gradient, out, x)
    return Benchmark(
        op="log_likelihood",
        case=f"{likelihood} N={N} D={D} float32 {place.device}",
        providers=found,
        bytes=12 * N * D,
        flop=rivals.FLOP[likelihood] * N * D,
        limit="copy",
        tolerance=1e-2,
    )
