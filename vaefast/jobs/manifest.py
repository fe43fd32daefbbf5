"""The folder of a run, and the one file in it that says what the run is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaefast.jobs.durable import replace_whole
from vaefast.jobs.fingerprint import digest
from vaefast.jobs.plan import RunPlan

__all__ = ["FORMAT", "Column", "Manifest", "Places"]

FORMAT = 1
MADE_BY = "vaefast jobs"


@dataclass(frozen=True)
class Places:
    """Where everything of a run lies."""

    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def leases(self) -> Path:
        return self.folder / "leases"

    @property
    def checksums(self) -> Path:
        return self.folder / "checksums"

    def shard(self, number: int) -> Path:
        return self.shards / f"{number:08d}.parquet"


@dataclass(frozen=True)
class Column:
    """A column of the shards: its name, the dtype of an entry, and the shape of a row's array."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a run is; never changed after it was written.

    Attributes:
        plan: of the run.
        rows: inputs.
        entries: all that decides a number, see :mod:`vaefast.jobs.fingerprint`.
        columns: of the values of each row.
        labels: whether rows have a label.
        guarantee: what the values promise, "" where nothing.
        reproducible: "bits", "blocks" or "round-off".
    """

    plan: RunPlan
    rows: int
    entries: Mapping[str, Any]
    columns: tuple[Column, ...]
    labels: bool = False
    guarantee: str = ""
    reproducible: str = "bits"

    @property
    def fingerprint(self) -> str:
        return digest(self.entries)

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.plan.shard_size)

    def bounds(self, number: int) -> tuple[int, int]:
        """First global index of a shard, and the one after its last."""
        start = number * self.plan.shard_size
        return start, min(start + self.plan.shard_size, self.rows)

    @property
    def alpha(self) -> float:
        """Error probability of one statement."""
        return self.plan.alpha_of_one(self.rows)

    def write(self, places: Places) -> None:
        """Once, before any shard."""
        values = {
            "made_by": MADE_BY,
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "entries": dict(self.entries),
            "plan": self.plan.as_json(),
            "rows": self.rows,
            "shards": self.shards,
            "columns": [[c.name, c.dtype, list(c.shape)] for c in self.columns],
            "labels": self.labels,
            "guarantee": self.guarantee,
            "reproducible": self.reproducible,
            "alpha_of_one": self.alpha,
        }
        replace_whole(places.manifest, json.dumps(values, indent=1).encode() + b"\n")

    @classmethod
    def read(cls, places: Places) -> Manifest:
        """That of a folder.

        Raises:
            FileNotFoundError: it is no run.
            ValueError: it is damaged, or of a newer format.
        """
        path = places.manifest
        if not path.is_file():
            raise FileNotFoundError(
                f"{places.folder} is no run (it has no manifest.json); "
                "vaefast certify --out FOLDER --shard-size N makes one"
            )
        try:
            values = json.loads(path.read_bytes())
            version = values["format"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged; begin the run anew in another folder") from None
        if version != FORMAT:
            raise ValueError(f"{path} has format {version}, this vaefast reads {FORMAT}; upgrade")
        columns = tuple(
            Column(name, dtype, tuple(shape)) for name, dtype, shape in values["columns"]
        )
        names = ("rows", "entries", "labels", "guarantee", "reproducible")
        own = {name: values[name] for name in names}
        found = cls(RunPlan.from_json(values["plan"]), columns=columns, **own)
        if found.fingerprint != values["fingerprint"]:
            raise ValueError(f"{path} was changed after it was written; begin the run anew")
        return found
