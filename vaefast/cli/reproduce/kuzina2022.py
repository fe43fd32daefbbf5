"""``vaefast reproduce kuzina2022``: the grid of attacks and the HMC defence."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from vaefast.cli import options as o
from vaefast.cli.reproduce.session import Data, Experiment, Out, carry_out, size_option, words
from vaefast.reproduce.kuzina2022.duration import measure
from vaefast.reproduce.kuzina2022.findings import findings
from vaefast.reproduce.kuzina2022.page import render
from vaefast.reproduce.kuzina2022.run import Reproduction, check_data, open_store, run
from vaefast.reproduce.kuzina2022.settings import DEFAULT, Settings
from vaefast.reproduce.kuzina2022.table import as_csv

__all__ = ["command"]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def _size(text: str, name: str, full: str) -> Any:
    return size_option(text, name, DEFAULT[name], full)


def _files(found: Reproduction, command: str, origin: str) -> dict[str, str]:
    bound = {} if found.bound is None else {"tv-bound.csv": found.bound.as_csv()}
    return {"results.csv": as_csv(found), **bound, "report.html": render(found, command, origin)}


EXPERIMENT = Experiment(Settings, check_data, open_store, measure, run, _files, findings)


def command(
    context: typer.Context,
    data: Data,
    out: Out,
    data_root: o.DataRoot = None,
    full: Annotated[
        bool, typer.Option("--full", help="The published size: days on a few cores.")
    ] = False,
    models: Annotated[
        Optional[str],
        _size("Of vae, beta-WEIGHT, tcvae-WEIGHT", "models", "vae and 2, 5, 10 of both"),
    ] = None,
    radii: Annotated[Optional[str], _size("Attack radii, ℓ∞", "radii", "the same")] = None,
    train_inputs: Annotated[Optional[int], _size("Training inputs", "train_inputs", "all")] = None,
    epochs: Annotated[Optional[int], _size("Passes over them", "epochs", "300")] = None,
    batch_size: Annotated[
        Optional[int], _size("Inputs of a training step", "batch_size", "128")
    ] = None,
    learning_rate: Annotated[
        Optional[float], _size("Of the training", "learning_rate", "0.0005")
    ] = None,
    references: Annotated[Optional[int], _size("Attacked inputs", "references", "50")] = None,
    restarts: Annotated[Optional[int], _size("Attacks on each", "restarts", "10")] = None,
    attack_steps: Annotated[
        Optional[int], _size("Steps of the published attack", "attack_steps", "50")
    ] = None,
    transitions: Annotated[
        Optional[int],
        _size("T of the defence, half as many before them", "transitions", "500, Fashion 1000"),
    ] = None,
    adaptive_steps: Annotated[
        Optional[int], _size("Steps of the adaptive attack", "adaptive_steps", "50")
    ] = None,
    adaptive_transitions: Annotated[
        Optional[int],
        _size("Transitions that it goes through", "adaptive_transitions", "the same"),
    ] = None,
    adaptive_chains: Annotated[
        Optional[int], _size("Chains of each of its gradients", "adaptive_chains", "4")
    ] = None,
    gradients: Annotated[
        Optional[str], _size("Its gradients", "gradients", "chain,posterior,spsa")
    ] = None,
    bound_references: Annotated[
        Optional[int],
        _size("Inputs whose total-variation bound is computed", "bound_references", "the same"),
    ] = None,
    seed: o.Seed = 0,
    threads: o.Threads = None,
) -> None:
    """Attack and defend the models of "Alleviating adversarial attacks on VAEs with MCMC".

    VAE, β-VAE and β-TCVAE on the published convolutional network, the published attack, the HMC
    defence, and an attack that goes through it. The folder --out receives results.csv,
    tv-bound.csv, report.html, and every finished part in a file of its own: the same command goes
    on where it was interrupted, and other settings are refused.
    """
    given: dict[str, Any] = {
        name: words(value) for name, value in (("models", models), ("gradients", gradients))
    }
    given |= {"radii": None if radii is None else o.numbers(radii, "--radii")}
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
        references=references,
        restarts=restarts,
        attack_steps=attack_steps,
        transitions=transitions,
        adaptive_steps=adaptive_steps,
        adaptive_transitions=adaptive_transitions,
        adaptive_chains=adaptive_chains,
        bound_references=bound_references,
        seed=seed,
        **given,
    )
