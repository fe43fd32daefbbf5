"""A model by name: a file of ours, or a function that makes one."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vaefast import checks
from vaefast.models.storage import CHECKPOINTS, MAKE, load
from vaefast.models.vae import VAE
from vaefast.models.wrapping import as_vae

__all__ = ["load_model"]

FAMILIES = "a .safetensors file of vaefast train, package.module:make_vae or file.py:make_vae"


def load_model(
    spec: str,
    device: torch.device,
    *,
    likelihood: str | None,
    decoder_output: str | None,
    encoder_output: str | None = None,
    obs_std: float | None = None,
) -> VAE:
    """The model that ``--model`` names, on ``device``.

    Raises:
        ValueError, TypeError, FileNotFoundError: one line that says what failed.
    """
    options = {"likelihood": likelihood, "obs_std": obs_std}
    options |= {"decoder_output": decoder_output, "encoder_output": encoder_output}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    module = _module(spec)
    try:
        vae = as_vae(module, **given)
        checks.eval_mode(vae)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"--model {spec}: {error}") from error
    if obs_std is not None and vae.likelihood != "gaussian":
        raise ValueError(
            f"--obs-std is for a Gaussian model, and --model {spec} has likelihood "
            f"{vae.likelihood!r}; pass --likelihood gaussian, or leave --obs-std out"
        )
    return vae.to(device)


def _module(spec: str) -> nn.Module:
    path, suffix = Path(spec), Path(spec).suffix.lower()
    if suffix in CHECKPOINTS:
        raise ValueError(
            f"--model {spec} is a file of weights that does not say what model they belong to; "
            f"write mine.py with {MAKE.format(path.name)} and pass --model mine.py:make_vae"
        )
    if suffix == ".py":
        raise ValueError(f"--model {spec}: name the function in it, as in {spec}:make_vae")
    if path.exists() or suffix == ".safetensors":
        if not path.is_file():
            raise FileNotFoundError(f"--model {spec}: there is no such file; give {FAMILIES}")
        try:
            return load(path)
        except ValueError as error:
            raise ValueError(f"--model {error}") from error
    source, colon, attribute = spec.rpartition(":")
    if not colon:
        raise FileNotFoundError(f"--model {spec}: there is no such file; give {FAMILIES}")
    return _call(spec, source, attribute)


def _call(spec: str, source: str, attribute: str) -> Any:
    """What a function of ``package.module`` or ``file.py`` returns."""
    if source.endswith(".py"):
        module = _import_file(spec, Path(source))
    else:
        _importable(os.getcwd())
        module = _attempt(
            f"--model {spec}: importing {source}", lambda: importlib.import_module(source)
        )
    make = getattr(module, attribute, None)
    if not callable(make):
        what = "has no" if make is None else "has a value, not a function, under"
        raise ValueError(f"--model {spec}: {source} {what} {attribute!r}")
    return _attempt(f"--model {spec}: {attribute}()", make)


def _import_file(spec: str, path: Path) -> ModuleType:
    """The module of a file; its folder is importable, as for a script."""
    path = path.expanduser()
    if not path.is_file():
        attribute = spec.rpartition(":")[2]
        stem = PureWindowsPath(path).stem
        way_out = f"give its path with /, or run from its folder with --model {stem}:{attribute}"
        raise FileNotFoundError(
            f"--model {spec}: there is no file {path} from {os.getcwd()}; {way_out}"
        )
    _importable(str(path.resolve().parent))
    name = f"model_of_{path.stem}"  # no other module's
    found = importlib.util.spec_from_file_location(name, path.resolve())
    if found is None or found.loader is None:
        raise ValueError(f"--model {spec}: {path} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    loader = found.loader
    _attempt(f"--model {spec}: running {path.name}", lambda: loader.exec_module(module))
    return module


def _importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _attempt(what: str, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what} failed with {type(error).__name__}: {error}") from error
