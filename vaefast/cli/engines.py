"""Options of what works on a run: this machine, or Ray."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from vaefast.jobs import RayOptions

__all__ = ["Address", "CpusPerWorker", "Engine", "GpusPerWorker", "WaitForNodes", "how"]

# ruff: noqa: UP045 - typer reads Optional on every Python that we support

Engine = Annotated[
    str,
    typer.Option(
        "--engine", metavar="local|ray", help="What works on a run: processes here, or Ray."
    ),
]
Address = Annotated[
    Optional[str],
    typer.Option(
        "--address",
        metavar="ADDRESS|auto",
        help="Of a Ray cluster; default: Ray on this machine, while the command runs.",
    ),
]
CpusPerWorker = Annotated[
    Optional[float],
    typer.Option(
        "--cpus-per-worker", metavar="X", help="Processors that a worker asks Ray for; default 1."
    ),
]
GpusPerWorker = Annotated[
    Optional[float],
    typer.Option(
        "--gpus-per-worker",
        metavar="X",
        help="GPUs, also a part of one; default 1 with --device cuda, else 0.",
    ),
]
WaitForNodes = Annotated[
    Optional[float],
    typer.Option(
        "--wait-for-nodes",
        metavar="SECONDS",
        help="How long a Ray cluster that grows may take to bring a node; default 0.",
    ),
]


def how(
    engine: str,
    address: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    wait: float | None = None,
) -> dict[str, Any]:
    """The words as arguments of :meth:`vaefast.jobs.Run.work`.

    Raises:
        ValueError: options of Ray without ``--engine ray``.
    """
    given: dict[str, Any] = {
        "address": address,
        "cpus_per_worker": cpus,
        "gpus_per_worker": gpus,
        "wait_for_nodes": wait,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if engine == "ray":
        return {"engine": engine, "options": RayOptions(**given)}
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"{words}: of Ray; add --engine ray")
    return {"engine": engine}
