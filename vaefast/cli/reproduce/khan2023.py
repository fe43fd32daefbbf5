"""``vaefast reproduce khan2023``: scores of the pullback metric, damage, and mixup."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from vaefast.cli import options as o
from vaefast.cli.reproduce.session import Data, Experiment, Out, carry_out, size_option
from vaefast.reproduce.khan2023.duration import measure
from vaefast.reproduce.khan2023.findings import findings
from vaefast.reproduce.khan2023.page import render
from vaefast.reproduce.khan2023.run import Reproduction, check_data, open_store, run
from vaefast.reproduce.khan2023.settings import DEFAULT, Settings
from vaefast.reproduce.khan2023.table import as_csv

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
        bool, typer.Option("--full", help="The published size: hours on a few cores.")
    ] = False,
    betas: Annotated[
        Optional[str], _size("Of the β-VAEs, 1 among them", "betas", "50 from 0.01 to 10")
    ] = None,
    train_inputs: Annotated[
        Optional[int], _size("Training inputs (of cifar10 10000)", "train_inputs", "all")
    ] = None,
    epochs: Annotated[
        Optional[int], _size("Passes over them (cifar10: 24)", "epochs", "100")
    ] = None,
    inputs: Annotated[Optional[int], _size("Scored inputs", "inputs", "3072")] = None,
    attacked: Annotated[Optional[int], _size("Attacked inputs", "attacked", "512")] = None,
    eps: Annotated[Optional[float], _size("Radius of the attacks, ℓ2", "eps", "the same")] = None,
    attack_steps: Annotated[
        Optional[int], _size("Gradient steps of the attacks", "attack_steps", "the same")
    ] = None,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Score and attack the models of "Robustness of VAEs through the lens of local geometry".

    β-VAEs from 0.01 to 10 and a mixup model, the spectra of their encoders' pullback metric, the
    damage along its directions and of the strongest attack. The folder --out receives results.csv,
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
        attacked=attacked,
        eps=eps,
        attack_steps=attack_steps,
        seed=seed,
    )
