"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def number(text: str | float) -> float:
    """``"0.1"`` or ``"8/255"`` as a number; an option's default is one already."""
    top, slash, bottom = str(text).partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if value != value:
        raise typer.BadParameter(f"must be a number or a fraction as in 8/255, got {text!r}")
    return value


def over(text: str) -> str | int:
    """``--over`` as certify takes it."""
    return int(text) if text.isdecimal() else text


def numbers(text: str, option: str) -> tuple[float, ...]:
    """``"0.05,8/255"`` as numbers."""
    try:
        return tuple(number(part) for part in text.split(","))
    except typer.BadParameter as error:
        raise ValueError(f"{option} {error.message}") from None


def box(limits: str | None, low: float | None, high: float | None) -> dict[str, float | None]:
    """``--range LOW,HIGH`` or ``--low`` and ``--high`` as the arguments of a data set."""
    if limits is None:
        return {"low": low, "high": high}
    if low is not None or high is not None:
        raise ValueError("--range is --low and --high in one; leave one of them out")
    ends = numbers(limits, "--range")
    if len(ends) != 2:
        raise ValueError(f"--range must be two numbers as in -1,1, got {limits!r}")
    return {"low": ends[0], "high": ends[1]}


def settings(text: str | None, option: str) -> dict[str, int | float | str]:
    """``"eps=8/255,steps=5,norm=l2"`` as numbers, whole where they are written so, or words."""
    found: dict[str, int | float | str] = {}
    for part in (text or "").split(",") if text else ():
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals and value) or name in found:
            raise ValueError(f"{option} must be NAME=VALUE,... with each name once, got {text!r}")
        found[name] = _setting(value)
    return found


def _setting(value: str) -> int | float | str:
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return number(value)
    except typer.BadParameter:
        return value


Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="digits, mnist, fashion-mnist, cifar10; an .npy or .npz file (keys x or x_train, "
        "optional y, x_test, y_test); a .csv or .parquet of numeric columns; or a folder of PNG "
        "or JPEG images (sub-folders are labels).",
    ),
]
DataRoot = Annotated[
    Optional[Path],
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Folder that holds MNIST/raw, FashionMNIST/raw or cifar-10-batches-py.",
    ),
]
Range = Annotated[
    Optional[str],
    typer.Option(
        "--range",
        metavar="LOW,HIGH",
        help="Smallest and largest valid entry of an input; default the model's, where its library "
        "says it, else 0,1. Floats must lie in it, "
        "uint8 images and known sets are mapped to it; an attack stays in it.",
    ),
]
Low = Annotated[
    Optional[float],
    typer.Option("--low", parser=number, metavar="V", help="Smallest valid entry, as --range."),
]
High = Annotated[
    Optional[float],
    typer.Option("--high", parser=number, metavar="V", help="Largest valid entry, as --range."),
]
Labels = Annotated[
    Optional[str],
    typer.Option(
        "--labels",
        metavar="FILE",
        help="One label per input, those of a test set last: .npy, .txt, .npz[:key], "
        ".csv[:column] or .parquet[:column]. Numbers, or text whose names the report keeps.",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="FILE|SOURCE:CALLABLE",
        help="model.safetensors from vaefast train; or package.module:make_vae or "
        "file.py:make_vae, a function without arguments that returns a VAE or a module with "
        "encode and decode.",
    ),
]
Inputs = Annotated[int, typer.Option("--inputs", min=1, metavar="N", help="First N test inputs.")]
Out = Annotated[Path, typer.Option("--out", metavar="PATH", help="What to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        help="Seed of every random number; the numbers repeat for the same seed, machine, versions "
        "and --threads.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where to compute.")]
