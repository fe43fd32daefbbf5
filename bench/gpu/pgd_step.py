"""``pgd_step`` on 1 GiB of pixels, far more than the L2 cache holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

import vaefast as vf
from vaefast.bench.cases import Images
from vaefast.bench.gpu.place import Place
from vaefast.bench.ops import _jax as jx
from vaefast.bench.ops import pgd_step as rivals
from vaefast.bench.runner import Benchmark, Provider

__all__ = ["cases"]

PIXELS = 1 << 28
WIDTHS = (3072, 784, 16384)


def cases(place: Place) -> list[tuple[str, Callable[[], Benchmark]]]:
    """16 bytes an element: three reads and one write."""
    return [
        (f"{norm} D={D}", partial(case, place, norm, D))
        for D in place.size(WIDTHS, (96,))
        for norm in ("linf", "l2")
    ]


def case(place: Place, norm: str, D: int) -> Benchmark:
    B = place.size(PIXELS, 1 << 9) // D
    x = place.pixels(B, D)
    x_adv = (x + 0.05 * place.normal(B, D, seed=1)).clamp_(0, 1)
    return Benchmark(
        op="pgd_step",
        case=f"{norm} B={B} D={D} float32 {place.device}",
        providers=providers(place, Images(x_adv, place.normal(B, D, seed=2), x), norm),
        bytes=16 * B * D,
        flop=(8 if norm == "linf" else 14) * B * D,
        limit="copy",
        at_least_of={"torchattacks' update": 4.0},
        percent_at_least=90.0,
    )


def providers(place: Place, data: Images, norm: str) -> dict[str, Provider]:
    x_adv, grad, x = data
    out = torch.empty_like(x)
    into = place.compiled(rivals.eager_into)
    options = {"alpha": rivals.ALPHA, "eps": rivals.EPS[norm], "norm": norm}
    options["backend"] = place.backend("pgd_step")
    return {
        "vaefast (out=)": lambda: vf.pgd_step(x_adv, grad, x, out=out, **options),
        "torchattacks' update": lambda: rivals.torchattacks_update(x_adv, grad, x, norm),
        "torch.compile into out": lambda: into(out, x_adv, grad, x, norm),
        **jx.jitted(rivals.jax_update(norm), x_adv, grad, x),
        "eager": lambda: rivals.eager(x_adv, grad, x, norm),
    }
