"""What the single steps write and show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vaefast.runtime.reasons import Reasons

__all__ = ["save_npz", "say_failures", "show"]


def save_npz(file: Path, values: Mapping[str, Tensor | Reasons]) -> None:
    """Tensors, and strings of each row as an array of text."""
    arrays: dict[str, Any] = {
        name: value.cpu().numpy() if isinstance(value, Tensor) else np.array(value, dtype=str)
        for name, value in values.items()
    }
    with file.open("wb") as stream:
        np.savez(stream, **arrays)


def show(console: Console, values: dict[str, Tensor], out: Path) -> None:
    """Median and range of every column, and where the file is."""
    table = Table("", "median", "smallest", "largest", box=None, pad_edge=False)
    for name, value in values.items():
        found = value[~value.isnan()].double().cpu().numpy()
        cells = (np.median(found), found.min(), found.max()) if len(found) else ()
        table.add_row(name.replace("_", " "), *(f"{cell:.4g}" for cell in cells))
    console.print(table)
    console.print(f"The results are at {out}", soft_wrap=True)


def say_failures(console: Console, failed: Tensor, out: Path, reasons: Sequence[str] = ()) -> None:
    """How many of the inputs [B] failed and why, if any.

    Args:
        console: where to.
        failed: [B] bool.
        out: the file that holds what was computed.
        reasons: one per input; by default nothing finite came of those that failed.

    Raises:
        ValueError: all of them; what was computed is in the file.
    """
    count, rows = int(failed.sum()), len(failed)
    if not count:
        return
    why = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    if count == rows:
        why = why or "the model gives nothing finite for any"
        raise ValueError(f"all {rows} inputs failed: {why}; {out} holds NaN")
    console.print(f"{count} of {rows} inputs failed: {why or f'NaN in {out}'}", soft_wrap=True)
