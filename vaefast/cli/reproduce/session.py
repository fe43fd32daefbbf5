"""What the commands of all experiments share: their common options, and how a run goes."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from vaefast.audit import Stages
from vaefast.cli.sources import check_suffix, find_device, read_data
from vaefast.data import Dataset
from vaefast.reproduce.sizes import Sized
from vaefast.reproduce.sources import mixed, said_origin
from vaefast.reproduce.store import Store
from vaefast.runtime.durable import write_whole

__all__ = ["Data", "Experiment", "Out", "carry_out", "size_option", "words"]

Data = Annotated[
    str, typer.Option("--data", metavar="NAME|PATH", help="mnist, fashion-mnist, or as for audit.")
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="A new folder, or one of an interrupted run.")
]


class Experiment(NamedTuple):
    """What carries a published experiment out.

    Args:
        settings: its class of settings.
        check_data: (data, settings), raises ValueError for data that it cannot take.
        open_store: (folder, data, settings) to the folder of the run.
        measure: (data, settings) to how long it will take, in words.
        run: (data, settings, store, stages) to what was found.
        files: (found, command line, origin of the parts) to the text of every file, by name.
        findings: found to sentences.
    """

    settings: type[Sized]
    check_data: Callable[[Dataset, Any], None]
    open_store: Callable[[Path, Dataset, Any], Store]
    measure: Callable[[Dataset, Any], object]
    run: Callable[[Dataset, Any, Store, Stages], Any]
    files: Callable[[Any, str, str], dict[str, str]]
    findings: Callable[[Any], list[str]]


def size_option(text: str, name: str, default: Any, full: str) -> Any:
    """An option that says its default, and the value of --full."""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return typer.Option(f"--{name.replace('_', '-')}", help=f"{text}; {shown}, with --full {full}.")


def words(text: str | None) -> tuple[str, ...] | None:
    """``"vae,beta-5"`` as names."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def carry_out(
    experiment: Experiment,
    context: typer.Context,
    data: str,
    out: Path,
    *,
    data_root: Path | None,
    full: bool,
    threads: int | None,
    **sizes: Any,
) -> None:
    """Check everything, run with a progress bar a stage, write the files, say what was found.

    Args:
        sizes: settings in place of the experiment's own; None leaves its own.
    """
    check_suffix(out, "")
    settings = experiment.settings.of_data(data, full=full, **sizes)
    find_device("cpu", threads)
    console = Console(highlight=False)
    images = read_data(data, console, root=data_root, box={"low": None, "high": None})
    experiment.check_data(images, settings)
    store = experiment.open_store(out, images, settings)
    if full:
        console.print(str(experiment.measure(images, settings)))
    try:
        with Stages(console) as stages:
            found = experiment.run(images, settings, store, stages)
    except KeyboardInterrupt:
        way_on = f"what is finished lies in {out}, and the same command goes on from it"
        raise KeyboardInterrupt(way_on) from None
    command = shlex.join(["vaefast", *context.obj])
    made_by = store.made_by()
    for name, text in experiment.files(found, command, said_origin(made_by)).items():
        write_whole(out / name, text.encode())
    console.print(f"\n{' '.join(experiment.findings(found))}", markup=False)
    if mixed(made_by):
        console.print(f"\n{said_origin(made_by)}", markup=False)
    console.print(f"\nThe report is at {out / 'report.html'}", soft_wrap=True)
