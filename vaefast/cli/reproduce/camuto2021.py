"""``vaefast reproduce camuto2021``: bounds of margins, and what attacks leave of them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

from vaefast.cli import options as o
from vaefast.cli.reproduce.session import finish, interruptible, size_option
from vaefast.cli.sources import check_suffix, find_device, read_data
from vaefast.reproduce.camuto2021.duration import measure
from vaefast.reproduce.camuto2021.findings import findings
from vaefast.reproduce.camuto2021.page import render
from vaefast.reproduce.camuto2021.run import check_data, open_store, run
from vaefast.reproduce.camuto2021.settings import DEFAULT, Settings
from vaefast.reproduce.camuto2021.table import as_csv

__all__ = ["command"]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def _size(text: str, name: str, full: str) -> Any:
    return size_option(text, name, DEFAULT[name], full)


def command(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option("--data", metavar="NAME|PATH", help="mnist, fashion-mnist, or as for audit."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="A new folder, or one of an interrupted run."),
    ],
    data_root: o.DataRoot = None,
    full: Annotated[
        bool, typer.Option("--full", help="More of everything: the published sizes are not known.")
    ] = False,
    betas: Annotated[Optional[str], _size("Of the β-VAEs, 3 or more", "betas", "the same")] = None,
    train_inputs: Annotated[Optional[int], _size("Training inputs", "train_inputs", "all")] = None,
    epochs: Annotated[Optional[int], _size("Passes over them", "epochs", "100")] = None,
    inputs: Annotated[Optional[int], _size("Attacked inputs", "inputs", "512")] = None,
    r: Annotated[Optional[float], _size("Radius in output space, ℓ2", "r", "the same")] = None,
    samples: Annotated[Optional[int], _size("Draws of a probability", "samples", "20000")] = None,
    restarts: Annotated[Optional[int], _size("Starts of an attack", "restarts", "10")] = None,
    attack_steps: Annotated[
        Optional[int], _size("Gradient steps of the attacks", "attack_steps", "100")
    ] = None,
    eps: Annotated[
        Optional[float], _size("Radius of the attack on the likelihood, ℓ2", "eps", "the same")
    ] = None,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Bound and attack margins as "Towards a theoretical understanding of the robustness of VAEs".

    β-VAEs, the published bound and its whitened form at each input, the smallest perturbation that
    an attack breaks it with, and the loss of likelihood. The folder --out receives results.csv,
    report.html, and every finished part in a file of its own: the same command goes on where it
    was interrupted, and other settings are refused.
    """
    check_suffix(out, "")
    settings = Settings.of_data(
        data,
        full=full,
        betas=None if betas is None else o.numbers(betas, "--betas"),
        train_inputs=train_inputs,
        epochs=epochs,
        inputs=inputs,
        r=r,
        samples=samples,
        restarts=restarts,
        attack_steps=attack_steps,
        eps=eps,
        seed=seed,
    )
    find_device("cpu", threads)
    console = Console(highlight=False)
    images = read_data(data, console, root=data_root, box={"low": None, "high": None})
    check_data(images, settings)
    store = open_store(out, images, settings)
    if full:
        console.print(measure(images, settings))
    found = interruptible(out, console, lambda stages: run(images, settings, store, stages))
    page = render(found, shlex.join(["vaefast", *context.obj]))
    finish(out, console, {"results.csv": as_csv(found), "report.html": page}, findings(found))
