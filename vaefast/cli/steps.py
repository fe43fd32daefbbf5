"""``vaefast attack | defend | certify``: the steps of an audit singly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from vaefast import checks
from vaefast import report as reporting
from vaefast.audit import AuditSettings, Stages
from vaefast.audit import stages as stage
from vaefast.audit.columns import columns, write_parquet
from vaefast.cli import options as o
from vaefast.cli.sources import check_fit, find_device, inputs_for, load_model
from vaefast.data import load as load_data
from vaefast.data.files import load_attacked
from vaefast.models import VAE

__all__ = ["attack", "certify", "defend"]

DEFAULT = AuditSettings()
KINDS = {"latent": "linf", "max-damage": "l2"}  # and the norm that each defaults to

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def attack(
    data: o.Data,
    model: o.Model,
    out: o.Out,
    eps: Annotated[float, typer.Option(help="Radius of the attack, pixel scale.")] = 0.1,
    kind: Annotated[
        str, typer.Option(metavar="latent|max-damage", help="Which attack.")
    ] = "latent",
    norm: Annotated[
        Optional[str],
        typer.Option(metavar="linf|l2", help="Default: linf for latent, l2 for max-damage."),
    ] = None,
    divergence: Annotated[
        str, typer.Option(help="Latent attack: skl, kl_forward, kl_reverse, means or w2.")
    ] = "skl",
    steps: o.Steps = DEFAULT.attack_steps,
    restarts: o.Restarts = DEFAULT.restarts,
    inputs: o.Inputs = DEFAULT.inputs,
    data_root: o.DataRoot = None,
    likelihood: o.Likelihood = None,
    decoder_output: o.DecoderOutput = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Attack the first test inputs and save an .npz.

    It holds x, x_adv, objective, perturbation_norm, failed, history and, where known, y.
    """
    checks.option(kind, "--kind", KINDS)
    norm = checks.option(norm or KINDS[kind], "--norm", ("linf", "l2"))
    plan = stage.Plan(kind.replace("-", "_"), norm, eps, eps)
    settings = AuditSettings(
        seed=seed, divergence=divergence, attack_steps=steps, restarts=restarts
    )
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        images = load_data(data, root=data_root)
        vae = load_model(model, place, likelihood=likelihood, decoder_output=decoder_output)
        x = inputs_for(vae, images.x_test[:inputs], place)
        check_fit(vae, x[:2], model, data, decoder_output)
        with Stages(console) as stages:
            result = stage.attack(stage.Job(vae, x, settings, stages), plan).result
        arrays = {"x": x, "x_adv": result.x_adv, "objective": result.objective}
        arrays |= {"perturbation_norm": result.perturbation_norm, "failed": result.failed}
        if result.history is not None:
            arrays["history"] = result.history
        if images.y_test is not None:
            arrays["y"] = images.y_test[:inputs]
        save_npz(file, arrays)
    show(console, {k: arrays[k] for k in ("objective", "perturbation_norm", "failed")}, out)


def defend(
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="NAME|PATH", help="As for audit, or the .npz of vaefast attack."
        ),
    ],
    model: o.Model,
    out: o.Out,
    warmup: o.Warmup = DEFAULT.warmup,
    transitions: o.Transitions = DEFAULT.transitions,
    leapfrog: o.Leapfrog = DEFAULT.leapfrog,
    inputs: o.Inputs = DEFAULT.inputs,
    data_root: o.DataRoot = None,
    likelihood: o.Likelihood = None,
    decoder_output: o.DecoderOutput = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Sample the true posterior of attacked images and save what they decode to as .npz.

    It holds x (what was defended), z, reconstruction, accept_rate, divergent and failed.
    """
    settings = AuditSettings(seed=seed, warmup=warmup, transitions=transitions, leapfrog=leapfrog)
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        vae = load_model(model, place, likelihood=likelihood, decoder_output=decoder_output)
        images = images_to_defend(data, data_root, vae)
        x = inputs_for(vae, images[:inputs], place)
        check_fit(vae, x[:2], model, data, decoder_output)
        with Stages(console) as stages:
            result = stage.defend(stage.Job(vae, x, settings, stages), x, "inputs")
        arrays = {"x": x, **vars(result)}
        save_npz(file, arrays)
    show(console, {k: arrays[k] for k in ("accept_rate", "divergent", "failed")}, out)


def certify(
    data: o.Data,
    model: o.Model,
    out: o.Out,
    r: o.Radius = None,
    samples: o.Samples = DEFAULT.samples,
    alpha: o.Alpha = DEFAULT.alpha,
    inputs: o.Inputs = DEFAULT.inputs,
    data_root: o.DataRoot = None,
    likelihood: o.Likelihood = None,
    decoder_output: o.DecoderOutput = None,
    seed: o.Seed = 0,
    force: o.Force = False,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Estimate how likely reconstructions stay within r, and the margins that follow.

    Writes a .parquet with one row per input. The margins are first order, not a certificate.
    """
    settings = AuditSettings(seed=seed, samples=samples, alpha=alpha, r=r)
    console = Console(highlight=False)
    with reporting.new_file(out, force=force) as file:
        place = find_device(device, threads)
        images = load_data(data, root=data_root)
        vae = load_model(model, place, likelihood=likelihood, decoder_output=decoder_output)
        x = inputs_for(vae, images.x_test[:inputs], place)
        check_fit(vae, x[:2], model, data, decoder_output)
        r = r or stage.unchanged_radius(vae, x, seed)
        with Stages(console) as stages:
            found = stage.margins(stage.Job(vae, x, settings, stages), r)
        arrays = {name: value.cpu().numpy() for name, value in found.values.items()}
        arrays = {"index": np.arange(len(x)), **arrays}
        write_parquet(file, columns(arrays, {}, guarantee=found.guarantee))
    show(console, found.values, out)
    console.print(f"r = {r:g}, pixel scale; margins: {found.guarantee}", soft_wrap=True)


def images_to_defend(data: str, root: Path | None, vae: VAE) -> Tensor:
    """``x_adv`` of an .npz that ``vaefast attack`` wrote, or the test inputs of any other data."""
    if data.endswith(".npz"):
        path = Path(data).expanduser()
        attacked = load_attacked(path, unit_interval=vae.likelihood != "gaussian")
        if attacked is not None:
            return attacked
    return load_data(data, root=root).x_test


def save_npz(file: Path, tensors: dict[str, Tensor]) -> None:
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    with file.open("wb") as stream:
        np.savez(stream, **arrays)


def show(console: Console, values: dict[str, Tensor], out: Path) -> None:
    """Median and range of every column, and where the file is."""
    table = Table("", "median", "smallest", "largest", box=None, pad_edge=False)
    for name, value in values.items():
        found = value[~value.isnan()].double().cpu().numpy()
        cells = (np.median(found), found.min(), found.max()) if len(found) else ()
        table.add_row(name.replace("_", " "), *(f"{cell:.4g}" for cell in cells))
    console.print(table)
    console.print(f"The results are at {out}", soft_wrap=True)
