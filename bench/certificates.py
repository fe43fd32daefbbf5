"""How much of a margin is certified, by method and model: what docs/certificates.md shows.

    python -m vaefast.bench.certificates --train FOLDER [--only NAME ...]
    python -m vaefast.bench.certificates MODEL.safetensors ... --data fashion-mnist --out FILE
    python -m vaefast.bench.certificates --table FILE

r of an input is the 99 % order statistic of 2,000 distances of its own, of another seed than the
certificates' draws. The first-order margin "(M)" and the attack take the event and r of the
certificates; the attack is not held to the box [0, 1], as no certificate makes use of it.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast import certify, data
from vaefast.bench import certificates_models as models
from vaefast.bench.rows import append
from vaefast.certify import MarginResult

__all__ = ["Inputs", "Row", "main", "measured", "own_radius", "table"]

DRAWN, SHARE, SEED = 2_000, 0.99, 7_001
FEW, MANY = 2_000, 50_000
ALPHA = 1e-3
REACH = 4.0  # of (M): where the attack gives up
GREY_LEVEL = 28 / 255  # one, in ℓ∞ over 28x28, as an ℓ2 radius
OUT = Path("bench/results/certificates.csv")


class Inputs(NamedTuple):
    """How many of the test images a method gets: the first so many."""

    cheap: int = 256
    attacked: int = 32
    anchored: int = 16


@dataclass(frozen=True)
class Row:
    """One method on one model; medians over the inputs.

    Args:
        case: the model's name.
        method: with its form.
        inputs: how many; those of ``of_attack`` are fewer where fewer were attacked.
        samples: draws behind p_lower, median.
        alpha: per input.
        r: ℓ2 in pixel scale.
        margin: ℓ2 in pixel scale.
        of_whitened: over the whitened margin at S = 2,000.
        of_attack: over the smallest radius at which an attack was found that breaks the event.
        abstained: inputs without a certificate.
        above_attack: inputs whose margin is above the attack's, which is none in a certificate.
        seconds: per input, on one thread.
    """

    case: str
    method: str
    inputs: int
    samples: float
    alpha: float
    r: float
    margin: float
    of_whitened: float
    of_attack: float
    abstained: int
    above_attack: int
    seconds: float


def own_radius(vae: vf.VAE, x: Tensor, samples: int = DRAWN, share: float = SHARE) -> Tensor:
    """The order statistic of ‖g(μ + σ⊙η) − g(μ)‖₂ at each input, [B]."""
    generator = torch.Generator(device="cpu").manual_seed(SEED)
    found = []
    with torch.no_grad():
        for mean, std in zip(*vae.posterior(x), strict=True):
            noise = torch.randn(
                samples, len(mean), generator=generator, dtype=mean.dtype, device="cpu"
            )
            apart = (vae.g(mean + std * noise) - vae.g(mean[None])).flatten(1).norm(dim=1)
            found.append(apart.kthvalue(round(share * samples)).values)
    return torch.stack(found)


def measured(case: str, vae: vf.VAE, x: Tensor, inputs: Inputs) -> Iterator[Row]:
    """A row for each method that takes the model."""
    r = own_radius(vae, x)
    shown = _Shown(case, vae, x, r)
    shown.attack(inputs.attacked)
    few = {"samples": FEW, "alpha": ALPHA}
    yield shown.by("whitened", inputs.cheap, method="whitened", **few)
    yield shown.by("local, affine", inputs.cheap, method="local", form="affine", **few)
    yield shown.by("local", inputs.cheap, method="local", **few)
    yield shown.by("local, auto", inputs.attacked, method="local", alpha=ALPHA)
    many = {"samples": MANY, "alpha": 0.5 * ALPHA}
    yield shown.by("local", inputs.attacked, method="local", **many)
    local = shown.last
    if not inputs.anchored:
        return
    try:
        yield shown.by("anchors", inputs.anchored, method="anchors", **many)
    except ValueError as error:
        print(f"{case}: {error}", flush=True)
        return
    # what method="best" does, from the parts that are there
    n = inputs.anchored
    yield shown.row("best", certify.best(_first(local, n), shown.last), float("nan"))


class _Shown:
    """One model's inputs, and what all methods are compared with."""

    def __init__(self, case: str, vae: vf.VAE, x: Tensor, r: Tensor) -> None:
        self.case, self.vae, self.x, self.r = case, vae, x, r
        given = {"samples": FEW, "alpha": ALPHA}
        self.whitened = certify.margin(vae, x, r, method="whitened", **given).margin
        self.attacked = torch.full_like(self.whitened, torch.nan)
        self.last: MarginResult

    def attack(self, n: int) -> None:
        start = time.monotonic()
        options = {"r_max": REACH * self.whitened[:n], "low": -torch.inf, "high": torch.inf}
        found = certify.empirical_margin(self.vae, self.x[:n], self.r[:n], **options)
        self.attacked[:n] = found.margin
        seconds = (time.monotonic() - start) / n
        print(
            f"{self.case} attack: {int(found.found.sum())} of {n} broken, {seconds:.2f} s each",
            flush=True,
        )

    def by(self, name: str, n: int, **options: Any) -> Row:
        start = time.monotonic()
        self.last = certify.margin(self.vae, self.x[:n], self.r[:n], **options)
        return self.row(name, self.last, (time.monotonic() - start) / len(self.last.margin))

    def row(self, name: str, found: MarginResult, seconds: float) -> Row:
        margin, n = found.margin, len(found.margin)
        broken = self.attacked[:n].isfinite()
        share = (margin / self.attacked[:n])[broken]
        return Row(
            self.case,
            name,
            n,
            float(found.samples.double().median()) if found.samples is not None else 0.0,
            found.alpha or 0.0,
            float(self.r[:n].median()),
            float(margin.median()),
            float((margin / self.whitened[:n]).nanmedian()),
            float(share.median()) if len(share) else float("nan"),
            int(found.abstain.sum()),
            int((share > 1.0).sum()),
            seconds,
        )


