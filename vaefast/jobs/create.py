"""Begin a run: what can be refused is refused before anything is computed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaefast import checks, models
from vaefast.jobs.durable import explained, replace_whole
from vaefast.jobs.fingerprint import (
    differences,
    entries_of_machine,
    entries_of_model,
    entries_of_plan,
)
from vaefast.jobs.manifest import Column, Manifest, Places
from vaefast.jobs.plan import RunPlan
from vaefast.jobs.tasks import Computed, compute
from vaefast.jobs.worker import first_rows, open_data, open_model
from vaefast.models import VAE
from vaefast.runtime import openmp
from vaefast.runtime.batching import same_bits
from vaefast.runtime.durable import sync_folder

__all__ = ["begin"]

ONE_THREAD = 1  # of modules: a block of theirs has the same bits on one


def begin(plan: RunPlan, folder: Path) -> tuple[Manifest, Any]:
    """Write the folder of a run, or find it there with the same fingerprint.

    Returns:
        Its manifest, and the source of its rows.

    Raises:
        ValueError: another run is there, and what differs; or the plan does not work on its data.
        FileExistsError: the folder holds something else.
        OSError: it cannot be written.
    """
    places = Places(folder)
    there = places.manifest.exists()
    if not there:
        _refuse_foreign(places)
    vae, model = _model(plan)
    source = open_data(plan)
    plan = replace(plan, model=model, data=_name_of(plan.data, source))
    manifest = _manifest(plan, vae, source)
    if there:
        return _same(Manifest.read(places), manifest, places), source
    try:
        for path in (places.shards, places.leases, places.checksums):
            path.mkdir(parents=True, exist_ok=True)
        if not model or model.endswith(".safetensors"):
            models.save(vae, places.model)
            replace_whole(places.model, places.model.read_bytes())
    except OSError as error:
        raise explained(error, folder) from error
    manifest.write(places)
    sync_folder(folder.absolute().parent)
    return manifest, source


def _refuse_foreign(places: Places) -> None:
    own = {"shards", "leases", "checksums", places.model.name}
    if not places.folder.exists():
        return
    if not places.folder.is_dir():
        raise FileExistsError(f"{places.folder} is a file; name a folder for the run")
    for path in sorted(places.folder.iterdir()):
        if path.name not in own and not path.name.startswith("."):
            raise FileExistsError(
                f"{places.folder} holds {path.name!r} and is no run; name a new folder"
            )


def _model(plan: RunPlan) -> tuple[VAE, str]:
    """The model, and how others find it again; "" where it is kept in the run's folder alone."""
    if isinstance(plan.model, VAE):
        checks.eval_mode(plan.model)
        return plan.model.to(plan.device), ""
    spec = os.fspath(plan.model)
    file, colon, function = spec.rpartition(":")
    if colon and file.endswith(".py"):
        spec = f"{Path(file).expanduser().resolve()}:{function}"
    nowhere = Places(Path(os.devnull))
    return open_model(replace(plan, model=spec), nowhere), spec


def _name_of(data: Any, source: Any) -> Any:
    """What a manifest holds of the data: how to open them again."""
    if isinstance(data, (str, os.PathLike)):
        path = Path(data).expanduser()
        return str(path.resolve()) if path.exists() else str(data)
    return {"description": getattr(source, "description", type(source).__name__)}


def _manifest(plan: RunPlan, vae: VAE, source: Any) -> Manifest:
    rows = len(source) if plan.inputs is None else min(plan.inputs, len(source))
    if not rows:
        raise ValueError("the data have no rows; a run needs at least one")
    x = first_rows(source, vae, rows)
    entries = entries_of_plan(plan, rows, source.fingerprint) | entries_of_model(vae)
    entries |= entries_of_machine(vae, x, plan, ONE_THREAD)
    threads = ONE_THREAD if entries["modules"] else torch.get_num_threads()
    pilot = _pilot(plan, vae, x[:1], rows, threads)
    columns = tuple(
        Column(name, str(value.dtype).removeprefix("torch."), tuple(value.shape[1:]))
        for name, value in pilot.values.items()
    )
    labels = source.read(0, 1).y is not None
    promise = pilot.guarantee, pilot.reproducible
    return Manifest(plan, rows, entries, columns, labels, *promise, threads=ONE_THREAD)


def _pilot(plan: RunPlan, vae: VAE, x: Tensor, rows: int, threads: int) -> Computed:
    """The task on one input: what it gives, or why it cannot work on any."""
    index = torch.zeros(1, dtype=torch.int64, device=x.device)
    with openmp.at_most(threads), same_bits():
        return compute(vae, x, index, plan, plan.alpha_of_one(rows))


def _same(theirs: Manifest, ours: Manifest, places: Places) -> Manifest:
    found = differences(theirs.entries, ours.entries)
    if found:
        raise ValueError(
            f"{places.folder} is a run of something else: {'; '.join(found)}; pass the same, or "
            "name another folder"
        )
    return theirs
