"""From the words of the command line to data, a model and a device."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaefast import checks, models
from vaefast.data import Dataset
from vaefast.models import VAE
from vaefast.models.likelihoods import within_unit_interval

__all__ = ["check_fit", "check_images", "find_device", "inputs_for", "load_model"]

FAMILIES = "a .safetensors file of vaefast train, or package.module:callable"


def check_images(found: Dataset, name: str) -> Dataset:
    """Images are needed where pictures are shown and compared."""
    shape = list(found.x_test.shape[1:])
    if len(shape) != 3:
        raise ValueError(
            f"--data {name} must hold images [n, H, W] or [n, C, H, W] for an audit, got inputs of "
            f"shape {shape}; reshape x, and flatten it again inside the model"
        )
    return found


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


def load_model(
    spec: str, device: torch.device, *, likelihood: str | None, decoder_output: str | None
) -> VAE:
    """The model that ``--model`` names, on ``device``.

    Raises:
        ValueError, TypeError, FileNotFoundError: one line that says what failed.
    """
    path = Path(spec)
    if path.exists() or path.suffix == ".safetensors":
        if not path.is_file():
            raise FileNotFoundError(f"--model {spec}: there is no such file; give {FAMILIES}")
        module: nn.Module = models.load(path)
    elif ":" in spec:
        module = _call(spec)
    else:
        raise FileNotFoundError(f"--model {spec}: there is no such file; give {FAMILIES}")
    options = {"likelihood": likelihood, "decoder_output": decoder_output}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        vae = models.as_vae(module, **given)
        checks.eval_mode(vae)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"--model {spec}: {error}") from error
    return vae.to(device)


def _call(spec: str) -> Any:
    """What ``package.module:callable`` returns; the current folder is importable."""
    name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _attempt(f"--model {spec}: importing {name}", lambda: importlib.import_module(name))
    make = getattr(module, attribute, None)
    if not callable(make):
        what = "has no" if make is None else "has a value, not a function, under"
        raise ValueError(f"--model {spec}: {name} {what} {attribute!r}")
    return _attempt(f"--model {spec}: {attribute}()", make)


def _attempt(what: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} failed with {type(error).__name__}: {error}") from error


def inputs_for(vae: VAE, x: Tensor, device: torch.device) -> Tensor:
    """``x`` on the device and in the model's dtype; half-precision models take float32."""
    like = next(vae.parameters(), x)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return x.to(device=device, dtype=dtype)


@torch.no_grad()
def check_fit(
    vae: VAE, x: Tensor, model: str, source: str, decoder_output: str | None = None
) -> None:
    """The model takes the data's inputs and gives natural parameters of the same shape.

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
        )
    try:
        out = vae.decode(vae.encode(x)[0])
    except Exception as error:  # the caller's code may fail in any way
        raise ValueError(
            f"--model {model} does not work on inputs of shape {shape} as --data {source} has: "
            f"{error}"
        ) from error
    if decoder_output is None and vae.decoder_output == "logits" and within_unit_interval(out):
        raise ValueError(
            f"--model {model}: decode returns values in [0, 1]: pass --decoder-output "
            "probabilities (or logits to insist)"
        )