def _first(found: MarginResult, n: int) -> MarginResult:
    """The first rows alone."""
    samples = None if found.samples is None else found.samples[:n]
    return replace(
        found,
        margin=found.margin[:n],
        p_lower=found.p_lower[:n],
        abstain=found.abstain[:n],
        reasons=found.reasons[:n],
        samples=samples,
    )


COLUMNS: dict[str, Callable[[dict[str, str]], str]] = {
    "model": lambda row: row["case"],
    "method": lambda row: row["method"],
    "inputs": lambda row: row["inputs"],
    "S": lambda row: f"{float(row['samples']):,.0f}",
    "radius": lambda row: f"{float(row['margin']):.3f}",
    "over (M)": lambda row: f"{float(row['of_whitened']):.2f}",
    "over attack": lambda row: f"{float(row['of_attack']):.2f}",
    "none": lambda row: row["abstained"],
    "s an input": lambda row: "" if row["seconds"] == "nan" else f"{float(row['seconds']):.2g}",
}


def table(path: Path) -> str:
    """Markdown of the newest row of each model, method and number of draws."""
    with path.open(newline="") as file:
        newest = {(r["case"], r["method"], r["alpha"]): r for r in csv.DictReader(file)}
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|" + (len(COLUMNS) - 2) * "---:|"]
    return "\n".join(
        [*lines, *(f"| {' | '.join(of(r) for of in COLUMNS.values())} |" for r in newest.values())]
    )


def main(arguments: list[str] | None = None) -> int:
    """Train, measure or print."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.certificates")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="train the models into it")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a CSV file")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--inputs", type=int, default=Inputs().cheap)
    parser.add_argument("--attacked", type=int, default=Inputs().attacked)
    parser.add_argument("--anchored", type=int, default=Inputs().anchored)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(table(given.table))
        return 0
    known = {*models.ENCODERS, *models.IMAGES, *models.OBJECTIVES}
    if unknown := sorted(set(given.only) - known):
        parser.error(f"--only takes {', '.join(sorted(known))}, got {', '.join(unknown)}")
    dataset = data.load(given.data)
    if given.train is not None:
        models.train(given.train, dataset.x_train, given.only)
    inputs = Inputs(given.inputs, given.attacked, given.anchored)
    for path in given.models:
        for row in measured(
            path.stem, vf.models.load(path), dataset.x_test[: inputs.cheap], inputs
        ):
            append(given.out, [row])
            print(f"{row.case} {row.method}: {row.of_whitened:.3f} {row.of_attack:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
