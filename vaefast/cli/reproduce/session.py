"""What the commands of all experiments share: lists of words, a run that can be interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console

from vaefast.audit import Stages
from vaefast.runtime.durable import write_whole

__all__ = ["finish", "interruptible", "size_option", "words"]

Found = TypeVar("Found")


def size_option(text: str, name: str, default: Any, full: str) -> Any:
    """An option that says its default, and the value of --full."""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return typer.Option(f"--{name.replace('_', '-')}", help=f"{text}; {shown}, with --full {full}.")


def words(text: str | None) -> tuple[str, ...] | None:
    """``"vae,beta-5"`` as names."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def interruptible(out: Path, console: Console, run: Callable[[Stages], Found]) -> Found:
    """Run with a progress bar a stage; an interruption says how to go on."""
    try:
        with Stages(console) as stages:
            return run(stages)
    except KeyboardInterrupt:
        way_on = f"what is finished lies in {out}, and the same command goes on from it"
        raise KeyboardInterrupt(way_on) from None


def finish(out: Path, console: Console, files: dict[str, str], sentences: Sequence[str]) -> None:
    """Write the files, and say what was found."""
    for name, text in files.items():
        write_whole(out / name, text.encode())
    console.print(f"\n{' '.join(sentences)}", markup=False)
    console.print(f"\nThe report is at {out / 'report.html'}", soft_wrap=True)
