"""``vaefast defend | certify``: the later steps of an audit singly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from rich.console import Console
from torch import Tensor

from vaefast import report as reporting
from vaefast.audit import AuditSettings, Stages, ordering
from vaefast.audit import margins as margin_stage
from vaefast.audit import stages as stage
from vaefast.audit.columns import columns, write_parquet
from vaefast.audit.job import Job
from vaefast.cli import engines as e
from vaefast.cli import options as o
from vaefast.cli import run_options as ro
from vaefast.cli.jobs import certify_in_shards, planned
from vaefast.cli.output import save_npz, say_failures, show
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
from vaefast.data.files import load_attacked
from vaefast.data.values import UNBOUNDED, UNIT, box_of
from vaefast.models import VAE

__all__ = ["certify", "defend"]

DEFAULT = AuditSettings()

AttackedData = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="As for audit, or the .npz of vaefast attack, whose x_adv are taken.",
    ),
]

AttackedInputs = Annotated[
    Optional[int],
    typer.Option(
        "--inputs",
        min=1,
        metavar="N",
        help=f"First N inputs; default all of an attack's, {DEFAULT.inputs} of other data.",
    ),
]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def defend(
    data: AttackedData,
    model: o.Model,
    out: o.Out,
    warmup: o.Warmup = DEFAULT.warmup,
    transitions: o.Transitions = DEFAULT.transitions,
    leapfrog: o.Leapfrog = DEFAULT.leapfrog,
    inputs: AttackedInputs = None,
    limits: o.Range = None,
    low: o.Low = None,
    high: o.High = None,
    data_root: o.DataRoot = None,
    likelihood: o.Likelihood = None,
    obs_std: o.ObsStd = None,
    decoder_output: o.DecoderOutput = None,
    encoder_output: o.EncoderOutput = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Sample the true posterior of attacked inputs and save what they decode to as .npz.

    It holds x (what was defended), z, reconstruction, accept_rate, divergent, failed and reasons,
    what is wrong with each row in words.
    """
    settings = AuditSettings(seed=seed, warmup=warmup, transitions=transitions, leapfrog=leapfrog)
    box = o.box(limits, low, high)
    check_suffix(out, ".npz")
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        vae = load_model(
            model,
            place,
            likelihood=likelihood,
            decoder_output=decoder_output,
            encoder_output=encoder_output,
            obs_std=obs_std,
        )
        found = _inputs(data, vae, console, root=data_root, box=box, count=inputs)
        x = inputs_for(vae, found, place)
        check_fit(vae, x[:2], model, data, decoder_output)
        with Stages(console) as stages:
            result = stage.defend(Job(vae, x, settings, stages), x, "inputs")
        arrays = {"x": x, **vars(result)}
        save_npz(file, arrays)
    show(console, {k: arrays[k] for k in ("accept_rate", "divergent", "failed")}, out)
    say_failures(console, arrays["failed"], out)


