"""A folder of finished parts: each in its own file, whole or not there, of one run's settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from vaefast.reproduce.sources import UNKNOWN, sources
from vaefast.runtime.durable import write_whole

__all__ = ["Part", "Store", "said", "versioned"]

SETTINGS = "settings.json"
MADE_BY = "vaefast reproduce"
KEY = "vaefast-reproduce"


class Part(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Store:
    """The folder of a run.

    Args:
        folder: a new or empty one, or one of a run with the same settings.
        settings: plain JSON values, all that the results depend on.

    A part says which sources of vaefast made it. Those of other sources are read too, so that a
    run of hours outlives a change that does not concern it; :meth:`made_by` tells them.

    Raises:
        ValueError: the folder is of a run with other settings; the first that differs is named.
        FileExistsError: it is a file, or holds what no run of ours wrote.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps({"made_by": MADE_BY, **settings}))
        text = json.dumps(self.settings, indent=2, ensure_ascii=False)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"--out {folder} is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SETTINGS).exists():
            self._compare()
        elif names := sorted(path.name for path in folder.iterdir() if path.name[0] != "."):
            raise FileExistsError(
                f"--out {folder} holds {names[0]!r} and no {SETTINGS} of a reproduction; name a "
                "new folder"
            )
        else:
            write_whole(folder / SETTINGS, f"{text}\n".encode())

    def path(self, name: str) -> Path:
        """Of a part; its folder exists."""
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        return path

    def read(self, name: str) -> Part | None:
        """A finished part, None where it is not.

        Raises:
            ValueError: the file is damaged, or of other settings.
        """
        path = self.path(name)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="pt", device="cpu") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                found = json.loads((file.metadata() or {})[KEY])
        except (safetensors.SafetensorError, KeyError, ValueError, OSError):
            raise ValueError(f"{path} cannot be read; delete it to compute it again") from None
        if found.get("fingerprint") != self.fingerprint:
            raise ValueError(f"{path} is of a run with other settings; delete it to compute it")
        return Part(tensors, found["facts"])

    def write(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Part:
        """Keep a part; returns what a later run will read."""
        copies = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        origin = {"fingerprint": self.fingerprint, "sources": sources()}
        text = json.dumps({**origin, "facts": dict(facts)})
        write_whole(self.path(name), safetensors.torch.save(copies, metadata={KEY: text}))
        return Part(copies, json.loads(text)["facts"])

    def made_by(self) -> list[str]:
        """The sources that made each finished part of the folder, also where no page reads it."""
        found = []
        for path in sorted(self.folder.glob("*/*.safetensors")):
            with safetensors.safe_open(path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
            if KEY in metadata:  # a part, not a model
                found.append(json.loads(metadata[KEY]).get("sources", UNKNOWN))
        return found

    def _compare(self) -> None:
        path = self.folder / SETTINGS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known = found["made_by"] == MADE_BY
        except (ValueError, TypeError, KeyError, OSError):
            known = False
        if not known:
            raise FileExistsError(f"{path} is of no reproduction; name a new folder")
        for name in {**self.settings, **found}:
            there, here = found.get(name), self.settings.get(name)
            if there != here:
                raise ValueError(
                    f"--out {self.folder} holds a run with {name.replace('_', ' ')} {said(there)}, "
                    f"this one has {said(here)}; name another folder, or delete it"
                )


def versioned(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the versions that results depend on."""
    return {**settings, **{name: metadata.version(name) for name in ("vaefast", "torch")}}


def said(value: Any) -> str:
    """A setting as a message says it."""
    if isinstance(value, list):
        return ",".join(map(said, value))
    return "all" if value is None else str(value)
