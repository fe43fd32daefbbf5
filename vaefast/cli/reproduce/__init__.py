"""``vaefast reproduce``: a published experiment, from training to a page that says what holds."""

from __future__ import annotations

from collections.abc import Callable

import typer

from vaefast.cli.reproduce import barrett2022, camuto2021, khan2023, kuzina2022

__all__ = ["EXPERIMENTS", "reproduce"]

EXPERIMENTS: dict[str, Callable[..., None]] = {
    "kuzina2022": kuzina2022.command,
    "camuto2021": camuto2021.command,
    "khan2023": khan2023.command,
    "barrett2022": barrett2022.command,
}
EXAMPLE = "Example: vaefast reproduce {} --data mnist --out runs/{}/"

reproduce = typer.Typer()
for _name, _command in EXPERIMENTS.items():
    reproduce.command(_name, epilog=EXAMPLE.format(_name, _name))(_command)


@reproduce.callback(epilog=EXAMPLE.format("kuzina2022", "kuzina2022"))
def _several() -> None:
    """Repeat a published experiment, and say what holds of it."""
