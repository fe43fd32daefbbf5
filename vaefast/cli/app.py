"""The commands, registered by name, each with an example in its help."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from vaefast.cli import options as o
from vaefast.cli.attack import attack
from vaefast.cli.audit import audit
from vaefast.cli.jobs import jobs
from vaefast.cli.reproduce import reproduce
from vaefast.cli.sources import check_suffix, find_device
from vaefast.cli.steps import certify, defend
from vaefast.cli.train import train

__all__ = ["run"]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support

EXAMPLES: dict[Any, str] = {
    audit: "vaefast audit --data digits --out report/",
    train: "vaefast train --data digits --out model.safetensors",
    attack: "vaefast attack --data digits --model model.safetensors --eps 0.1 --out attacked.npz",
    defend: "vaefast defend --data attacked.npz --model model.safetensors --out defended.npz",
    certify: "vaefast certify --data digits --model model.safetensors --out margins.parquet",
}
UsageError: Any = typer.BadParameter.__base__  # click's own or the one in typer, by version

app = typer.Typer(
    name="vaefast",
    add_completion=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(metadata.version("vaefast"))
        raise typer.Exit


@app.callback(epilog=f"Example: {EXAMPLES[audit]}")
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Attack, defend, measure and certify variational autoencoders."""


for _command, _example in EXAMPLES.items():
    app.command(epilog=f"Example: {_example}")(_command)
app.add_typer(jobs, name="jobs")
app.add_typer(reproduce, name="reproduce")


@app.command(epilog="Example: vaefast bench pgd_step --out results.csv")
def bench(
    ops: Annotated[
        Optional[list[str]], typer.Argument(metavar="OP", help="Which ops; default: all.")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="CSV file to append the rows to.")
    ] = None,
    rounds: Annotated[
        Optional[int], typer.Option(min=1, help="Interleaved rounds; default 15, on a GPU 25.")
    ] = None,
    base: Annotated[
        Optional[str],
        typer.Option(metavar="COMMIT", help="Compare ours with ours at a commit of the checkout."),
    ] = None,
    device: o.Device = "cpu",
    threads: o.Threads = None,
) -> None:
    """Time the ops beside PyTorch, torch.compile and the machine's own limits."""
    if out is not None:
        check_suffix(out, ".csv")
    from vaefast.bench import Place, run_cli

    place = Place(find_device(device, threads).type)
    raise typer.Exit(int(run_cli(ops or [], place=place, base=base, out=out, rounds=rounds) > 0))


@app.command(epilog="Example: vaefast info")
def info() -> None:
    """Print versions, CPU and GPU features, and which backend runs each op and why."""
    import vaefast

    typer.echo(vaefast.info())


def run(arguments: list[str]) -> int:
    """Run one command line.

    Raises:
        ValueError: the words make no sense; one line.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("vaefast", arguments or ["--help"], obj=arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except UsageError as error:
        name = error.ctx.command_path if error.ctx else "vaefast"
        text = error.format_message().rstrip(".")
        if text.startswith("No such command"):
            text += f" of {name}, which has {', '.join(error.ctx.command.commands)}"
        raise ValueError(f"{text}; see {name} --help") from error
    return 0
