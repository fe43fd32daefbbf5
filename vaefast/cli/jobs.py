"""``vaefast jobs``: runs in shards that can be stopped at any moment; ``certify`` begins one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from vaefast import jobs as runs
from vaefast.certify.level import Over
from vaefast.cli import engines as e
from vaefast.cli import options as o
from vaefast.cli import run_options as ro
from vaefast.cli.run_report import report_run, statements
from vaefast.cli.sources import find_device
from vaefast.jobs import Run, RunPlan
from vaefast.jobs.manifest import Manifest, Places
from vaefast.jobs.progress import Progress
from vaefast.jobs.status import snapshot
from vaefast.jobs.watching import watch

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
    band: bool,
    method: str | None,
    samples: str | None,
    alpha: float,
    over: Over,
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
        options["samples"] = ro.draws(samples)
    low, high = box["low"], box["high"]
    if (low is None) != (high is None):
        raise ValueError("a run needs both --low and --high, or --range LOW,HIGH, or neither")
    return RunPlan(
        model,
        data,
        TASKS.get(method, "margin"),
        ro.radii(r),
        alpha=alpha,
        level=over,
        options=options,
        seed=seed,
        shard_size=shard_size or SHARD_SIZE,
        inputs=inputs,
        box=None if low is None or high is None else (low, high),
        model_options={name: value for name, value in model_options.items() if value is not None},
        device=device,
        band=band,
    )


def certify_in_shards(plan: RunPlan, out: Path, *, workers: int | None, **how: Any) -> None:
    """Begin a run, or go on with the same one, and do its work; ``how`` of :meth:`Run.work`."""
    if out.suffix:
        raise ValueError(f"--out {out}: a run is a folder; name {out.with_suffix('')}")
    run = runs.create(plan, out)
    own = run.manifest.plan
    if own.r_from:
        line = f"r = {own.r[0]:g}, {own.r_from}"
        Console(highlight=False).print(line, soft_wrap=True, markup=False)
    _work(run, workers=workers, **how)


@jobs.command(epilog="Example: vaefast jobs status run/ --watch")
def status(
    folder: Folder,
    watching: Annotated[
        bool, typer.Option("--watch", help="Show it again and again until it is complete.")
    ] = False,
) -> None:
    """Say how far a run is and who works on it, from its folder alone."""
    run, console = runs.open(folder), Console(highlight=False)
    if watching:
        watch(lambda: snapshot(run), console)
    console.print(str(run.status()), soft_wrap=True, markup=False)


@jobs.command(epilog="Example: vaefast jobs resume run/")
def resume(
    folder: Folder,
    workers: ro.Workers = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Try failed rows again, at most as often as the plan allows."
        ),
    ] = False,
    engine: e.Engine = "local",
    address: e.Address = None,
    cpus_per_worker: e.CpusPerWorker = None,
    gpus_per_worker: e.GpusPerWorker = None,
    wait_for_nodes: e.WaitForNodes = None,
    threads: o.Threads = None,
    metrics: ro.Metrics = None,
    lines: ro.Lines = None,
) -> None:
    """Compute what is missing, with the same numbers as if nothing had happened."""
    how = e.how(engine, address, cpus_per_worker, gpus_per_worker, wait_for_nodes)
    how |= {"workers": workers, "retry_failed": retry_failed}
    _work(_opened(folder, threads), metrics, lines, **how)


@jobs.command(epilog="Example: vaefast jobs work run/ --shard-of 3/16")
def work(
    folder: Folder,
    shard_of: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="The share of this process, 0/N to N-1/N: it begins with every N-th shard and "
            "goes on with what is left.",
        ),
    ] = "0/1",
    threads: o.Threads = None,
) -> None:
    """Work on a run beside others: a SLURM array, torchrun, a second terminal.

    Shards that others hold are left to them.
    """
    share, shares = _share(shard_of)
    run = _opened(folder, threads)
    with _stopping(run), _shown(run, None, None) as done:
        run.take(share, shares, done=done)
    Console(highlight=False).print(_standing(run), soft_wrap=True)


@jobs.command(epilog="Example: vaefast jobs verify run/ --share 0.02")
def verify(
    folder: Folder,
    share: Annotated[
        float, typer.Option(parser=o.number, help="Of the shards, computed again.")
    ] = 0.01,
    seed: Annotated[
        int | None, typer.Option(help="Of the choice of shards; default: another every time.")
    ] = None,
    threads: o.Threads = None,
) -> None:
    """Check all files, and compute a random share of the shards again and compare every bit."""
    found = _opened(folder, threads).verify(share, seed)
    Console(highlight=False).print(str(found), soft_wrap=True, markup=False)
    if not found.ok:
        raise ValueError(f"{folder} is not what was computed; see above")


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
    certified_at: ro.CertifiedAt = None,
    r: ro.ChosenRadii = None,
) -> None:
    """Write one page on all of a run: who is certified how far, classes, worst inputs, cost."""
    run, console = runs.open(folder), Console(highlight=False)
    said = statements(run, certified_at, ro.radii(r))
    page = report_run(run, out or folder / "report.html", said)
    for line in said:
        console.print(line, soft_wrap=True, markup=False)
    console.print(f"The report is at {page}", soft_wrap=True)


def _opened(folder: Path, threads: int | None) -> Run:
    """A run, whose kernels this process takes where it has not loaded others."""
    entries = Manifest.read(Places(folder)).entries
    if "isa" in entries and entries["isa"] != "none" and "vaefast._C" not in sys.modules:
        os.environ.setdefault("VAEFAST_ISA", entries["isa"])
    find_device("cpu", threads)
    return runs.open(folder)


def _share(text: str) -> tuple[int, int]:
    share, slash, shares = text.partition("/")
    if not (slash and share.isdecimal() and shares.isdecimal() and int(share) < int(shares)):
        raise ValueError(f"--shard-of must be I/N with I from 0 to N-1, got {text!r}")
    return int(share), int(shares)


def _work(run: Run, metrics: Path | None = None, lines: Path | None = None, **how: Any) -> None:
    console = Console(highlight=False)
    for line in run.check():
        console.print(line, soft_wrap=True, markup=False)
    with _stopping(run), _shown(run, metrics, lines) as done:
        run.work(done=done, **how)
    console.print(_standing(run), soft_wrap=True)


@contextmanager
def _shown(run: Run, metrics: Path | None, lines: Path | None) -> Iterator[Progress]:
    """A bar or lines on the console, and the files that were asked for."""
    progress = Progress(
        run.manifest.rows,
        before=snapshot(run),
        console=Console(highlight=False),
        metrics=metrics,
        lines=lines,
        name=run.folder.name,
    )
    with progress:
        yield progress


def _standing(run: Run) -> str:
    missing, total = len(run.missing()), run.manifest.shards
    if missing:
        return f"{missing} of {total} shards of {run.folder} are missing; others may hold them"
    return f"The run at {run.folder} is complete: {run.manifest.rows} rows in {total} shards"


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
