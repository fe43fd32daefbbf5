"""A worker: one model, frozen and lowered once, and the shards that it is given."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaefast.jobs.fingerprint import (
    ONE_THREAD,
    differences,
    entries_of_machine,
    entries_of_model,
    entries_of_plan,
    levels,
)
from vaefast.jobs.leases import Leases
from vaefast.jobs.manifest import Manifest, Places
from vaefast.jobs.plan import RunPlan
from vaefast.jobs.rows import shard_of
from vaefast.jobs.shards import Shard, read_shard, write_shard
from vaefast.jobs.sources import RowSource, Source, open_source
from vaefast.jobs.sources.rows import ANY
from vaefast.jobs.tasks import Computed, compute
from vaefast.models import VAE
from vaefast.models.packs import frozen
from vaefast.models.source import load_model
from vaefast.runtime import openmp, tiles
from vaefast.runtime.batching import same_bits

__all__ = ["Done", "Worker", "open_data", "open_model"]


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
        shard: its number.
        state: "written"; "there", as another had finished it; or "held" by another.
        rows, failed: of the shard that was written.
        seconds: by stage.
    """

    shard: int
    state: str
    rows: int = 0
    failed: int = 0
    seconds: Mapping[str, float] | None = None


def open_model(plan: RunPlan, places: Places) -> VAE:
    """The model of a run, on its device.

    Raises:
        ValueError, TypeError, FileNotFoundError: one line that says what failed.
    """
    spec = str(places.model) if places.model.exists() else str(plan.model)
    options = {"likelihood": None, "decoder_output": None, "encoder_output": None, "obs_std": None}
    return load_model(spec, torch.device(plan.device), **(options | dict(plan.model_options)))


def open_data(plan: RunPlan) -> Source:
    """The rows of a run, by name, by an earlier description or as the object that was given."""
    if isinstance(plan.data, Mapping):
        return open_source(plan.data)
    return open_source(plan.data, box=plan.box, labels=plan.labels, root=plan.data_root)


class Worker:
    """Computes and writes shards of one run; to be used as a context.

    It depends on no engine: whoever has a worker gives it numbers of shards, in any order, and may
    end it at any moment. In its context the model is frozen, rows have the same bits in any batch
    and kernels are pinned; all that happens in the thread that entered.

    Args:
        folder: of the run.
        source: of the rows, where the run cannot open it by name.
        ttl: s, of its leases.

    Raises:
        ValueError: this machine, its versions, the model or the data are not the run's; each
            difference is named.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: RowSource | None = None,
        ttl: float = 60.0,
    ) -> None:
        self.places = Places(Path(folder))
        self.manifest = Manifest.read(self.places)
        plan = self.manifest.plan
        require_level(self.manifest.entries)
        self.vae = open_model(plan, self.places)
        self.source = open_data(plan) if source is None else open_source(source, box=plan.box)
        self._require_same(plan)
        self.leases = Leases(self.places.leases, ttl)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._inside = ExitStack()

    def _require_same(self, plan: RunPlan) -> None:
        theirs = self.manifest.entries
        entries = entries_of_plan(plan, self.manifest.rows, self.source)
        entries |= entries_of_model(self.vae) | entries_of_machine(plan, theirs["libraries"])
        found = differences(theirs, entries)
        if found:
            raise ValueError(
                f"{self.places.folder} was begun with something else, and its numbers would not "
                f"be the same: {'; '.join(found)}"
            )

    def __enter__(self) -> Worker:
        plan = self.manifest.plan
        if self.manifest.entries["libraries"]:
            self._inside.enter_context(openmp.at_most(ONE_THREAD))
        if plan.device == "cuda":
            before = tiles.pinned_tile()
            tiles.set_tile(plan.tile)
            self._inside.callback(tiles.set_tile, before)
        self._inside.enter_context(same_bits())
        self._inside.enter_context(frozen(self.vae))
        self._inside.callback(self.leases.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.close()

    def work(self, number: int) -> Done:
        """Compute and write a shard, unless it is there or another has its lease.

        Raises:
            OSError: it cannot be written; nothing of it is there then.
        """
        name = f"{number:08d}"
        if self.places.shard(number).exists():
            return Done(number, "there")
        if not self.leases.claim(name):
            return Done(number, "held")
        try:
            if self.places.shard(number).exists():
                return Done(number, "there")
            return self.write(self.compute(number))
        finally:
            self.leases.release(name)

    def again(self, number: int) -> Done:
        """Compute the failed rows of a shard once more, unless another has its lease.

        Raises:
            OSError: it cannot be written; the shard is as it was then.
            ValueError: the shard is damaged.
        """
        name = f"{number:08d}"
        if not self.leases.claim(name):
            return Done(number, "held")
        try:
            before = read_shard(self.places.shard(number), self.manifest)
            if not before.failed.any() or before.attempts >= self.manifest.plan.attempts:
                return Done(number, "there")
            return self.write(self.compute(number, before))
        finally:
            self.leases.release(name)

    def compute(self, number: int, before: Shard | None = None) -> Shard:
        """The rows of a shard, or those that failed before; not written."""
        manifest = self.manifest
        return shard_of(
            number,
            manifest.bounds(number),
            self.source,
            self._task,
            columns=manifest.columns,
            labels=manifest.labels,
            to_model=lambda x: to_model(self.vae, x),
            rows_at_once=self.source.rows_at_once if manifest.plan.device == "cpu" else ANY,
            before=before,
        )

    def write(self, shard: Shard) -> Done:
        """Write a shard, durably."""
        began = time.perf_counter()
        write_shard(shard, self.manifest, self.places, self.owner)
        seconds = {**shard.seconds, "write": time.perf_counter() - began}
        failed = int(shard.failed.sum())
        return Done(shard.number, "written", len(shard.failed), failed, seconds)

    def _task(self, x: Tensor, index: Tensor) -> Computed:
        return compute(self.vae, x, index, self.manifest.plan, self.manifest.alpha)


def to_model(vae: VAE, x: Tensor) -> Tensor:
    """Inputs on the model's device, in its dtype."""
    like = next(vae.parameters(), x)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return x.to(device=like.device, dtype=dtype)


def first_rows(source: Source, vae: VAE, rows: int, count: int = 64) -> Tensor:
    """Up to two finite rows among the first, as the model takes them; zeros where there are none.

    They show how the model is evaluated, not how well.
    """
    found = source.read(0, min(rows, count)).x
    good = found[found.flatten(1).isfinite().all(1)] if len(found) else found
    if not len(good):
        good = torch.zeros(1, *source.event_shape, dtype=torch.float32, device="cpu")
    return to_model(vae, good[:2])


def require_level(entries: Mapping[str, Any]) -> None:
    """Refuse a processor below the run's, and kernels above it that are not pinned.

    Raises:
        ValueError: with the way out.
    """
    wanted, own = entries.get("isa"), levels()
    if wanted in (None, "none") or not own or own[0] == wanted:
        return
    if wanted not in own[1:]:
        raise ValueError(
            f"the run's kernels are for {wanted}, this processor has {', '.join(own[1:])}; work on "
            f"machines that have {wanted}, or begin a run with VAEFAST_ISA={own[1]}"
        )
    raise ValueError(
        f"the run's kernels are for {wanted}, this process has loaded those for {own[0]}; set "
        f"VAEFAST_ISA={wanted} (vaefast jobs does it by itself)"
    )
