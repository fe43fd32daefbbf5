"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional on every Python that we support

Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="NAME|PATH",
        help="digits, mnist, fashion-mnist, cifar10, or a .npy or .npz file (keys x, optional y).",
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
Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="FILE|MODULE:CALLABLE",
        help="model.safetensors from vaefast train, or package.module:make_vae, a function "
        "without arguments that returns a VAE or a module with encode and decode.",
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
Latent = Annotated[int, typer.Option("--latent", min=1, metavar="D", help="Number of latents.")]
Epochs = Annotated[
    Optional[int],
    typer.Option("--epochs", min=1, metavar="N", help="Passes over the training set."),
]
Beta = Annotated[float, typer.Option("--beta", min=0.0, help="Weight of the KL term.")]
Likelihood = Annotated[
    Optional[str],
    typer.Option(
        "--likelihood",
        metavar="NAME",
        help="bernoulli (default), gaussian, continuous_bernoulli or clamped_bernoulli: for a "
        "model that is trained here, or for a module that make_vae returns.",
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
        metavar="R",
        help="How far (ℓ2, pixel scale) a reconstruction may move and count as unchanged; "
        "default: the 90 % quantile of its own spread.",
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", min=1, help="Monte-Carlo samples of each margin.")
]
Alpha = Annotated[
    float, typer.Option("--alpha", help="Error probability of each Clopper-Pearson bound.")
]


def radii(text: str) -> tuple[float, ...]:
    """``"0.05,0.1"`` as numbers."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--eps must be numbers as in 0.05,0.1, got {text!r}") from None
