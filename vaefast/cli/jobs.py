"""``vaefast jobs``: runs in shards that can be stopped at any moment; ``certify`` begins one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from vaefast import jobs as runs
from vaefast.cli import engines as e
from vaefast.cli import options as o
from vaefast.cli.run_report import report_run
from vaefast.jobs import Run, RunPlan

__all__ = ["certify_in_shards", "jobs", "planned"]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


SHARD_SIZE = 1024
TASKS = {"probability": "robust_probability", "empirical": "empirical_margin"}
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.")]

jobs = typer.Typer(
    help="Runs over many inputs, in shards: look at them, go on with them, check them.",
    no_args_is_help=True,
)


def planned(
    data: str,
    model: str,
    *,
    r: str | None,
    method: str | None,
    samples: str | None,
    alpha: float,
    seed: int,
    inputs: int | None,
    box: Mapping[str, float | None],
    model_options: Mapping[str, Any],
    shard_size: int | None,
    device: str,
) -> RunPlan:
    """The words of ``vaefast certify`` as a plan."""
    method = method or "local"
    options: dict[str, Any] = {} if method in TASKS else {"method": method}
    if samples is not None:
        options["samples"] = o.draws(samples)
    low, high = box["low"], box["high"]
    if (low is None) != (high is None):
        raise ValueError("a run needs both --low and --high, or --range LOW,HIGH, or neither")
    return RunPlan(
        model,
        data,
        TASKS.get(method, "margin"),
        o.radii(r),
        alpha=alpha,
        options=options,
        seed=seed,
        shard_size=shard_size or SHARD_SIZE,
        inputs=inputs,
        box=None if low is None or high is None else (low, high),
        model_options={name: value for name, value in model_options.items() if value is not None},
        device=device,
    )


def certify_in_shards(plan: RunPlan, out: Path, *, workers: int | None, **how: Any) -> None:
    """Begin a run, or go on with the same one, and do its work; ``how`` of :meth:`Run.work`."""
    if out.suffix:
        raise ValueError(f"--out {out}: a run is a folder; name {out.with_suffix('')}")
    _work(runs.create(plan, out), Console(highlight=False), workers=workers, **how)


@jobs.command(epilog="Example: vaefast jobs resume run/")
def resume(
    folder: Folder,
    workers: o.Workers = None,
    engine: e.Engine = "local",
    address: e.Address = None,
    cpus_per_worker: e.CpusPerWorker = None,
    gpus_per_worker: e.GpusPerWorker = None,
    wait_for_nodes: e.WaitForNodes = None,
) -> None:
    """Compute what is missing, with the same numbers as if nothing had happened."""
    how = e.how(engine, address, cpus_per_worker, gpus_per_worker, wait_for_nodes)
    _work(runs.open(folder), Console(highlight=False), workers=workers, **how)


@jobs.command(epilog="Example: vaefast jobs merge run/ --out all.parquet")
def merge(folder: Folder, out: o.Out, force: o.Force = False) -> None:
    """Put all shards together, in the order of their inputs, in one .parquet."""
    if out.suffix.lower() != ".parquet":
        raise ValueError(f"--out {out}: a run is merged into a .parquet file")
    if out.exists() and not force:
        raise FileExistsError(f"--out {out} exists; pass --force to replace it")
    runs.open(folder).merge(out)
    Console(highlight=False).print(f"The table is at {out}", soft_wrap=True)


@jobs.command(epilog="Example: vaefast jobs report run/")
def report(
    folder: Folder,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", metavar="FILE", help="The page; default RUN/report.html."),
    ] = None,
) -> None:
    """Write one page on all of a run: who is certified how far, classes, worst inputs, cost."""
    page = report_run(runs.open(folder), out or folder / "report.html")
    Console(highlight=False).print(f"The report is at {page}", soft_wrap=True)


def _work(run: Run, console: Console, **how: Any) -> None:
    for line in run.check():
        console.print(line, soft_wrap=True, markup=False)
    with _stopping(run):
        run.work(**how)
    console.print(f"The run at {run.folder} is complete: {run.manifest.shards} shards")


@contextmanager
def _stopping(run: Run) -> Iterator[None]:
    """Say how to go on where the work is stopped."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        total = run.manifest.shards
        line = f"{total - len(run.missing())} of {total} shards are done; go on with vaefast jobs "
        line += f"resume {run.folder}"
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(line) from None
        print(f"vaefast: stopped; {line}", file=sys.stderr)
        raise
