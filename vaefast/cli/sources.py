"""From the words of the command line to data, a model and a device."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from vaefast import checks
from vaefast.data import Dataset
from vaefast.data import load as load_data
from vaefast.models import VAE
from vaefast.models.finite_model import check_outputs
from vaefast.models.likelihoods import within_unit_interval
from vaefast.models.source import load_model

__all__ = [
    "box_for",
    "check_fit",
    "check_range",
    "check_suffix",
    "find_device",
    "inputs_for",
    "load_model",
    "read_data",
]

FILES = (
    *(".html", ".htm", ".pdf", ".json", ".txt", ".md", ".csv", ".npy", ".npz", ".parquet"),
    *(".safetensors", ".pt", ".pth", ".zip", ".png", ".jpg", ".jpeg"),
)


def read_data(
    name: str,
    console: Console,
    *,
    root: Path | None,
    box: dict[str, float | None],
    labels: str | None = None,
    split: str = "always",
) -> Dataset:
    """The data set, and on the console what there is to say about it."""
    found = load_data(name, root=root, labels=labels, split=split, **box)
    if found.note:
        console.print(f"data     {found.note}", soft_wrap=True, markup=False)
    return found


def box_for(vae: VAE, box: dict[str, float | None]) -> dict[str, float | None]:
    """The box that was given, or that of the model, where its library says one."""
    if vae.box is None or any(value is not None for value in box.values()):
        return box
    return dict(zip(("low", "high"), vae.box, strict=True))


def check_range(likelihood: str, data: Dataset, name: str) -> None:
    """A Bernoulli likelihood, of whatever kind, is one of values in [0, 1].

    Raises:
        ValueError: the data have another box; with the remedy.
    """
    low, high = data.low, data.high
    if "bernoulli" not in likelihood or (low >= 0.0 and high <= 1.0):
        return
    lowest = min(x.min().item() for x in (data.x_train, data.x_test))
    highest = max(x.max().item() for x in (data.x_train, data.x_test))
    remedy = checks.into_unit_interval("save", "x", lowest, highest)
    if lowest >= 0 and highest <= 1:
        remedy = "leave --range out"
    raise ValueError(
        f"--data {name} has values from {lowest:.4g} to {highest:.4g}, and likelihood "
        f"{likelihood!r} is for [0, 1]; {remedy}, or take a Gaussian model (--likelihood gaussian)"
    )


def check_suffix(out: Path, suffix: str) -> None:
    """``--out`` names the kind of file that the command writes; "" stands for a folder."""
    found = out.suffix.lower()
    if suffix and found not in ("", suffix):
        raise ValueError(
            f"--out {out}: this command writes {suffix}; name {out.with_suffix(suffix)}"
        )
    if not suffix and found in FILES:
        raise ValueError(f"--out {out}: an audit writes a folder; name {out.with_suffix('')}")


def find_device(name: str, threads: int | None) -> torch.device:
    """The device, once it is known to be there; sets the number of CPU threads on the way."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device must be cpu or cuda, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be cpu or cuda, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device was found; pass --device cpu")
    return device


def inputs_for(vae: VAE, x: Tensor, device: torch.device) -> Tensor:
    """``x`` on the device and in the model's dtype; half-precision models take float32."""
    like = next(vae.parameters(), x)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return x.to(device=device, dtype=dtype)


@torch.no_grad()
def check_fit(
    vae: VAE, x: Tensor, model: str, source: str, decoder_output: str | None = None
) -> None:
    """The model takes the data's inputs and gives finite natural parameters of the same shape.

    Args:
        x: [n, *event], a few inputs on the model's device and in its dtype.
        model: how the user named the model.
        source: how the user named the data.
        decoder_output: what the user said that decode returns; None leaves it to be checked.
    """
    shape, expected = list(x.shape[1:]), vae.event_shape
    if expected is not None and list(expected) != shape:
        raise ValueError(
            f"--model {model} takes inputs of shape {list(expected)}, --data {source} has {shape}"
            f"{_reshaping(shape, list(expected))}"
        )
    try:
        moments = vae.encode(x)
        out = vae.decode(moments[0])
    except Exception as error:  # the caller's code may fail in any way
        raise ValueError(
            f"--model {model} does not work on inputs of shape {shape} as --data {source} has: "
            f"{error}"
        ) from error
    _check_weights(vae, model, *moments, out)
    if decoder_output is None and vae.decoder_output == "logits" and within_unit_interval(out):
        raise ValueError(
            f"--model {model}: decode returns values in [0, 1]: pass --decoder-output "
            "probabilities (or logits to insist)"
        )


def _reshaping(shape: list[int], expected: list[int]) -> str:
    """What makes one shape of the other, where their entries are as many."""
    if len(shape) == 1 and shape[0] == expected[-1] and len(expected) > 1:
        return "; one image alone is saved as x[None]"
    if math.prod(shape) != math.prod(expected):
        return ""
    rows = ", ".join(map(str, expected))
    way = "nn.Flatten()" if len(expected) == 1 else f"nn.Unflatten(1, ({rows}))"
    return f"; save x.reshape(-1, {rows}), or let the model of make_vae begin with {way}"


def _check_weights(vae: VAE, model: str, *outputs: Tensor) -> None:
    try:
        check_outputs(vae, *outputs)
    except ValueError as error:
        raise ValueError(f"--model {model}: {error}") from error
