"""``vaefast reproduce camuto2021``: bounds of margins, and what attacks leave of them."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from vaefast.cli import options as o
from vaefast.cli.reproduce.session import Data, Experiment, Out, carry_out, size_option
from vaefast.reproduce.camuto2021.duration import measure
from vaefast.reproduce.camuto2021.findings import findings
from vaefast.reproduce.camuto2021.page import render
from vaefast.reproduce.camuto2021.run import Reproduction, check_data, open_store, run
from vaefast.reproduce.camuto2021.settings import DEFAULT, Settings
from vaefast.reproduce.camuto2021.table import as_csv

__all__ = ["command"]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def _size(text: str, name: str, full: str) -> Any:
    return size_option(text, name, DEFAULT[name], full)


def _files(found: Reproduction, command: str, origin: str) -> dict[str, str]:
    return {"results.csv": as_csv(found), "report.html": render(found, command, origin)}


EXPERIMENT = Experiment(Settings, check_data, open_store, measure, run, _files, findings)


def command(
    context: typer.Context,
    data: Data,
    out: Out,
    data_root: o.DataRoot = None,
    full: Annotated[
        bool, typer.Option("--full", help="More of everything: the published sizes are not known.")
    ] = False,
    betas: Annotated[Optional[str], _size("Of the β-VAEs, 3 or more", "betas", "the same")] = None,
    train_inputs: Annotated[
        Optional[int], _size("Training inputs (of cifar10 10000)", "train_inputs", "all")
    ] = None,
    epochs: Annotated[
        Optional[int], _size("Passes over them (cifar10: 24)", "epochs", "100")
    ] = None,
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
    carry_out(
        EXPERIMENT,
        context,
        data,
        out,
        data_root=data_root,
        full=full,
        threads=threads,
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