def certify(
    data: AttackedData,
    model: o.Model,
    out: o.Out,
    r: ro.Radii = None,
    band: ro.Band = False,
    samples: ro.AutoSamples = None,
    alpha: o.Alpha = DEFAULT.alpha,
    over: o.Over = str(DEFAULT.over),
    certified: ro.Certified = DEFAULT.certified,
    empirical: o.Empirical = 0,
    method: ro.Method = None,
    shard_size: ro.ShardSize = None,
    workers: ro.Workers = None,
    engine: e.Engine = "local",
    address: e.Address = None,
    cpus_per_worker: e.CpusPerWorker = None,
    gpus_per_worker: e.GpusPerWorker = None,
    wait_for_nodes: e.WaitForNodes = None,
    inputs: AttackedInputs = None,
    limits: o.Range = None,
    low: o.Low = None,
    high: o.High = None,
    data_root: o.DataRoot = None,
    likelihood: o.Likelihood = None,
    obs_std: o.ObsStd = None,
    decoder_output: o.DecoderOutput = None,
    encoder_output: o.EncoderOutput = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Estimate how likely reconstructions stay within r, and the margins that follow.

    Writes a .parquet with one row per input. margin_certified is sound, of the first --certified
    inputs where the encoder is no MLP; the other margins are first order, not a certificate. With
    --shard-size it writes the folder of a run instead: one --method, on as many inputs as there
    are, which can be stopped at any moment and goes on with vaefast jobs resume.
    """
    how = e.how(engine, address, cpus_per_worker, gpus_per_worker, wait_for_nodes)
    if any(word is not None for word in (shard_size, workers, method)) or engine != "local":
        if empirical:
            raise ValueError("--empirical is of a table; of a run it is --method empirical")
        given = {"likelihood": likelihood, "obs_std": obs_std}
        given |= {"decoder_output": decoder_output, "encoder_output": encoder_output}
        plan = planned(
            data,
            model,
            r=r,
            band=band,
            method=method,
            samples=samples,
            alpha=alpha,
            over=o.over(over),
            seed=seed,
            inputs=inputs,
            box=o.box(limits, low, high),
            model_options=given,
            shard_size=shard_size,
            device=device,
        )
        find_device(device, threads)
        return certify_in_shards(plan, out, workers=workers, **how)
    if band:
        raise ValueError("--band is of a run; add --method probability --shard-size N")
    radii = ro.radii(r)
    if len(radii) > 1:
        raise ValueError("several --r make a run; add --shard-size N, or give one")
    radius = radii[0] if radii else None
    number = ro.whole(samples, DEFAULT.samples)
    sizes: dict[str, Any] = {"over": o.over(over), "certified": certified, "empirical": empirical}
    settings = AuditSettings(seed=seed, samples=number, alpha=alpha, r=radius, **sizes)
    box = o.box(limits, low, high)
    check_suffix(out, ".parquet")
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        vae = load_model(
            model,
            place,
            likelihood=likelihood,
            decoder_output=decoder_output,
            encoder_output=encoder_output,
            obs_std=obs_std,
        )
        found = _inputs(data, vae, console, root=data_root, box=box, count=inputs)
        x = inputs_for(vae, found, place)
        check_fit(vae, x[:2], model, data, decoder_output)
        radius = radius or stage.unchanged_radius(vae, x, seed)
        notes: list[str] = []
        with Stages(console) as stages:
            job = Job(vae, x, settings, stages)
            margins = margin_stage.margins(job, radius, notes)
            values = margins.values
            if empirical:
                values["margin_empirical"] = margin_stage.empirical(job, radius, margins)
        arrays = {name: value.cpu().numpy() for name, value in values.items()}
        arrays = {"index": np.arange(len(x)), **arrays}
        images = x.ndim == 4
        notes += ordering.violations(arrays)
        sound = margins.certificate
        options: dict[str, Any] = {
            "guarantee": margins.guarantee,
            "images": images,
            "certificate": sound,
        }
        options |= {"form": margins.form, "why_form": margins.why_form}
        table = columns(arrays, {}, **options)
        write_parquet(file, table)
    show(console, values, out)
    unit = "pixel scale" if images else "data scale"
    console.print(f"r = {radius:g}, {unit}; margins: {margins.guarantee}", soft_wrap=True)
    if margins.certificate is not None:
        text = f"margin_certified: {margins.certificate}; by the {margins.form} form"
        console.print(text, soft_wrap=True)
    for note in notes:
        console.print(note, soft_wrap=True, markup=False)
    if margins.abstaining:
        console.print(margins.abstaining, soft_wrap=True)


def _inputs(
    data: str,
    vae: VAE,
    console: Console,
    *,
    root: Path | None,
    box: dict[str, float | None],
    count: int | None,
) -> Tensor:
    """All ``x_adv`` of an .npz that ``vaefast attack`` wrote, or the first test inputs of any other
    data; ``count`` is the most that are taken.
    """
    box = box_for(vae, box)
    if Path(data).suffix.lower() == ".npz":
        usual = UNIT if "bernoulli" in vae.likelihood else UNBOUNDED
        attacked = load_attacked(Path(data).expanduser(), box_of(**box) or usual)
        if attacked is not None:
            x, note = attacked
            console.print(f"data     {note}", soft_wrap=True, markup=False)
            return x[:count]
    found = read_data(data, console, root=root, box=box, split="never")
    check_range(vae.likelihood, found, data)
    return found.x_test[: count or DEFAULT.inputs]
