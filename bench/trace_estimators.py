"""Errors of trace estimators at equal products: ``python -m vaefast.bench.trace_estimators``.

For the choice of ``method="auto"`` in :func:`vaefast.geometry.pullback_trace`. Spectra stand in a
random basis: Gaussian and spherical probes see no difference, signs would be exact for a diagonal.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.geometry.estimators import Estimate, hutchinson, hutchpp, products_of, xtrace
from vaefast.geometry.operators import DISTRIBUTIONS, Operator, probes_of
from vaefast.geometry.points import Points

__all__ = ["Row", "main", "measured"]

SIZES, ROWS = (32, 64, 256), 100
PRODUCTS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48)
OUT = Path("bench/results/trace_estimators.csv")


class Row(NamedTuple):
    """One cell: root mean square of (estimate − trace)/trace over the rows, and what was said."""

    size: int
    spectrum: str
    method: str
    products: int
    probes: int
    error: float
    standard_error: float


def spectra(size: int) -> dict[str, Tensor]:
    """Eigenvalues [size], as they fall in practice and at the extremes."""
    i = torch.arange(1, size + 1, dtype=torch.float64, device="cpu")
    return {
        "flat": torch.ones_like(i),
        "1/i": 1 / i,
        "1/i²": i**-2,
        "0.8^i": 0.8**i,
        "rank 1": (i == 1).double(),
    }


def measured(size: int, products: tuple[int, ...], rows: int) -> Iterator[Row]:
    """For all spectra and methods, with as many probes as so many products allow."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    square = torch.empty(size, size, dtype=torch.float64, device="cpu").normal_(generator=generator)
    basis = torch.linalg.qr(square).Q
    index = torch.arange(rows, device="cpu")
    points = Points(None, square.new_zeros(rows, 1), None, index)  # type: ignore[arg-type]
    for name, values in spectra(size).items():
        op, trace = rotated(values, basis), values.sum()
        for method in (*DISTRIBUTIONS, "hutch++", "xtrace"):
            for count in products:
                probes = probes_within(method, count, size)
                if not probes:
                    continue
                found = estimate(op, points, method, probes)
                off = (found.value / trace - 1).square().mean().sqrt().item()
                said = (found.error / trace).square().mean().sqrt().item()
                yield Row(size, name, method, count, probes, off, said)


def rotated(values: Tensor, basis: Tensor) -> Operator:
    """JJᵀ = Q diag(values) Qᵀ."""
    J = values.sqrt().unsqueeze(1) * basis.mT
    return Operator(
        size=len(values),
        half=lambda u: u @ J.mT,
        back=lambda w: w @ J,
        squares=lambda u: (u @ J.mT).square().sum(-1),
    )


def probes_within(method: str, products: int, size: int) -> int:
    """The most that take no more products; 0 where the method needs more."""
    least = {"hutch++": 3, "xtrace": 2}.get(method, 1)
    fitting = [k for k in range(least, products + 1) if products_of(method, k, size) <= products]
    return max(fitting, default=0)


def estimate(op: Operator, points: Points, method: str, probes: int) -> Estimate:
    if method in DISTRIBUTIONS:
        u = probes_of(points, op.size, probes, 0, method)
        return hutchinson(op, u, without_replacement=method == "orthogonal")
    u = probes_of(points, op.size, probes, 0, "gaussian")
    return hutchpp(op, u) if method == "hutch++" else xtrace(op, u)


def over_spectra(rows: list[Row]) -> dict[tuple[int, int], dict[str, float]]:
    """Root mean square error of each method over the spectra, by size and products."""
    found: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        cell = found.setdefault((row.size, row.products), {})
        cell[row.method] = math.hypot(cell.get(row.method, 0.0), row.error)
    return {
        key: {method: total / len(spectra(1)) ** 0.5 for method, total in cell.items()}
        for key, cell in found.items()
    }


def main(arguments: list[str]) -> int:
    """Write the table, and say what each method errs by in root mean square over the spectra."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.trace_estimators")
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args(arguments).out
    rows = [row for size in SIZES for row in measured(size, PRODUCTS, ROWS)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(
            [[*row[:5], f"{row.error:.4g}", f"{row.standard_error:.4g}"] for row in rows]
        )
    for (size, count), errors in over_spectra(rows).items():
        told = "  ".join(
            f"{m} {e:.3f}" for m, e in sorted(errors.items(), key=lambda item: item[1])
        )
        print(f"size {size}, {count} products: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
