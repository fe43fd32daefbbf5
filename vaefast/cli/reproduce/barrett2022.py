"""``vaefast reproduce barrett2022``: Lipschitz VAEs, certified and attacked."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from vaefast.cli import options as o
from vaefast.cli.reproduce.session import Data, Experiment, Out, carry_out, size_option
from vaefast.reproduce.barrett2022.duration import measure
from vaefast.reproduce.barrett2022.findings import findings
from vaefast.reproduce.barrett2022.page import render
from vaefast.reproduce.barrett2022.run import Reproduction, check_data, open_store, run
from vaefast.reproduce.barrett2022.settings import DEFAULT, Settings
from vaefast.reproduce.barrett2022.table import as_csv

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
        bool, typer.Option("--full", help="The published size: days on a few cores.")
    ] = False,
    constants: Annotated[
        Optional[str], _size("L of the layers, 2 or more", "constants", "the same")
    ] = None,
    std_norms: Annotated[
        Optional[str], _size("Of the models with a fixed σ, ‖σ‖₂", "std_norms", "five to 1")
    ] = None,
    radii: Annotated[
        Optional[str],
        _size("Certified radii specified upfront; rivals at the first", "radii", "the same"),
    ] = None,
    train_inputs: Annotated[Optional[int], _size("Training inputs", "train_inputs", "all")] = None,
    epochs: Annotated[Optional[int], _size("Passes over them", "epochs", "150")] = None,
    batch_size: Annotated[
        Optional[int], _size("Inputs of a training step", "batch_size", "128")
    ] = None,
    learning_rate: Annotated[
        Optional[float], _size("Of the training", "learning_rate", "0.0001")
    ] = None,
    inputs: Annotated[Optional[int], _size("Attacked inputs", "inputs", "25")] = None,
    scored: Annotated[
        Optional[int], _size("Inputs of the likelihood", "scored", "the same")
    ] = None,
    r: Annotated[Optional[float], _size("Radius in output space, ℓ2", "r", "the same")] = None,
    samples: Annotated[Optional[int], _size("Draws of a probability", "samples", "1000")] = None,
    restarts: Annotated[
        Optional[int], _size("Starts of an attack, 2 or more", "restarts", "10")
    ] = None,
    attack_steps: Annotated[
        Optional[int], _size("Gradient steps of the attacks", "attack_steps", "100")
    ] = None,
    trainings: Annotated[
        Optional[int], _size("Most trainings of a rival", "trainings", "the same")
    ] = None,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Certify and attack the models of "Certifiably robust variational autoencoders".

    Lipschitz VAEs by their constants, by ‖σ‖ and by a radius that is specified upfront, every
    attack within that radius, and rivals without constants at equal reconstruction. The folder
    --out receives results.csv, report.html, and every finished part in a file of its own: the same
    command goes on where it was interrupted, and other settings are refused.
    """
    several = {"constants": constants, "std_norms": std_norms, "radii": radii}
    given = {
        name: None if text is None else o.numbers(text, f"--{name.replace('_', '-')}")
        for name, text in several.items()
    }
    carry_out(
        EXPERIMENT,
        context,
        data,
        out,
        data_root=data_root,
        full=full,
        threads=threads,
        train_inputs=train_inputs,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        inputs=inputs,
        scored=scored,
        r=r,
        samples=samples,
        restarts=restarts,
        attack_steps=attack_steps,
        trainings=trainings,
        seed=seed,
        **given,
    )
