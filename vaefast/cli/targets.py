"""``--target``: an input of a file, or a class of the data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaefast.data import Dataset
from vaefast.data.files import TARGETS, load_inputs
from vaefast.metrics import LatentClassifier

__all__ = ["Target", "find_target"]


class Target(NamedTuple):
    """Where each input shall go.

    Args:
        rows: [B, *event] inputs, or [B] int64 labels of the classifier.
        note: what to say about it.
    """

    rows: Tensor
    note: str


def find_target(spec: str, data: Dataset, x: Tensor, classifier: LatentClassifier | None) -> Target:
    """The target of every row of ``x``.

    Args:
        spec: a path, or a class as the data's labels name it.
        data: whose event shape, box and classes count.
        x: [B, *event], the inputs under attack.
        classifier: for a class.

    Raises:
        ValueError: a class without a classifier or that the data lack, an input of another shape.
        FileNotFoundError: there is no such file.
    """
    if Path(spec).suffix.lower() in TARGETS:
        return _input(spec, data, x)
    if classifier is None:
        raise ValueError(
            f"--target {spec} names a class, for which the attack is --divergence clf; or name a "
            f"file that ends in {', '.join(TARGETS)}"
        )
    label = _label(spec, data, classifier)
    rows = torch.full((len(x),), label, dtype=torch.int64, device=x.device)
    return Target(rows, f"target   class {spec}")


def _input(spec: str, data: Dataset, x: Tensor) -> Target:
    inputs, note = load_inputs(Path(spec).expanduser(), data)
    inputs = inputs.to(x)
    if len(inputs) not in (1, len(x)):
        raise ValueError(
            f"--target {spec} must hold one input or one for each of the {len(x)} under attack, "
            f"got {len(inputs)}"
        )
    what = "one input for all" if len(inputs) == 1 else "one per input"
    return Target(inputs.expand_as(x).contiguous(), f"target   {spec}, {what}. {note}".rstrip(". "))


def _label(spec: str, data: Dataset, classifier: LatentClassifier) -> int:
    labels = classifier.classes.tolist()
    names = [data.classes[label] if data.classes else str(label) for label in labels]
    if spec not in names:
        raise ValueError(f"--target must be a class of the data, {_listed(names)}; got {spec!r}")
    return labels[names.index(spec)]


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, ... ({len(names)} classes)"