Threads = Annotated[
    Optional[int],
    typer.Option("--threads", min=1, metavar="N", help="CPU threads; default: PyTorch's choice."),
]
Architecture = Annotated[
    str, typer.Option("--architecture", metavar="mlp|conv", help="Network to train.")
]
AnyArchitecture = Annotated[
    str,
    typer.Option(
        "--architecture",
        metavar="mlp|conv|hierarchical",
        help="Network to train; hierarchical has latents in groups, the top one of --latent "
        "numbers.",
    ),
]
Groups = Annotated[
    Optional[int],
    typer.Option(
        "--groups",
        min=2,
        max=5,
        metavar="K",
        help="Groups of latents of --architecture hierarchical; default 3.",
    ),
]
Latent = Annotated[int, typer.Option("--latent", min=1, metavar="D", help="Number of latents.")]
Epochs = Annotated[
    Optional[int],
    typer.Option("--epochs", min=1, metavar="N", help="Passes over the training set."),
]
Objective = Annotated[
    Optional[str],
    typer.Option(
        "--objective",
        metavar="NAME",
        help="What training minimises: elbo; beta (default) weighs the KL term, tcvae the total "
        "correlation of the latents; mixup, smooth, avae, fisher and adversarial protect as well "
        "(docs/training.md); seatbelt weighs the total correlation of a hierarchical model.",
    ),
]
ObjectiveOptions = Annotated[
    Optional[str],
    typer.Option(
        "--objective-options",
        metavar="NAME=V,...",
        help="Settings of the objective beside --beta, as in eps=0.2,steps=10 for smooth.",
    ),
]
Patience = Annotated[
    Optional[int],
    typer.Option(
        "--patience",
        min=1,
        metavar="N",
        help="Stop after N epochs without a lower validation loss, and keep the weights of the "
        "epoch with the lowest.",
    ),
]
Beta = Annotated[
    float,
    typer.Option("--beta", min=0.0, help="Weight of the KL term, or of the total correlation."),
]
Checkpoint = Annotated[
    Optional[Path],
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="File that the run is kept in and goes on from; default OUT.checkpoint, which is "
        "removed at the end.",
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option("--checkpoint-minutes", min=0.0, metavar="N", help="Minutes between two writes."),
]
Likelihood = Annotated[
    Optional[str],
    typer.Option(
        "--likelihood",
        metavar="NAME",
        help="bernoulli (default), gaussian, continuous_bernoulli or clamped_bernoulli: for a "
        "model that is trained here, or for a module that make_vae returns.",
    ),
]
ObsStd = Annotated[
    Optional[float],
    typer.Option(
        "--obs-std",
        parser=number,
        metavar="STD",
        help="Standard deviation of the Gaussian likelihood, pixel scale; default 1.",
    ),
]
DecoderOutput = Annotated[
    Optional[str],
    typer.Option(
        "--decoder-output",
        metavar="logits|probabilities|mean",
        help="What decode of the module that make_vae returns gives.",
    ),
]
EncoderOutput = Annotated[
    Optional[str],
    typer.Option(
        "--encoder-output",
        metavar="logvar|std|var|logstd",
        help="What encode of the module that make_vae returns gives beside the mean.",
    ),
]
Warmup = Annotated[
    int, typer.Option("--warmup", min=0, help="HMC transitions that adapt the step.")
]
Transitions = Annotated[
    int, typer.Option("--transitions", min=1, help="HMC transitions after the warm-up.")
]
Leapfrog = Annotated[int, typer.Option("--leapfrog", min=1, help="Leapfrog steps per transition.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Gradient steps of each attack.")]
Restarts = Annotated[int, typer.Option("--restarts", min=1, help="Random starts of each attack.")]
Radius = Annotated[
    Optional[float],
    typer.Option(
        "--r",
        parser=number,
        metavar="R",
        help="How far (ℓ2, pixel scale) a reconstruction may move and count as unchanged; "
        "default: the 90 % quantile of its own spread.",
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", min=1, help="Monte-Carlo samples of each margin.")
]
Alpha = Annotated[
    float,
    typer.Option("--alpha", parser=number, help="Error probability of each Clopper-Pearson bound."),
]
Over = Annotated[
    str,
    typer.Option(
        "--over",
        metavar="input|run|N",
        help="Whose error probability alpha is: each input's, that of all inputs of this run "
        "together, or of a larger run of N inputs that these belong to.",
    ),
]
Empirical = Annotated[
    int,
    typer.Option(
        "--empirical",
        min=0,
        metavar="N",
        help="First N inputs that are searched for the smallest break, beside which the certified "
        "margins stand; up to 1,500 gradient steps each.",
    ),
]
