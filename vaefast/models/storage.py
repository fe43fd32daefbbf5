"""Models on disk: safetensors with a JSON configuration in their metadata; no pickle."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from vaefast import checks
from vaefast.models.hierarchical import HierarchicalVAE
from vaefast.models.lipschitz import LipschitzVAE
from vaefast.models.lipschitz.exported import ExportedLipschitzVAE
from vaefast.models.networks import MLPVAE, ConvVAE
from vaefast.models.vae import VAE

__all__ = ["CHECKPOINTS", "MAKE", "load", "save"]

KEY = "vaefast"
FORMAT = 1
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
ARRAYS = (".npy", ".npz", ".csv", ".parquet", ".png", ".jpg", ".jpeg")
MAKE = (
    "def make_vae(): vae = MyVAE(); vae.load_state_dict(torch.load({!r}, weights_only=True)); "
    "return vae.eval()"
)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Model = MLPVAE | ConvVAE | HierarchicalVAE | LipschitzVAE | ExportedLipschitzVAE
CLASSES: dict[str, type[Model]] = {
    "MLPVAE": MLPVAE,
    "ConvVAE": ConvVAE,
    "HierarchicalVAE": HierarchicalVAE,
    "LipschitzVAE": LipschitzVAE,
    "ExportedLipschitzVAE": ExportedLipschitzVAE,
}


def save(vae: VAE | HierarchicalVAE, path: str | os.PathLike[str]) -> None:
    """Write a model of ours to one safetensors file, from which :func:`load` makes it again.

    The file is written beside ``path`` and renamed, so that ``path`` never holds half a model.

    Args:
        vae: an :class:`MLPVAE`, :class:`ConvVAE`, :class:`HierarchicalVAE`, :class:`LipschitzVAE`
            or the ``export()`` of one.
        path: of the file; its folder must exist.

    Raises:
        TypeError: ``vae`` is another kind of module, or was changed after it was built, so that
            only its own code can rebuild it.
        ValueError: its weights are not finite or not of one dtype.
        OSError: the folder is missing or cannot be written.
    """
    name = type(vae).__name__
    if CLASSES.get(name) is not type(vae):
        raise TypeError(
            f"save takes {' or '.join(CLASSES)}, got {name}; save its state_dict() with "
            "safetensors.torch.save_file and build the model in your own make_vae()"
        )
    if isinstance(vae.obs_std, Tensor):
        raise TypeError("save takes a model whose obs_std is a number, got a tensor")
    path = Path(path)
    config = {"format": FORMAT, "class": name, "arguments": vae.config()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in vae.state_dict().items()}
    if getattr(vae, "prior", None) is not None or _structure(vae) != _structure(
        _build(path, config)
    ):
        raise TypeError(f"save takes the {name} as it was built, not with other modules or a prior")
    _check_weights(f"the {name}", tensors)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to save {path.name} in")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    try:
        beside.touch()  # with the user's own permissions; safetensors would take 0600
        mode = beside.stat().st_mode
        _write(tensors, beside, {KEY: json.dumps(config)}, path)
        beside.chmod(mode)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _write(tensors: dict[str, Tensor], beside: Path, metadata: dict[str, str], path: Path) -> None:
    try:
        save_file(tensors, beside, metadata=metadata)
    except safetensors.SafetensorError as error:  # a disk that is full, as no OSError
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{path} cannot be written: {error}") from error
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


def load(path: str | os.PathLike[str]) -> VAE:
    """Read a model that :func:`save` wrote: the same class, parameters and dtypes, in eval mode.

    Args:
        path: of the file. Reading it runs no code from it.

    Returns:
        The model, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is corrupted, foreign or of a newer format; the message says which.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the model's file in it")
    if not path.exists():
        raise FileNotFoundError(f"no model at {path}; vaefast train and models.save make one")
    metadata, tensors = _read(path)
    vae = _build(path, _config(path, metadata))
    _check_tensors(path, vae.state_dict(), tensors)
    _check_weights(str(path), tensors)
    vae.load_state_dict(tensors, assign=True)
    return vae.eval()


def _refuse_foreign(path: Path) -> None:
    """The way out for a checkpoint of torch, or for data, by the file's suffix."""
    suffix = path.suffix.lower()
    if suffix in CHECKPOINTS:
        raise ValueError(
            f"{path} is a file of weights that does not say what model they belong to; "
            f"write {MAKE.format(path.name)} and take what it returns"
        )
    if suffix in ARRAYS:
        raise ValueError(f"{path} holds data, not a model; a model is a .safetensors file of ours")


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except safetensors.SafetensorError as error:
        _refuse_foreign(path)
        raise ValueError(f"{path} is not a readable safetensors file ({error})") from None


def _config(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        raise ValueError(
            f"{path} is a safetensors file that vaefast did not write; load its tensors into your "
            "own module and wrap it with vaefast.as_vae"
        )
    try:
        config = json.loads(metadata[KEY])
        version, name, arguments = config["format"], config["class"], config["arguments"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} has a damaged configuration ({error!r})") from None
    if type(version) is int and version < 1:
        raise ValueError(f"{path} has a damaged configuration (format {version})")
    if type(version) is not int or version > FORMAT:
        raise ValueError(
            f"{path} has format {version!r}, this vaefast reads up to {FORMAT}; upgrade vaefast"
        )
    if str(name) not in CLASSES or not isinstance(arguments, dict):
        raise ValueError(f"{path} holds a {name!r}, known are {', '.join(CLASSES)}")
    return config


def _build(path: Path, config: dict[str, Any]) -> Any:
    """The model without its weights: on the meta device, so that no size can exhaust memory."""
    try:
        with torch.device("meta"):
            return CLASSES[config["class"]](**config["arguments"])
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} has a damaged configuration ({reason})") from None


def _structure(vae: VAE | HierarchicalVAE) -> list[Any]:
    """All that decides what a model computes from its weights."""
    layers = [(name, type(layer), layer.extra_repr()) for name, layer in vae.named_modules()]
    shapes = sorted((key, tuple(value.shape)) for key, value in vae.state_dict().items())
    return [layers, shapes, vae.likelihood, vae.obs_std, getattr(vae, "decoder_output", None)]


def _check_weights(owner: str, tensors: dict[str, Tensor]) -> None:
    """One of the floating dtypes that models have, and finite values."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        names, found = (", ".join(sorted(map(checks.short, kinds))) for kinds in (DTYPES, dtypes))
        raise ValueError(f"{owner} must have weights of one dtype of {names}, got {found}")
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{owner} must have finite weights, {key!r} holds NaN or infinity")


def _check_tensors(path: Path, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    missing, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} tensors of its model, first {missing[0]!r}")
    if surplus:
        raise ValueError(f"{path} has {len(surplus)} tensors too many, first {surplus[0]!r}")
    for key, tensor in found.items():
        if tensor.shape != wanted[key].shape or not tensor.is_floating_point():
            raise ValueError(
                f"{path}: tensor {key!r} must be floating {list(wanted[key].shape)}, "
                f"got {tensor.dtype} {list(tensor.shape)}"
            )
