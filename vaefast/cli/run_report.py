"""``vaefast jobs report``: the page of a run, from its folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vaefast.jobs import Run, RunPlan
from vaefast.jobs.lists import certified_list, free_choice
from vaefast.jobs.shards import checksums
from vaefast.jobs.status import snapshot
from vaefast.jobs.worker import open_data
from vaefast.report.run_page import write_run_report
from vaefast.report.run_words import Cost, RunFacts

__all__ = ["report_run", "statements"]

WORDS = {"robust_probability": "probability", "empirical_margin": "empirical"}
CERTIFY = ("margin", *WORDS)
SAID = {"method": "--method", "samples": "--samples"}


def statements(run: Run, radius: float | None, radii: Sequence[float]) -> list[str]:
    """Tables beside a run's own, in its folder, and the sentences that they are worth.

    Raises:
        ValueError: the run has not what they need, and what does.
        OSError: they cannot be written.
    """
    found: list[str] = []
    if radius is not None:
        found += certified_list(run, radius, run.folder / "certified_at.parquet").sentences
    if radii:
        found += free_choice(run, radii, run.folder / "at_r.parquet").sentences
    return found


def report_run(run: Run, out: Path, said: Sequence[str] = ()) -> Path:
    """Write the page of a complete run; ``said`` stands among its findings.

    Raises:
        ValueError: shards are missing or damaged.
        OSError: it cannot be written.
    """
    table = run.folder / ".report.parquet"
    try:
        run.merge(table)
        source, why = _source(run)
        write_run_report(table, out, _facts(run, source, said), read=_reader(source, why))
    finally:
        table.unlink(missing_ok=True)
    return out


def _source(run: Run) -> tuple[Any, str]:
    """The rows of a run, or None and why they are not at hand."""
    if run.source is not None:
        return run.source, ""
    try:
        found = open_data(run.manifest.plan)
    except (OSError, ValueError, TypeError, ImportError) as error:
        return None, str(error)
    if found.fingerprint != run.manifest.entries["data"]:
        return None, "the data are no longer those of the run"
    return found, ""


def _reader(source: Any, why: str) -> Callable[[int], Tensor | str]:
    def read(index: int) -> Tensor | str:
        if source is None:
            return why
        try:
            rows = source.read(index, index + 1)
        except OSError as error:
            return str(error)
        return rows.x[0] if len(rows.x) else rows.failed[index]

    return read


def _facts(run: Run, source: Any, said: Sequence[str]) -> RunFacts:
    manifest = run.manifest
    plan = manifest.plan
    event = plan.data["event_shape"]
    note = getattr(source, "note", "")
    low, high = map(float, plan.data["box"])
    return RunFacts(
        data=Path(_data(plan.data)).name,
        model=Path(str(plan.model)).name or "a model",
        task=plan.task,
        guarantee=manifest.guarantee,
        r=plan.r,
        alpha=plan.alpha,
        level="input" if plan.level == "input" else "run",
        fingerprint=manifest.fingerprint,
        settings=_settings(run),
        classes=tuple(getattr(source, "classes", ()) or ()),
        box=(low, high),
        images=len(event) == 3,
        notes=tuple(line for line in (note, _of_radius(plan)) if line),
        statements=tuple(said),
        cost=_cost(run),
        command=_command(run),
    )


def _of_radius(plan: RunPlan) -> str:
    """Where r comes from, "" where it was given."""
    return f"r = {plan.r[0]:g} is {plan.r_from}." if plan.r_from else ""


def _data(description: Mapping[str, Any]) -> str:
    """What the user named, from the description of a source."""
    return str(next(description[key] for key in ("name", "path", "type") if key in description))


def _settings(run: Run) -> dict[str, Any]:
    """What decides the numbers, then what does not."""
    found: dict[str, Any] = {}
    for name, value in run.manifest.entries.items():
        if isinstance(value, Mapping):
            found |= {f"{name} {key}": item for key, item in value.items()}
        else:
            found[name] = value
    return found | {"shard size": run.manifest.plan.shard_size}


def _cost(run: Run) -> Cost | None:
    """What the shards say that they took."""
    now = snapshot(run, at_end=True)
    if not now.done:
        return None
    last = [found[-1] for found in checksums(run.places).values()]
    processors = sum(sum(e["seconds"].values()) * e.get("threads", 1) for e in last)
    return Cost(now.done, now.seconds, processors, now.rate)


def _command(run: Run) -> str:
    """The command line that makes the run again; "" where none does."""
    plan = run.manifest.plan
    options = dict(plan.options)
    if plan.task in WORDS:
        options["method"] = WORDS[plan.task]
    said = not set(options) - set(SAID) and plan.level == "input" and plan.model
    if plan.task not in CERTIFY or not said or not run.reopens or plan.data.get("split") == "train":
        return ""
    words = ["vaefast", "certify", "--model", str(plan.model), "--data", _data(plan.data)]
    words += ["--r", ",".join(f"{r:g}" for r in plan.r), "--alpha", f"{plan.alpha:g}"]
    words += ["--band"] if plan.band else []
    for name, value in options.items():
        words += [SAID[name], str(value)]
    if plan.box is not None:
        words += ["--range", ",".join(f"{end:g}" for end in plan.box)]
    if plan.inputs is not None:
        words += ["--inputs", str(plan.inputs)]
    words += ["--seed", str(plan.seed), "--shard-size", str(plan.shard_size), "--out", "run/"]
    return shlex.join(words)
