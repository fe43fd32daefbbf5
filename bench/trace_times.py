"""Time of the exact trace beside its estimates: ``python -m vaefast.bench.trace_times``.

For where ``method="auto"`` of :func:`vaefast.geometry.pullback_trace` leaves the exact trace for an
estimate: the products of a fused Gram matrix are cheaper than those with probes, and an estimate
orthogonalises besides.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.rows import append
from vaefast.bench.trace_estimators import probes_within

__all__ = ["Row", "main", "measured"]

LATENTS, PRODUCTS = (16, 32, 64, 128, 256), 26  # and as many as 16 probes of Hutch++ take
METHODS = ("hutchinson", "hutch++", "xtrace")
OUT = Path("bench/results/trace_times.csv")


@dataclass(frozen=True)
class Row:
    """``case`` is the map and its model; median ms an input, of calls on all inputs in turns."""

    case: str
    latents: int
    inputs: int
    method: str
    products: int
    ms: float


def models(latents: int) -> Iterator[tuple[str, vf.VAE, Tensor]]:
    """One that the ops take as rows of features, one as pixels, with inputs."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.rand(64, 1, 28, 28, generator=generator, dtype=torch.float32, device="cpu")
    yield "MLP 784-512-512", vf.models.MLPVAE((1, 28, 28), (512, 512), latents).eval(), x
    yield "published convolutional", vf.models.ConvVAE(latent=latents).eval(), x[:8]


def measured(latents: int, rounds: int) -> Iterator[Row]:
    """The exact trace of μ and of the reconstruction, and each estimate within ``PRODUCTS``."""
    for name, vae, x in models(latents):
        for of in ("encoder", "reconstruction"):
            size = latents if of == "encoder" else x[0].numel()
            ways = {"exact": 1, **{m: probes_within(m, PRODUCTS, size) for m in METHODS}}
            trace = partial(vf.geometry.pullback_trace, vae, x, of=of)
            calls = {way: partial(trace, method=way, probes=k) for way, k in ways.items()}
            products = {way: call().products for way, call in calls.items()}
            turns = [{way: seconds(call) for way, call in calls.items()} for _ in range(rounds)]
            for way in ways:
                ms = 1e3 * statistics.median(turn[way] for turn in turns) / len(x)
                yield Row(f"{of}, {name}", latents, len(x), way, products[way], round(ms, 5))


def seconds(call: partial[object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(arguments: list[str]) -> int:
    """Append to the table, and print it."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.trace_times")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--latents", type=int, nargs="+", default=LATENTS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for latents in given.latents:
        rows = list(measured(latents, given.rounds))
        append(given.out, rows)
        for row in rows:
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
