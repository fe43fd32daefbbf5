"""Effective draws per second of ``hmc.sample``, warm-up counted, beside HMC and NUTS in JAX.

``python -m vaefast.bench.sampler [--decoder mlp|convolutional] [--rows B] [--seeds S ...]
[--settings NAME ...] [--model FILE] [--out bench/results/sampler.csv]``

Posteriors of Fashion-MNIST's first test images, 4 chains, 300 + 500 transitions. What a row is
worth is the smaller of the effective sizes of z and of (z − mean)², smallest over coordinates: a
path length that resonates looks excellent in z alone. The model is trained here, with a fixed seed,
where ``--model`` names no file yet. Compiling the peers is not counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.rows import append
from vaefast.bench.sampler_peers import PEERS
from vaefast.data import load
from vaefast.hmc.mixing import effective_draws, worst_effective_draws

__all__ = ["CHAINS", "SETTINGS", "Row", "main", "measured"]

CHAINS, WARMUP, STEPS = 4, 300, 500
DATA, IMAGES = "fashion-mnist", 10_000  # of its training images
SETTINGS: dict[str, dict[str, Any]] = {
    "vaefast, no options": {},
    "vaefast, unit mass, L=10": {"mass": "unit", "leapfrog": 10},
    'vaefast, mass="warmup"': {"mass": "warmup"},
    'vaefast, mass="dense"': {"mass": "dense"},
    'vaefast, mass="dense", ChEES, 8 chains': {"mass": "dense", "leapfrog": "chees", "chains": 8},
}
USUAL = tuple(SETTINGS)[:4]
MODELS: dict[str, tuple[Callable[[], vf.VAE], int]] = {  # and epochs
    "mlp": (lambda: vf.models.MLPVAE((1, 28, 28), (512, 512), 32, "tanh", seed=0), 5),
    "convolutional": (lambda: vf.models.ConvVAE(seed=0), 1),
}
NAMES = {"mlp": "32-512-512-784 tanh", "convolutional": "published convolutional, 64 latents"}


@dataclass(frozen=True)
class Row:
    """One line of the table: a way of sampling, and what its draws are worth."""

    op: str
    case: str
    provider: str
    seconds: float
    per_second: float  # effective draws, summed over the rows
    per_second_z: float  # of z alone
    median_row: float  # effective draws
    worst_row: float
    r_hat: float  # rank-normalised, split, the largest of any row
    leapfrogs: float  # of a transition, mean over the rows; NaN of peers


def measured(case: str, provider: str, run: Callable[[], tuple[Tensor, float]]) -> Row:
    """Time a call that gives draws [B, C, T, d] and its mean number of leapfrogs."""
    start = time.perf_counter()
    z, leapfrogs = run()
    seconds = time.perf_counter() - start
    (worst,) = worst_effective_draws([z])
    values = z.double()
    alone = effective_draws(values, values.flatten(1, 2).var(1, correction=0)).amin(1)
    return Row(
        op="sampler",
        case=case,
        provider=provider,
        seconds=seconds,
        per_second=float(worst.sum()) / seconds,
        per_second_z=float(alone.sum()) / seconds,
        median_row=float(worst.median()),
        worst_row=float(worst.min()),
        r_hat=_r_hat(z),
        leapfrogs=leapfrogs,
    )


def _r_hat(z: Tensor) -> float:
    import arviz

    draws = z.double().movedim(0, 2).numpy()  # [C, T, B, d]
    return float(arviz.rhat({"z": draws}, method="rank")["z"].max())


def ours(vae: vf.VAE, x: Tensor, seed: int, options: dict[str, Any]) -> tuple[Tensor, float]:
    given = {"chains": CHAINS, "warmup": WARMUP, "steps": STEPS, "seed": seed, **options}
    result = vf.hmc.sample(vae, x, **given)
    assert result.leapfrog is not None
    return result.z, float(result.leapfrog.double().mean())


def rows(given: argparse.Namespace) -> Iterator[Row]:
    """Of every seed all settings, then the peers."""
    vae, x = model(given.decoder, given.model), load(DATA).x_test[: given.rows]
    ours(vae, x[:1], 0, {})  # what a process does once
    for seed in given.seeds:
        case = (
            f"{NAMES[given.decoder]} B={given.rows} C={CHAINS} T={WARMUP}+{STEPS} "
            f"seed={seed} float32 cpu"
        )
        for name in given.settings:
            if name in SETTINGS:
                yield measured(case, name, partial(ours, vae, x, seed, SETTINGS[name]))
                continue
            few = x[: given.peer_rows]
            run = PEERS[name](vae, few, CHAINS, WARMUP, STEPS, seed)
            yield measured(case.replace(f"B={given.rows}", f"B={len(few)}"), name, run)


def model(decoder: str, path: Path | None) -> vf.VAE:
    """The trained model, from a file where there is one; a new one goes there."""
    if path is not None and path.exists():
        return vf.models.load(path).eval().requires_grad_(False)
    make, epochs = MODELS[decoder]
    vae = make()
    vf.training.fit(vae, load(DATA).x_train[:IMAGES], epochs=epochs, seed=0, progress=False)
    if path is not None:
        vf.models.save(vae.eval(), path)
    return vae.eval().requires_grad_(False)


def main(arguments: list[str] | None = None) -> int:
    names = [*SETTINGS, *PEERS]
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.sampler", description=__doc__)
    parser.add_argument("--decoder", choices=MODELS, default="mlp")
    parser.add_argument("--rows", type=int, default=64, metavar="B")
    parser.add_argument("--peer-rows", type=int, default=64, metavar="B", help="of the peers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S")
    parser.add_argument("--settings", nargs="+", default=USUAL, choices=names, metavar="NAME")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a CSV file to append to")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    for row in rows(given):
        print(line(row), flush=True)
        if given.out is not None:
            append(given.out, [row])
    return 0


def line(row: Row) -> str:
    return (
        f"{row.case}  {row.provider}: {row.seconds:.1f} s, {row.per_second:,.0f} effective draws/s "
        f"({row.per_second_z:,.0f} of z alone), median row {row.median_row:.0f}, worst "
        f"{row.worst_row:.0f}, R-hat {row.r_hat:.3f}, L {row.leapfrogs:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
