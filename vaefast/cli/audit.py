"""``vaefast audit``: train if need be, then attack, defend, measure, certify and report."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from vaefast import models
from vaefast import report as reporting
from vaefast.audit import AuditSettings, Stages, run
from vaefast.cli import options as o
from vaefast.cli import run_options as ro
from vaefast.cli.sources import (
    box_for,
    check_fit,
    check_range,
    check_suffix,
    find_device,
    inputs_for,
    load_model,
    read_data,
)
from vaefast.cli.train import build, check_likelihood, fit

__all__ = ["audit"]

DEFAULT = AuditSettings()

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def audit(
    context: typer.Context,
    data: o.Data,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the report, a new one.")
    ],
    data_root: o.DataRoot = None,
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            metavar="FILE|SOURCE:CALLABLE",
            help="model.safetensors, package.module:make_vae or file.py:make_vae. Without it, one "
            "is trained.",
        ),
    ] = None,
    limits: o.Range = None,
    low: o.Low = None,
    high: o.High = None,
    labels: o.Labels = None,
    inputs: o.Inputs = DEFAULT.inputs,
    force: o.Force = False,
    seed: o.Seed = DEFAULT.seed,
    eps: Annotated[
        str,
        typer.Option(
            metavar="E1,E2,...",
            help="Attack radii per pixel, as in 0.1 or 8/255: the ℓ∞ radius, and the ℓ2 radius "
            "divided by √D.",
        ),
    ] = ",".join(map(str, DEFAULT.eps)),
    divergence: Annotated[
        str, typer.Option(help="Latent attack: skl, kl_forward, kl_reverse, means or w2.")
    ] = DEFAULT.divergence,
    steps: o.Steps = DEFAULT.attack_steps,
    restarts: o.Restarts = DEFAULT.restarts,
    warmup: o.Warmup = DEFAULT.warmup,
    transitions: o.Transitions = DEFAULT.transitions,
    leapfrog: o.Leapfrog = DEFAULT.leapfrog,
    r: o.Radius = None,
    samples: o.Samples = DEFAULT.samples,
    alpha: o.Alpha = DEFAULT.alpha,
    over: o.Over = str(DEFAULT.over),
    certified: ro.Certified = DEFAULT.certified,
    empirical: o.Empirical = DEFAULT.empirical,
    architecture: o.Architecture = "mlp",
    latent: o.Latent = 16,
    epochs: o.Epochs = None,
    beta: o.Beta = 1.0,
    likelihood: o.Likelihood = None,
    obs_std: o.ObsStd = None,
    decoder_output: o.DecoderOutput = None,
    encoder_output: o.EncoderOutput = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Attack, defend, measure and certify a VAE, and write a report with pictures and numbers.

    Without --model a VAE is trained first. The folder --out receives report.html, one file for a
    browser; results.parquet, one row per input; summary.json, settings and aggregates; and the
    model if it was trained here. The numbers repeat for the same --seed, machine, versions and
    --threads.
    """
    settings = AuditSettings(
        inputs=inputs,
        seed=seed,
        eps=o.numbers(eps, "--eps"),
        divergence=divergence,
        attack_steps=steps,
        restarts=restarts,
        warmup=warmup,
        transitions=transitions,
        leapfrog=leapfrog,
        r=r,
        samples=samples,
        alpha=alpha,
        over=o.over(over),
        certified=certified,
        empirical=empirical,
    )
    if model is not None:
        _refuse_training_options(context)
    box = o.box(limits, low, high)
    check_suffix(out, "")
    console = Console(highlight=False)
    with reporting.new_folder(out, force=force) as folder:
        place = find_device(device, threads)
        read = partial(read_data, data, console, root=data_root, labels=labels)
        if model is None:
            images = read(box=box)
            likelihood = check_likelihood(likelihood, obs_std, images, data)
            vae = build(architecture, images, latent, likelihood, obs_std, seed).to(place)
            facts, timing = fit(vae, images, console, epochs=epochs, beta=beta, seed=seed)
            models.save(vae, folder / "model.safetensors")
            timings = [timing]
        else:
            vae = load_model(
                model,
                place,
                likelihood=likelihood,
                decoder_output=decoder_output,
                encoder_output=encoder_output,
                obs_std=obs_std,
            )
            images = read(box=box_for(vae, box), split="labelled")
            x = inputs_for(vae, images.x_test[:2], place)
            check_fit(vae, x, model, data, decoder_output)
            check_range(vae.likelihood, images, data)
            facts, timings = {"source": model}, []
        with Stages(console, timings) as stages:
            result = run(vae, images, settings, stages)
        facts = reporting.describe_model(vae) | facts
        command = shlex.join(["vaefast", *context.obj])
        summary = reporting.write_report(result, folder, model=facts, command=command)
    numbers = summary["numbers"]
    for finding in reporting.findings(numbers):
        console.print(f"\n{finding}", markup=False)
    console.print(f"\nThe report is at {out / 'report.html'}", soft_wrap=True)
    if numbers["failed"] == numbers["inputs"]:
        raise ValueError(f"all {numbers['inputs']} inputs failed; the report at {out} says so")


def _refuse_training_options(context: typer.Context) -> None:
    for name in ("architecture", "latent", "epochs", "beta"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(
                f"--{name} trains a model and --model names one; leave one of them out"
            )
