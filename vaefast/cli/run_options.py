"""Options of runs in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from vaefast.cli import options as o

# ruff: noqa: UP045 - typer reads Optional on every Python that we support


def radii(text: str | None) -> tuple[float, ...]:
    """``"4,6"`` as radii; none where the option was not given."""
    return () if text is None else o.numbers(text, "--r")


def draws(text: str | None) -> int | str | None:
    """``"1000"`` as a number, or ``"auto"``."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or not int(text):
        raise ValueError(f"--samples must be a number or auto, got {text!r}")
    return int(text)


def whole(text: str | None, default: int) -> int:
    """A number of samples where "auto" has no meaning."""
    found = default if text is None else draws(text)
    if not isinstance(found, int):
        raise ValueError("--samples auto is of a run's certificates; give a number")
    return found


Radii = Annotated[
    Optional[str],
    typer.Option(
        "--r",
        metavar="R[,R2,...]",
        help="How far (ℓ2, pixel scale) a reconstruction may move and count as unchanged; "
        "default: the 90 % quantile of its own spread. Several: of a run, from the same draws, "
        "each at level alpha over their number.",
    ),
]
Band = Annotated[
    bool,
    typer.Option(
        "--band",
        help="Of a run with --method probability: keep the upper half of each input's distances, "
        "so that vaefast jobs report --r can choose r afterwards; it shares alpha with each --r "
        "and takes a second pass of the decoder.",
    ),
]
CertifiedAt = Annotated[
    Optional[float],
    typer.Option(
        "--certified-at",
        parser=o.number,
        metavar="RADIUS",
        help="Of a run with --method probability: list the inputs that are certified at this "
        "radius (ℓ2, pixel scale), all at once at alpha (Holm), in RUN/certified_at.parquet.",
    ),
]
ChosenRadii = Annotated[
    Optional[str],
    typer.Option(
        "--r",
        metavar="R[,R2,...]",
        help="Of a run with --band: bounds of the probability at any r, chosen now, in "
        "RUN/at_r.parquet.",
    ),
]
AutoSamples = Annotated[
    Optional[str],
    typer.Option(
        "--samples",
        metavar="N|auto",
        help="Monte-Carlo samples of each margin; default 1000, of a run's certificates auto: "
        "more of them while they pay.",
    ),
]
Method = Annotated[
    Optional[str],
    typer.Option(
        "--method",
        metavar="NAME",
        help="Of a run: local, anchors, best, lipschitz, first_order, whitened, probability or "
        "empirical; default local.",
    ),
]
ShardSize = Annotated[
    Optional[int],
    typer.Option(
        "--shard-size",
        min=1,
        metavar="N",
        help="Write the folder of a run, N inputs in a file; the numbers do not depend on N.",
    ),
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        "--workers", min=1, metavar="N", help="Processes of a run; default: this one, all threads."
    ),
]
Metrics = Annotated[
    Optional[Path],
    typer.Option("--metrics", metavar="FILE", help="Write progress for Prometheus, every second."),
]
Lines = Annotated[
    Optional[Path],
    typer.Option("--progress-lines", metavar="FILE", help="Add a line of JSON for every shard."),
]
Certified = Annotated[
    int,
    typer.Option(
        "--certified",
        min=0,
        metavar="N",
        help="First N inputs that get a certified margin where the encoder is no MLP, some seconds "
        "each; of an MLP all do.",
    ),
]
