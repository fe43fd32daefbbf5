"""Short runs of every training objective on MNIST, and how robust the models are.

    python -m vaefast.bench.training [NAME ...] [--data-root DIR] [--out bench/results/training.csv]
    python -m vaefast.bench.training --table bench/results/training.csv

A run of one seed appends one row; runs are single-threaded and their time is the processor's, so
that other work on the machine does not count. Small sizes: they compare objectives, no more.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast import training as t
from vaefast.bench.rows import append

__all__ = ["RUNS", "Measured", "Size", "main", "measure", "table"]


class Size(NamedTuple):
    """How much is trained and attacked."""

    rows: int = 10_000
    epochs: int = 8
    inputs: int = 100
    hidden: tuple[int, ...] = (256, 256)
    latent: int = 16
    channels: int = 8
    steps: int = 40

    def __str__(self) -> str:
        return f"{self.rows} rows, {self.epochs} epochs, {self.inputs} test inputs"


@dataclass(frozen=True)
class Measured:
    """One trained model.

    Args:
        case: the run's name.
        objective: with its settings.
        model: what was trained.
        size: of the run and of the evaluation.
        reconstruction, kl: E log p(x|z) and the KL term, nats, test inputs.
        damage, damage_error: mean of the maximum damage at ℓ∞ radius 0.1 over the inputs and its
            standard error, ℓ2 in pixel scale.
        clean: the same distance without an attack: the spread of the model's own reconstructions.
        moved: nats, the largest symmetric KL of the posterior that the latent attack finds at the
            same radius; of all groups.
        eigenvalue: median of the largest eigenvalue of the encoder's pullback metric, with σ.
        seconds: of training, processor time of one thread.
    """

    case: str
    objective: str
    model: str
    size: str
    reconstruction: float
    kl: float
    damage: float
    damage_error: float
    clean: float
    moved: float
    eigenvalue: float
    seconds: float


RUNS: dict[str, t.Objective] = {
    "elbo": t.BetaELBO(),
    "beta 4": t.BetaELBO(4.0),
    "tcvae 4": t.TCVAE(4.0),
    "mixup": t.Mixup(),
    "mixup, published pairing": t.Mixup(pairing="published"),
    "smooth": t.Smooth(),
    "smooth, coupling 50": t.Smooth(coupling=50.0),
    "avae": t.AVAE(),
    "fisher": t.Fisher(),
    "fisher, weight 0.1": t.Fisher(weight=0.1),
    "adversarial": t.Adversarial(),
    "groups, elbo": t.GroupELBO(),
    "groups, seatbelt 10": t.Seatbelt(10.0),
}
EPS = 0.1  # ℓ∞
LR = 1e-3


def measure(name: str, data: vf.data.Dataset, size: Size) -> Measured:
    """Train the model of a run and attack it."""
    x = data.x_train[: size.rows]
    vae: Any
    if name.startswith("groups"):
        vae = vf.models.HierarchicalVAE(x.shape[1:], 2, size.channels, size.latent)
        model, judge = f"2 groups, {size.channels} channels, {size.latent} on top", _groups
    else:
        vae = vf.models.MLPVAE(x.shape[1:], size.hidden, size.latent)
        widths = "-".join(map(str, (*size.hidden, size.latent)))
        model, judge = f"MLP {widths} tanh", _single
    start = time.process_time()
    t.fit(vae, x, objective=RUNS[name], epochs=size.epochs, lr=LR, progress=False)
    seconds = time.process_time() - start
    found = judge(vae.eval(), data.x_test[: size.inputs], size.steps)
    return Measured(name, repr(RUNS[name]), model, str(size), **found, seconds=seconds)


def _single(vae: vf.VAE, x: Tensor, steps: int) -> dict[str, float]:
    elbo = t.evaluate_elbo(vae, x, samples=8)
    options = {"eps": EPS, "norm": "linf", "restarts": 2, "steps": steps}
    damage = vf.attacks.max_damage(vae, x, **options).objective
    still = vf.attacks.max_damage(vae, x, eps=0.0, norm="linf", steps=1).objective
    moved = vf.attacks.latent(vae, x, **options).objective
    values = vf.geometry.pullback_spectrum(vae, x, std=True, vectors=0).eigenvalues
    return {
        "reconstruction": elbo.reconstruction.mean().item(),
        "kl": elbo.kl.mean().item(),
        **_damage(damage),
        "clean": still.mean().item(),
        "moved": moved.mean().item(),
        "eigenvalue": values[:, 0].median().item(),
    }


def _damage(found: Tensor) -> dict[str, float]:
    error = found.std() / len(found) ** 0.5
    return {"damage": found.mean().item(), "damage_error": error.item()}


def _groups(vae: vf.models.HierarchicalVAE, x: Tensor, steps: int) -> dict[str, float]:
    """Damage here is of the attack on the posteriors of all groups, along the mean path."""
    options = {"eps": EPS, "norm": "linf", "restarts": 2, "steps": steps}
    attacked = vf.attacks.latent_groups(vae, x, top=len(vae.shapes), **options)
    generator = torch.Generator(device="cpu").manual_seed(0)
    with torch.no_grad():
        noise = [x.new_empty(len(x), *s).normal_(generator=generator) for s in vae.shapes]
        logp, kl = vae.bound(x, noise)
        clean, moved = (_through_means(vae, rows) for rows in (x, attacked.x_adv))
        own = vae.g([group.z for group in vae.posterior_path(x, noise)])
    return {
        "reconstruction": logp.mean().item(),
        "kl": torch.stack(kl).sum(0).mean().item(),
        **_damage(_length(moved - clean)),
        "clean": _length(own - clean).mean().item(),
        "moved": attacked.objective.mean().item(),
        "eigenvalue": float("nan"),
    }


def _through_means(vae: vf.models.HierarchicalVAE, x: Tensor) -> Tensor:
    path = vae.posterior_path(x, [x.new_zeros(len(x), *s) for s in vae.shapes])
    return vae.g([group.z for group in path])


def _length(difference: Tensor) -> Tensor:
    return torch.linalg.vector_norm(difference.flatten(1).double(), dim=1)


COLUMNS: dict[str, Callable[[dict[str, str]], str]] = {
    "run": lambda row: row["case"],
    "log p(x\\|z)": lambda row: f"{float(row['reconstruction']):.1f}",
    "KL": lambda row: f"{float(row['kl']):.1f}",
    "damage": lambda row: f"{float(row['damage']):.2f} ± {float(row['damage_error']):.2f}",
    "without attack": lambda row: f"{float(row['clean']):.2f}",
    "posterior moved, nats": lambda row: f"{float(row['moved']):.3g}",
    "λ₁": lambda row: "" if row["eigenvalue"] == "nan" else f"{float(row['eigenvalue']):.3g}",
    "seconds": lambda row: f"{float(row['seconds']):.0f}",
}


def table(path: Path) -> str:
    """Markdown of the newest row of each run."""
    with path.open(newline="") as file:
        newest = {row["case"]: row for row in csv.DictReader(file)}
    rows = [newest[name] for name in RUNS if name in newest]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + (len(COLUMNS) - 1) * "---:|"]
    lines += [f"| {' | '.join(of(row) for of in COLUMNS.values())} |" for row in rows]
    sizes = "; ".join(dict.fromkeys(f"{row['model']}, {row['size']}" for row in rows))
    where = f"{rows[-1]['device']}, torch {rows[-1]['torch']}, commit {rows[-1]['commit']}"
    return "\n".join([*lines, "", f"{sizes}. {where}."])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.training", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--data-root", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a CSV file")
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(table(given.table))
        return 0
    if unknown := [name for name in given.runs if name not in RUNS]:
        parser.error(f"NAME must be one of {', '.join(RUNS)}, got {unknown[0]!r}")
    torch.set_num_threads(1)
    data = vf.data.load("mnist", root=given.data_root)
    for name in given.runs or RUNS:
        row = measure(name, data, Size())
        print(row, flush=True)
        if given.out is not None:
            append(given.out, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
