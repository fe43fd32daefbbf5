"""Our certificates beside two outside methods, on the same models, inputs and r.

    python -m vaefast.bench.certificates_outside MODEL.safetensors ... --out FILE
    python -m vaefast.bench.certificates_outside --table FILE

r of an input is that of ``vaefast.bench.certificates``; the curve takes multiples of it. The noise
σ of smoothing is chosen per model and multiple on images that are not measured. Outside methods
run in float64.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import vaefast as vf
from vaefast import certify, data
from vaefast.bench.certificates import ALPHA, FEW, REACH
from vaefast.bench.outside_methods import METHODS, NAN, Found, Sizes, Subject, found
from vaefast.bench.rows import append

__all__ = ["Row", "main", "measured", "table"]

OUT = Path("bench/results/certificates_outside.csv")


@dataclass(frozen=True)
class Row:
    """One method on one model at one multiple of r; medians over the inputs.

    Args:
        case: the model's name.
        method: see ``docs/certificates.md`` for what each says.
        times: of the inputs' own r.
        inputs: how many.
        r: ℓ2 in pixel scale, with the multiple.
        margin: the certified radius, ℓ2 in pixel scale.
        of_whitened: over the whitened margin, NaN in the curve, as the next.
        of_attack: over the radius at which an attack breaks the event of the model without noise.
        none: inputs without a certificate.
        alpha: error probability per input; 0 where nothing is drawn.
        sigma: of the noise that the model's inputs get, NaN where they get none.
        error: ‖· − x‖₂ of what the statement is about: the median draw, or the smoothed centre.
        moved: how far noise moves the centre from g(μ(x)), over r.
        starts: the least multiple of r at which the majority at x alone is certified; NaN where it
            was not measured.
        encoder, decoder: passes per input.
        bounds: evaluations of a bound of a network over a set per input, NaN where not counted.
        seconds: per input, on one thread.
    """

    case: str
    method: str
    times: float
    inputs: int
    r: float
    margin: float
    of_whitened: float
    of_attack: float
    none: int
    alpha: float
    sigma: float
    error: float
    moved: float
    starts: float
    encoder: float
    decoder: float
    bounds: float
    seconds: float


class Compared:
    """One model's methods, and what their radii are compared with."""

    def __init__(self, case: str, vae: vf.VAE, x: Tensor, sizes: Sizes) -> None:
        self.case, self.subject = case, Subject(vae, x, sizes)
        x, r = self.subject.x, self.subject.r
        whitened = certify.margin(vae, x, r, method="whitened", samples=FEW, alpha=ALPHA).margin
        free = {"low": -torch.inf, "high": torch.inf}
        attack = certify.empirical_margin(vae, x, r, r_max=REACH * whitened, **free)
        self.whitened = whitened
        self.attacked = attack.margin.masked_fill(~attack.found, torch.nan)

    def row(self, one: Found) -> Row:
        n, margin = len(one.margin), one.margin.double()
        own = one.times == 1.0  # an attack's radius is that of r itself
        return Row(
            case=self.case,
            method=one.method,
            times=one.times,
            inputs=n,
            r=one.times * float(self.subject.r[:n].median()),
            margin=float(margin.median()),
            of_whitened=_median(margin / self.whitened[:n]) if own else NAN,
            of_attack=_median(margin / self.attacked[:n]) if own else NAN,
            none=int((margin <= 0).sum()),
            alpha=one.alpha,
            sigma=one.sigma,
            error=float(one.error.nanmedian()),
            moved=_median(one.moved),
            starts=_median(one.starts),
            encoder=one.encoder,
            decoder=one.decoder,
            bounds=one.bounds,
            seconds=one.seconds,
        )


def _median(values: Tensor | None) -> float:
    """Of those that are numbers."""
    return NAN if values is None else float(values.nanmedian())


def measured(
    case: str, vae: vf.VAE, x: Tensor, sizes: Sizes, only: Sequence[str] = ()
) -> Iterator[Row]:
    """Rows of all methods or these alone: at r first, then the curve."""
    compared = Compared(case, vae, x, sizes)
    for one in found(compared.subject, only):
        yield compared.row(one)


def _number(text: str, digits: int) -> str:
    return "" if text == "nan" else f"{float(text):.{digits}f}"


def _passes(row: dict[str, str]) -> str:
    parts = [f"{float(row['encoder']):,.0f} + {float(row['decoder']):,.0f}"]
    if row["bounds"] not in ("nan", "0.0"):
        parts.append(f"{float(row['bounds']):.0f} bounds")
    return ", ".join(parts)


COLUMNS: dict[str, Callable[[dict[str, str]], str]] = {
    "model": lambda row: row["case"],
    "method": lambda row: row["method"],
    "radius": lambda row: _number(row["margin"], 3),
    "over (M)": lambda row: _number(row["of_whitened"], 2),
    "over attack": lambda row: _number(row["of_attack"], 2),
    "none": lambda row: f"{row['none']} of {row['inputs']}",
    "confidence": lambda row: (
        "certain" if row["alpha"] == "0.0" else f"{1 - float(row['alpha']):g}"
    ),
    "σ": lambda row: _number(row["sigma"], 2),
    "error": lambda row: _number(row["error"], 2),
    "starts at": lambda row: _number(row["starts"], 1),
    "passes": _passes,
    "s an input": lambda row: f"{float(row['seconds']):.2g}",
}


def table(path: Path) -> str:
    """Markdown of the newest rows: the methods at r, then the radii at multiples of it."""
    with path.open(newline="") as file:
        newest = {(r["case"], r["method"], float(r["times"])): r for r in csv.DictReader(file)}
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|---|{(len(COLUMNS) - 2) * '---:|'}"]
    own = [row for (_, _, times), row in newest.items() if times == 1.0]
    lines += [f"| {' | '.join(of(row) for of in COLUMNS.values())} |" for row in own]
    times = sorted({t for _, _, t in newest})
    heads = [f"{t:g} r" for t in times]
    lines += ["", f"| model | method | {' | '.join(heads)} |", f"|---|---|{len(times) * '---:|'}"]
    for row in own:
        at = (newest.get((row["case"], row["method"], t)) for t in times)
        cells = ["" if one is None else _number(one["margin"], 3) for one in at]
        lines.append(f"| {row['case']} | {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure or print."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.certificates_outside")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of a CSV file")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=(), metavar="METHOD")
    parser.add_argument("--inputs", type=int, default=Sizes().inputs)
    parser.add_argument("--curve-inputs", type=int, default=Sizes().curve_inputs)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(table(given.table))
        return 0
    x = data.load(given.data).x_test
    sizes = Sizes(given.inputs, curve_inputs=min(given.inputs, given.curve_inputs))
    for path in given.models:
        for row in measured(path.stem, vf.models.load(path), x, sizes, given.only):
            append(given.out, [row])
            print(f"{row.case} {row.method} {row.times:g} r: {row.margin:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
