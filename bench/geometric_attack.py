"""The geometric attack beside random restarts of gradient ascent, by what each costs.

``python -m vaefast.bench.geometric_attack MODEL.safetensors ... --data fashion-mnist --out FILE``
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast import attacks, data
from vaefast.attacks.displacement import Displacement
from vaefast.attacks.engine import maximise
from vaefast.attacks.geometric import ATTACKED
from vaefast.attacks.options import make_search, prepare_images
from vaefast.attacks.presets import DEFAULTS

__all__ = ["Row", "main", "measured"]

RADII, REFINE = (0.25, 1.0, 3.0), (0, 5, 20)
PGD = ((1, 20), (1, 50), (10, 50))  # restarts and steps; all shares are of the last
OUT = Path("bench/results/geometric_attack.csv")


class Row(NamedTuple):
    """One attack on all inputs, in the share of the strongest gradient ascent's objective.

    ``gradients`` counts products with J or Jᵀ, and evaluations without one as a third.
    """

    model: str
    attack: str
    eps: float
    method: str
    gradients: float
    median: float
    low: float
    high: float


def measured(
    model: str,
    vae: vf.VAE,
    x: Tensor,
    *,
    eps: float,
    refine: Sequence[int] = REFINE,
    pgd: Sequence[tuple[int, int]] = PGD,
) -> Iterator[Row]:
    """ℓ2 attacks on every map: geometric with and without steps after it, and gradient ascent."""
    for of in ATTACKED:
        ascents = {p: ascended(vae, x, of, eps, *p) for p in pgd}
        strongest = ascents[pgd[-1]]
        for (restarts, steps), value in ascents.items():
            method = f"PGD {restarts}x{steps}"
            cost = restarts * (steps + 1 / 3)
            yield _row(model, of, eps, method, cost, value, strongest)
        for steps in refine:
            value = attacks.geometric(vae, x, eps=eps, of=of, refine=steps).objective
            method = f"geometric + {steps}" if steps else "geometric"
            yield _row(model, of, eps, method, cost_of(vae, of) + steps + 1, value, strongest)


def ascended(vae: vf.VAE, x: Tensor, of: str, eps: float, restarts: int, steps: int) -> Tensor:
    """The objective [B] that the search of the other attacks reaches from random starts."""
    prepared, x = prepare_images(vae, x, None, None)
    given = {"eps": eps, "norm": "l2", "steps": steps, "restarts": restarts, "alpha": None}
    options = {**given, "low": 0.0, "high": 1.0, "keep": "best"}
    search = make_search(x, DEFAULTS["max_damage"], options, seed=0)
    with torch.no_grad():
        return maximise(Displacement(prepared, of), prepared, x, search).objective


def cost_of(vae: vf.VAE, of: str) -> int:
    """Products of an exact spectrum and of its vector."""
    d = int(vae.latent_dim or 0)
    return (d if of == "encoder" else 2 * d) + 1


def _row(
    model: str, of: str, eps: float, method: str, gradients: float, value: Tensor, best: Tensor
) -> Row:
    share = (value / best).quantile(value.new_tensor([0.5, 0.05, 0.95]))
    return Row(model, of, eps, method, gradients, *share.tolist())


def main(arguments: list[str]) -> int:
    """Append to the table, and print it."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.geometric_attack")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--eps", type=float, nargs="+", default=RADII)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    x = data.load(given.data).x_test[: given.inputs]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*Row._fields, "data", "inputs"])
        for path in given.models:
            vae = vf.models.load(path)
            name = f"{type(vae).__name__} d={vae.latent_dim}"
            for eps in given.eps:
                for row in measured(name, vae, x, eps=eps):
                    numbers = [f"{number:.3f}" for number in row[4:]]
                    writer.writerow([*row[:4], *numbers, given.data, len(x)])
                    print(*row[:4], *numbers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
