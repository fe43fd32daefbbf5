"""``vaefast attack``: one attack on the first test inputs."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple, Optional

import typer
from rich.console import Console

from vaefast import checks
from vaefast import report as reporting
from vaefast.attacks import PRESETS, Preset
from vaefast.attacks.divergences import DIVERGENCES
from vaefast.audit import AuditSettings, Stages
from vaefast.audit import stages as stage
from vaefast.audit.job import NAMES, NORMS, Job
from vaefast.cli import options as o
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
from vaefast.cli.targets import Target, find_target
from vaefast.data import Dataset
from vaefast.data.values import UNIT
from vaefast.metrics import LatentClassifier

__all__ = ["attack"]

KINDS = {"latent": "linf", "max-damage": "l2"}  # and the norm that each defaults to
DEFAULT = AuditSettings()
EPS = 0.1

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def attack(
    data: o.Data,
    model: o.Model,
    out: o.Out,
    eps: Annotated[
        Optional[float],
        typer.Option(
            parser=o.number,
            metavar="EPS",
            help="Radius of the attack, pixel scale, as in 0.1 or 8/255; default 0.1.",
        ),
    ] = None,
    kind: Annotated[
        Optional[str],
        typer.Option(metavar="latent|max-damage", help="Which attack; default: latent."),
    ] = None,
    norm: Annotated[
        Optional[str],
        typer.Option(metavar="linf|l2", help="Default: linf for latent, l2 for max-damage."),
    ] = None,
    divergence: Annotated[
        Optional[str],
        typer.Option(
            help="Latent attack: skl (default), kl_forward, kl_reverse, means, w2; or clf, the "
            "loss of a linear classifier on the latent, fitted here on the training labels as "
            "in an audit."
        ),
    ] = None,
    target: Annotated[
        Optional[str],
        typer.Option(
            metavar="FILE|CLASS",
            help="Latent attack: come close to this input (.npy, .npz, .png, .jpg; one, or one "
            "per input), or with clf to this class, a label as the data give it.",
        ),
    ] = None,
    preset: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            help=f"A published setting: {', '.join(PRESETS)}. Options given here replace its "
            "values; the strongest restart is kept.",
        ),
    ] = None,
    steps: Annotated[
        Optional[int],
        typer.Option(min=1, help=f"Gradient steps; default {DEFAULT.attack_steps}."),
    ] = None,
    restarts: Annotated[
        Optional[int], typer.Option(min=1, help=f"Random starts; default {DEFAULT.restarts}.")
    ] = None,
    alpha: Annotated[
        Optional[float],
        typer.Option(
            parser=o.number,
            metavar="STEP",
            help="Constant length of a step, pixel scale; default: steps that shrink from eps.",
        ),
    ] = None,
    inputs: o.Inputs = DEFAULT.inputs,
    limits: o.Range = None,
    low: o.Low = None,
    high: o.High = None,
    labels: o.Labels = None,
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
    """Attack the first test inputs and save an .npz.

    It holds x, x_adv, objective, perturbation_norm, failed, reasons (why each row failed, or ""),
    nonfinite_gradients (at how many steps entries counted as 0), history and, where known, y.
    """
    given = {"eps": eps, "norm": norm, "divergence": divergence, "steps": steps}
    plan = _plan(kind, preset, given | {"restarts": restarts, "alpha": alpha}, target)
    o.box(limits, low, high)  # before anything is loaded
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
        box = box_for(vae, _box(o.box(limits, low, high), preset))
        split = "labelled" if plan.classified else "never"
        images = read_data(data, console, root=data_root, box=box, labels=labels, split=split)
        x = inputs_for(vae, images.x_test[:inputs], place)
        check_fit(vae, x[:2], model, data, decoder_output)
        check_range(vae.likelihood, images, data)
        with Stages(console) as stages:
            job = Job(vae, x, AuditSettings(seed=seed), stages, images.low, images.high)
            arrays = {"x": x, **_attacked(job, plan, images, target, console)}
        if images.y_test is not None:
            arrays["y"] = images.y_test[:inputs]
        save_npz(file, arrays)
    show(console, {k: arrays[k] for k in ("objective", "perturbation_norm", "failed")}, out)
    say_failures(console, arrays["failed"], out, arrays["reasons"])


class _Plan(NamedTuple):
    """What the words of the command line come to."""

    attack: str  # "latent" or "max_damage"
    title: str
    options: dict[str, Any]  # of the attack's function
    work: int  # gradient steps per input
    classified: bool  # the divergence needs a classifier
    own_box: bool  # the preset's box stands where none is given


def _plan(kind: str | None, preset: str | None, given: dict[str, Any], target: str | None) -> _Plan:
    """The options that were given, over those of the preset or the defaults."""
    found = None if preset is None else PRESETS[checks.option(preset, "--preset", PRESETS)]
    kind = _kind(kind, preset, found)
    attack = kind.replace("-", "_")
    options = {name: value for name, value in given.items() if value is not None}
    usual = _usual(kind) if found is None else dict(found.options)
    resolved: dict[str, Any] = {"eps": EPS} | usual | options
    _check(kind, resolved, {"--divergence": given["divergence"], "--target": target})
    if found is not None and found.targeted and target is None:
        raise ValueError(f"--preset {preset} needs --target FILE, the input to come close to")
    options |= {"eps": resolved["eps"], "keep": "best"}
    return _Plan(
        attack=attack,
        title=f"{NAMES[attack]}, {NORMS[resolved['norm']]} {resolved['eps']:.3g}",
        options={**usual, **options} if found is None else {**options, "preset": preset},
        work=resolved["steps"] * resolved["restarts"],
        classified=resolved.get("divergence") == "clf",
        own_box=found is not None,
    )


def _kind(kind: str | None, preset: str | None, found: Preset | None) -> str:
    own = None if found is None else found.attack.replace("_", "-")
    kind = checks.option(kind or own or "latent", "--kind", KINDS)
    if own not in (None, kind):
        raise ValueError(
            f"--preset {preset} is for --kind {own}, got {kind}; leave one of them out"
        )
    return kind


def _usual(kind: str) -> dict[str, Any]:
    """The options of an attack without a preset, as in an audit."""
    found = {"norm": KINDS[kind], "steps": DEFAULT.attack_steps, "restarts": DEFAULT.restarts}
    return found | ({"divergence": DEFAULT.divergence} if kind == "latent" else {})


def _check(kind: str, resolved: dict[str, Any], latent_only: dict[str, Any]) -> None:
    checks.option(resolved["norm"], "--norm", NORMS)
    if kind == "latent":
        checks.option(resolved["divergence"], "--divergence", (*DIVERGENCES, "clf"))
        return
    for option, value in latent_only.items():
        if value is not None:
            raise ValueError(f"{option} is for --kind latent, got --kind {kind}")


def _box(box: dict[str, float | None], preset: str | None) -> dict[str, float | None]:
    """The box that was given, or that of the preset; a preset's [0, 1] is the model's range."""
    if preset is None or any(value is not None for value in box.values()):
        return box
    own = {name: PRESETS[preset].options.get(name) for name in ("low", "high")}
    return box if tuple(own.values()) == UNIT else own


def _attacked(
    job: Job, plan: _Plan, images: Dataset, target: str | None, console: Console
) -> dict[str, Any]:
    """The arrays of the result."""
    options = plan.options | {"seed": job.settings.seed}
    if not plan.own_box or (job.low, job.high) != (job.vae.box or UNIT):
        options |= {"low": job.low, "high": job.high}
    aim: Target | None = None
    classifier: LatentClassifier | None = None
    if plan.classified:
        if images.y_train is None:
            raise ValueError("--divergence clf needs the labels of the inputs; pass --labels FILE")
        classifier = stage.classifier(job, images)
        options["classifier"] = classifier
    if target is not None:
        aim = find_target(target, images, job.x, classifier)
        console.print(aim.note, soft_wrap=True, markup=False)
    rows = None if aim is None else aim.rows
    result = stage.search(job, plan.attack, plan.title, options, plan.work, rows)
    skipped = ("best_restart", "reproducible")
    return {k: v for k, v in vars(result).items() if k not in skipped and v is not None and v != ()}
