"""What training does to a certificate: small models of several seeds, by objective.

    python -m vaefast.bench.certificates_levers FOLDER --seeds 3 --out FILE [--only NAME ...]
    python -m vaefast.bench.certificates_levers --table FILE

Models are trained into FOLDER where they are not there yet. "lipschitz" chooses its constants for a
radius of two grey levels at r = 4, and its certificate is ``method="lipschitz"``; the others have
``method="local"``.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import vaefast as vf
from vaefast import certify, data, training
from vaefast.bench import certificates_models as models
from vaefast.bench.certificates import ALPHA, FEW, GREY_LEVEL, MANY, REACH, own_radius
from vaefast.bench.rows import append

__all__ = ["Row", "main", "measured", "table"]

INPUTS, HELD_OUT = 16, 200  # images that are certified, and that reconstructions are judged by
DRAWS = 20_000  # behind r at one grey level
PROMISE = {"certified_radius": 2 * GREY_LEVEL, "r": 4.0}
HALVINGS = 10
NAN = float("nan")
OUT = Path("bench/results/certificates_levers.csv")


@dataclass(frozen=True)
class Row:
    """One model; medians over the images.

    Args:
        case: the objective.
        seed: of the initial weights and of training.
        log_p: log p(x|z) of a draw, nats, the mean over images; NaN where the likelihood is not the
            others'.
        std: σ, over images and latents.
        error: ‖g(μ(x)) − x‖₂.
        r: the 99 % order statistic, ℓ2 in pixel scale; of "lipschitz" that of the choice.
        whitened: the margin (M) at r.
        few, many: certified at r, at S = 2,000 and S = 50,000; of "lipschitz" both are the same.
        of_attack: ``many`` over the radius at which an attack breaks the event.
        none: images without a certificate at S = 50,000.
        r_grey: the least r that is certified at one grey level in ℓ∞.
    """

    case: str
    seed: int
    log_p: float
    std: float
    error: float
    r: float
    whitened: float
    few: float
    many: float
    of_attack: float
    none: int
    r_grey: float


def measured(case: str, seed: int, vae: vf.VAE, x: Tensor) -> Row:
    """Train's effect on reconstructions and certificates of x."""
    held, x = x[:HELD_OUT], x[:INPUTS]
    r = x.new_full((len(x),), PROMISE["r"]) if case == "lipschitz" else own_radius(vae, x)
    whitened = certify.margin(vae, x, r, method="whitened", samples=FEW, alpha=ALPHA).margin
    free = {"low": -torch.inf, "high": torch.inf}
    attack = certify.empirical_margin(vae, x, r, r_max=REACH * whitened, **free)
    few, many = (_certified(case, vae, x, r, samples) for samples in (FEW, MANY))
    with torch.no_grad():
        std = vae.posterior(held)[1]
        error = (vae.reconstruct(held) - held).flatten(1).norm(dim=1)
    own = vae.likelihood == "bernoulli"
    return Row(
        case=case,
        seed=seed,
        log_p=float(training.evaluate_elbo(vae, held).reconstruction.mean()) if own else NAN,
        std=float(std.median()),
        error=float(error.median()),
        r=float(r.median()),
        whitened=float(whitened.median()),
        few=float(few.median()),
        many=float(many.median()),
        of_attack=float((many / attack.margin)[attack.found].nanmedian()),
        none=int((many <= 0).sum()),
        r_grey=float(_least_r(case, vae, x).median()),
    )


def _certified(case: str, vae: vf.VAE, x: Tensor, r: Tensor, samples: int) -> Tensor:
    if case == "lipschitz":
        return certify.margin(vae, x, r, method="lipschitz").margin
    return certify.margin(vae, x, r, method="local", samples=samples, alpha=ALPHA).margin


def _least_r(case: str, vae: vf.VAE, x: Tensor) -> Tensor:
    """The least r that is certified at one grey level, [B]; by bisection where nothing is drawn."""
    if case != "lipschitz":
        return certify.distance(vae, x, GREY_LEVEL, samples=DRAWS, alpha=ALPHA).distance
    low, high = x.new_zeros(len(x)), x.new_full((len(x),), math.sqrt(x[0].numel()))
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        held = certify.margin(vae, x, middle, method="lipschitz").margin >= GREY_LEVEL
        low, high = torch.where(held, low, middle), torch.where(held, middle, high)
    return high


def trained(folder: Path, case: str, seed: int, x: Tensor, epochs: int) -> vf.VAE:
    """The model of this objective and seed, from its file or anew."""
    path = folder / f"{case}-{seed}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        promise = PROMISE if case == "lipschitz" else None
        vae = models.by_objective(case, x[: models.ROWS], epochs, seed, promise)
        vf.models.save(vae, path)
    return vf.models.load(path).eval()


def _shown(column: str, digits: int) -> Callable[[list[dict[str, str]]], str]:
    """Mean ± standard deviation over seeds."""

    def show(rows: list[dict[str, str]]) -> str:
        values = [float(row[column]) for row in rows]
        if any(map(math.isnan, values)):
            return ""
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"

    return show


COLUMNS: dict[str, Callable[[list[dict[str, str]]], str]] = {
    "training": lambda rows: rows[0]["case"],
    "seeds": lambda rows: str(len(rows)),
    "log p(x\\|z)": _shown("log_p", 0),
    "σ": _shown("std", 2),
    "error": _shown("error", 2),
    "r": _shown("r", 2),
    "(M)": _shown("whitened", 3),
    "S = 2,000": _shown("few", 3),
    "S = 50,000": _shown("many", 3),
    "over attack": _shown("of_attack", 2),
    "none": lambda rows: f"{sum(int(row['none']) for row in rows)} of {INPUTS * len(rows)}",
    "r at .11": _shown("r_grey", 2),
}


def table(path: Path) -> str:
    """Markdown, a line for each objective over the newest row of each of its seeds."""
    with path.open(newline="") as file:
        newest = {(row["case"], row["seed"]): row for row in csv.DictReader(file)}
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|{(len(COLUMNS) - 1) * '---:|'}"]
    for case in dict.fromkeys(case for case, _ in newest):
        rows = [row for (of, _), row in newest.items() if of == case]
        lines.append(f"| {' | '.join(show(rows) for show in COLUMNS.values())} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Train, measure or print."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.certificates_levers")
    parser.add_argument("folder", nargs="?", type=Path, help="of the models")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a CSV file")
    parser.add_argument("--only", nargs="+", choices=[*models.OBJECTIVES], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=models.SHORT)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(table(given.table))
        return 0
    if given.folder is None:
        parser.error("name a folder for the models, or --table FILE")
    dataset = data.load(given.data)
    for case in given.only or models.OBJECTIVES:
        for seed in range(given.seeds):
            vae = trained(given.folder, case, seed, dataset.x_train, given.epochs)
            row = measured(case, seed, vae, dataset.x_test)
            append(given.out, [row])
            print(f"{case} {seed}: {row.many:.3f}, r at .11 {row.r_grey:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
