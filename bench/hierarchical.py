"""The attack on the top groups of a hierarchical VAE, and the defence by HMC on all of them.

    python -m vaefast.bench.hierarchical [--data-root DIR] [--out bench/results/hierarchical.csv]
    python -m vaefast.bench.hierarchical --table bench/results/hierarchical.csv

MSSSIM is with the reconstruction of the clean input, all along paths of the same noise; the row
without an attack has another noise before the defence, which says what 1 is worth.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import vaefast as vf
from vaefast.bench.rows import append

__all__ = ["Measured", "Size", "main", "measure", "table", "trained"]


class Size(NamedTuple):
    """How much is trained, attacked and sampled."""

    rows: int = 10_000
    epochs: int = 4
    channels: int = 16
    latent: int = 16
    inputs: int = 16
    attack_steps: int = 30
    warmup: int = 30
    transitions: int = 30
    leapfrog: int = 10

    def __str__(self) -> str:
        return (
            f"3 groups, {self.channels} channels, {self.latent} on top; {self.rows} rows, "
            f"{self.epochs} epochs; {self.inputs} test inputs, {self.attack_steps} attack steps; "
            f"HMC on all groups, {self.warmup} + {self.transitions} transitions of "
            f"{self.leapfrog} leapfrogs"
        )


@dataclass(frozen=True)
class Measured:
    """One attack, in the mean over the inputs; ``_error`` is the standard error of that mean.

    Args:
        case: what is attacked.
        top, eps: groups, and ℓ∞ radius; 0, 0 without an attack.
        size: of all.
        moved: nats, the symmetric KL of the top groups that the attack reaches.
        before, after: MSSSIM with the clean input's reconstruction, without and with the defence.
    """

    case: str
    top: int
    eps: float
    size: str
    moved: float
    before: float
    before_error: float
    after: float
    after_error: float


TOPS, RADII = (1, 2, 3), (0.1, 0.2)


def trained(data: vf.data.Dataset, size: Size) -> vf.models.HierarchicalVAE:
    """A model of three groups in eval mode."""
    x = data.x_train[: size.rows]
    model = vf.models.HierarchicalVAE(x.shape[1:], 3, size.channels, size.latent)
    vf.training.fit(model, x, epochs=size.epochs, lr=1e-3, progress=False)
    return model.eval()


def measure(
    model: vf.models.HierarchicalVAE, x: Tensor, top: int, eps: float, size: Size
) -> Measured:
    """Attack the top groups at a radius, then defend."""
    point, moved = x, 0.0
    if top:
        options: dict[str, Any] = {"top": top, "eps": eps, "norm": "linf"}
        found = vf.attacks.latent_groups(model, x, steps=size.attack_steps, restarts=2, **options)
        point, moved = found.x_adv, found.objective.mean().item()
    reference = reconstruction(model, x, seed=0)
    undefended = reconstruction(model, point, seed=0 if top else 1)
    chain = {"steps": size.transitions, "warmup": size.warmup, "leapfrog": size.leapfrog}
    defended = vf.hmc.defend_groups(model, point, **chain).reconstruction[:, 0]
    before, after = (similarity(reference, images) for images in (undefended, defended))
    case = f"top {top}, eps {eps:g}" if top else "no attack"
    return Measured(case, top, eps, str(size), moved, *before, *after)


def reconstruction(model: vf.models.HierarchicalVAE, x: Tensor, seed: int) -> Tensor:
    """Along a path of q(z|x) whose noise is the seed's."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    noise = [x.new_empty(len(x), *shape).normal_(generator=generator) for shape in model.shapes]
    with torch.no_grad():
        return model.g([group.z for group in model.posterior_path(x, noise)])


def similarity(reference: Tensor, images: Tensor) -> tuple[float, float]:
    """MSSSIM as Kuzina et al. 2022 have it, and its standard error."""
    values = vf.metrics.msssim(reference, images, variant="kuzina2022").value
    return values.mean().item(), (values.std() / len(values) ** 0.5).item()


def table(path: Path) -> str:
    """Markdown of the newest row of each case."""
    with path.open(newline="") as file:
        newest = {row["case"]: row for row in csv.DictReader(file)}
    lines = [
        "| attacked groups | ℓ∞ radius | moved, nats | MSSSIM undefended | MSSSIM with HMC |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(newest.values(), key=lambda row: (float(row["eps"]), int(row["top"]))):
        what = f"top {row['top']} | {row['eps']}" if int(row["top"]) else "none | 0"
        pairs = [
            f"{float(row[name]):.3f} ± {float(row[f'{name}_error']):.3f}"
            for name in ("before", "after")
        ]
        lines.append(f"| {what} | {float(row['moved']):.3g} | {' | '.join(pairs)} |")
    last = row
    where = f"{last['device']}, torch {last['torch']}, commit {last['commit']}"
    return "\n".join([*lines, "", f"{last['size']}. {where}."])


def main(arguments: list[str] | None = None) -> int:
    name = "python -m vaefast.bench.hierarchical"
    parser = argparse.ArgumentParser(prog=name, description=__doc__)
    parser.add_argument("--data-root", type=Path, metavar="DIR")
    parser.add_argument("--model", type=Path, metavar="FILE", help="trained and kept there")
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a CSV file")
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(table(given.table))
        return 0
    size, data = Size(), vf.data.load("mnist", root=given.data_root)
    if given.model is not None and given.model.exists():
        model = vf.models.load(given.model)
    else:
        model = trained(data, size)
        if given.model is not None:
            vf.models.save(model, given.model)
    x = data.x_test[: size.inputs]
    for top, eps in [(0, 0.0), *((top, eps) for eps in RADII for top in TOPS)]:
        row = measure(model, x, top, eps, size)
        print(row, flush=True)
        if given.out is not None:
            append(given.out, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
