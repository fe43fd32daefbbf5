"""Begin a run: what can be refused is refused before anything is computed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaefast import checks, models
from vaefast.audit import AuditSettings
from vaefast.audit.stages import unchanged_radius
from vaefast.jobs.durable import explained, replace_whole
from vaefast.jobs.fingerprint import (
    ONE_THREAD,
    differences,
    entries_of_machine,
    entries_of_model,
    entries_of_plan,
    is_generic,
)
from vaefast.jobs.manifest import Column, Manifest, Places
from vaefast.jobs.plan import WITH_RADII, RunPlan
from vaefast.jobs.sources import Source
from vaefast.jobs.tasks import Computed, compute
from vaefast.jobs.worker import first_rows, open_data, open_model, to_model
from vaefast.models import VAE
from vaefast.runtime import batching, openmp
from vaefast.runtime.durable import sync_folder

__all__ = ["begin"]

FIRST = 64  # rows that show whether there are labels


def begin(plan: RunPlan, folder: Path) -> Source:
    """Write the folder of a run, or find it there with the same fingerprint.

    Returns:
        The source of its rows.

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
    plan = replace(plan, data=_absolute(plan.data))
    source = open_data(plan)
    plan = replace(plan, model=model, data=source.description, box=source.box)
    theirs = Manifest.read(places) if there else None
    if not plan.r and plan.task in WITH_RADII:
        plan = _with_radius(plan, vae, source, theirs)
    manifest = _manifest(plan, vae, source)
    if theirs is not None:
        _require_same(theirs, manifest, places)
        return source
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
    return source


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


def _absolute(data: Any) -> Any:
    """A path from the root on, as the run may go on in another folder."""
    if not isinstance(data, str | os.PathLike):
        return data
    head, colon, tail = os.fspath(data).rpartition(":")
    path = Path(head if colon else tail).expanduser()
    return f"{path.resolve()}{colon}{tail if colon else ''}" if path.exists() else os.fspath(data)


def _manifest(plan: RunPlan, vae: VAE, source: Source) -> Manifest:
    rows = len(source) if plan.inputs is None else min(plan.inputs, len(source))
    if not rows:
        raise ValueError("the data have no rows; a run needs at least one")
    x = first_rows(source, vae, rows)
    entries = entries_of_plan(plan, rows, source) | entries_of_model(vae)
    pilot = _pilot(plan, vae, x[:1], rows)
    promise = pilot.reproducible
    if is_generic(vae, x):
        promise = batching.weakest("blocks", promise)
    entries |= entries_of_machine(plan, promise != "bits")
    columns = tuple(
        Column(name, str(value.dtype).removeprefix("torch."), tuple(value.shape[1:]))
        for name, value in pilot.values.items()
    )
    labels = source.read(0, min(rows, FIRST)).y is not None
    return Manifest(plan, rows, entries, columns, labels, pilot.guarantee, promise)


def _with_radius(plan: RunPlan, vae: VAE, source: Source, theirs: Manifest | None) -> RunPlan:
    """The plan with the r of the run that is there, or one that the model's own spread suggests.

    It does not depend on the run's draws, which come from other streams of random numbers: any
    guarantee is that of an r fixed beforehand.

    Raises:
        ValueError: no reconstruction is finite, or none of the first inputs can be read.
    """
    if theirs is not None and theirs.plan.task in WITH_RADII:
        return replace(plan, r=theirs.plan.r, r_from=theirs.plan.r_from)
    most = min(len(source), plan.inputs or len(source), AuditSettings().inputs)
    x = to_model(vae, source.read(0, most).x)
    if not len(x):
        raise ValueError(f"none of the first {most} inputs can be read to find r by; pass r")
    with openmp.at_most(ONE_THREAD):
        r = unchanged_radius(vae, x, plan.seed)
    what = f"the 90 % quantile of the model's own spread on the first {len(x)} inputs, to two "
    return replace(plan, r=(r,), r_from=what + "digits, by draws that the run does not use")


def _pilot(plan: RunPlan, vae: VAE, x: Tensor, rows: int) -> Computed:
    """The task on one input: what it gives, or why it cannot work on any."""
    index = torch.zeros(1, dtype=torch.int64, device=x.device)
    with openmp.at_most(ONE_THREAD), batching.same_bits():
        return compute(vae, x, index, plan, plan.alpha_of_one(rows))


def _require_same(theirs: Manifest, ours: Manifest, places: Places) -> None:
    found = differences(theirs.entries, ours.entries)
    if found:
        raise ValueError(
            f"{places.folder} is a run of something else: {'; '.join(found)}; pass the same, or "
            "name another folder"
        )
