"""Statements about a finished run: who is certified at one radius, and what holds at other r."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaefast import certify, checks
from vaefast.certify.level import inputs_of
from vaefast.jobs.manifest import Manifest
from vaefast.jobs.shards import Shard, read_shard
from vaefast.jobs.spread import COLUMN, draws_of, ranks_of
from vaefast.jobs.table import KEY
from vaefast.jobs.worker import Worker, to_model
from vaefast.runtime.durable import write_whole

if TYPE_CHECKING:
    from vaefast.jobs.run import Run

__all__ = ["Statement", "certified_list", "free_choice"]


@dataclass(frozen=True)
class Statement:
    """A table beside a run's own, and what it promises.

    Attributes:
        path: of the table, one row per input.
        sentences: one for each r.
        counts: inputs on the list of each r, or with p above ½.
    """

    path: Path
    sentences: tuple[str, ...]
    counts: tuple[int, ...]


def certified_list(run: Run, radius: float, out: str | Path) -> Statement:
    """The inputs of a run that are certified at one radius, by Holm's procedure over all of them.

    The encoder is asked once more, for the probability that the ball takes; the hits are those of
    the run. Of m radii r each list is one at α/m. Columns: ``index``, ``p_required``, and of each r
    ``p_value`` and ``certified``. It holds 24 bytes per input and r in memory.

    Args:
        run: complete, of task "robust_probability".
        radius: R₀, ℓ2 in pixel scale, fixed before the run's numbers were looked at.
        out: of the table, a .parquet.

    Raises:
        ValueError: another task or precision, shards that are missing, an encoder that does not
            lower, another model or other data than the run's.
    """
    manifest, out = run.manifest, Path(out)
    plan = manifest.plan
    _require(manifest, "--certified-at")
    if not 0 <= checks.number(radius, "radius") < float("inf"):
        raise ValueError(f"radius must be finite and at least 0, got {radius:g}")
    run.paths()
    needed, hits = _needed(run, radius)
    level, samples = plan.alpha / len(plan.r), draws_of(plan)
    columns: dict[str, Any] = {"index": np.arange(manifest.rows), "p_required": needed.numpy()}
    counts, sentences = [], []
    for r, k in zip(plan.r, hits, strict=True):
        values = certify.binomial_p_values(k, samples, needed)
        chosen = certify.holm(values, level)
        end = f"_r{r:g}" if len(plan.r) > 1 else ""
        columns |= {f"p_value{end}": values.numpy(), f"certified{end}": chosen.numpy()}
        counts.append(int(chosen.sum()))
        sentences.append(_of_list(counts[-1], manifest, radius, r, out))
    _write(out, columns, manifest, sentences)
    return Statement(out, tuple(sentences), tuple(counts))


def free_choice(run: Run, radii: Sequence[float], out: str | Path) -> Statement:
    """Lower bounds of P(‖Δ‖ ≤ r) of every row at radii that are chosen after the run.

    Columns: ``index``, and of each r ``p_lower``. It holds 8 bytes per input and r in memory.

    Args:
        run: complete, of a plan with ``band``.
        radii: any, chosen in any way.
        out: of the table, a .parquet.

    Raises:
        ValueError: a run without a band, no radius or one that is NaN or below 0, shards that are
            missing.
    """
    manifest, out = run.manifest, Path(out)
    _require(manifest, "--r")
    if not manifest.plan.band:
        raise ValueError(
            "r can be chosen after a run only where its plan has band=True (vaefast certify "
            f"--method probability --band); this one has r = {list(manifest.plan.r)}"
        )
    if not radii or not all(checks.number(r, "r") >= 0 for r in radii):
        raise ValueError(f"r must be numbers of at least 0, got {list(radii)}")
    if len({f"{r:g}" for r in radii}) < len(radii):
        raise ValueError(f"r must differ in six digits, as they name columns, got {list(radii)}")
    samples = draws_of(manifest.plan)
    how: dict[str, Any] = {"ranks": ranks_of(samples), "samples": samples}
    at, parts = torch.tensor(list(radii), dtype=torch.float64, device="cpu"), []
    for path in run.paths():
        shard = read_shard(path, manifest)
        bound = certify.band(_tensor(shard.values[COLUMN]), at, manifest.alpha, **how)
        parts.append(bound.masked_fill(_tensor(shard.failed)[:, None], torch.nan))
    bounds = torch.cat(parts)
    columns = {"index": np.arange(manifest.rows)}
    columns |= {f"p_lower_r{r:g}": bounds[:, k].numpy() for k, r in enumerate(radii)}
    counts = (bounds > 0.5).sum(0).tolist()
    pairs = zip(radii, counts, strict=True)
    sentences = [_of_band(count, manifest, r, out) for r, count in pairs]
    _write(out, columns, manifest, sentences)
    return Statement(out, tuple(sentences), tuple(counts))


def _require(manifest: Manifest, option: str) -> None:
    plan = manifest.plan
    if plan.task != "robust_probability":
        raise ValueError(
            f"{option} needs the hits of a run of robust_probability (--method probability), this "
            f"one is of {plan.task}"
        )
    if plan.precision != "ieee":
        raise ValueError(f'{option} needs draws of precision "ieee", not "{plan.precision}"')


def _needed(run: Run, radius: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """p_required [n], NaN of failed rows, and the hits [n] at each r."""
    manifest = run.manifest
    names = [f"hits_r{r:g}" for r in manifest.plan.r] if len(manifest.plan.r) > 1 else ["hits"]
    needed = torch.full((manifest.rows,), torch.nan, dtype=torch.float64, device="cpu")
    hits = [torch.zeros(manifest.rows, dtype=torch.int64, device="cpu") for _ in names]
    with Worker(run.folder, source=run.source) as worker:
        for start, stop, shard in _shards(run):
            for into, name in zip(hits, names, strict=True):
                into[start:stop] = _tensor(shard.values[name])
            found = worker.source.read(start, stop)
            good = _tensor(~shard.failed)[found.index - start]
            index = found.index[good]
            if len(index):
                x = to_model(worker.vae, found.x[good])
                own = certify.required_at(worker.vae, x, radius, index=index.to(x.device))
                needed[index] = own.cpu()
    return needed, hits


def _shards(run: Run) -> Iterator[tuple[int, int, Shard]]:
    manifest = run.manifest
    for number in range(manifest.shards):
        shard = read_shard(run.places.shard(number), manifest)
        yield (*manifest.bounds(number), shard)


def _of_list(count: int, manifest: Manifest, radius: float, r: float, out: Path) -> str:
    plan = manifest.plan
    share = f", α of each of {len(plan.r)} r a share of it" if len(plan.r) > 1 else ""
    return (
        f"{count} of {manifest.rows} inputs are certified at radius {radius:g} for r = {r:g}: with "
        f"probability at least 1 − α over the draws, α = {plan.alpha:g}{share}, all of them are "
        "right at once (Holm), up to the rounding of a forward pass, where radius and r were fixed "
        f"before the run's numbers were looked at. They are marked in {out.name}."
    )


def _of_band(count: int, manifest: Manifest, r: float, out: Path) -> str:
    shared = inputs_of(manifest.plan.level, manifest.rows)
    of = "for each input by itself" if shared == 1 else f"for all {shared} inputs together"
    width = certify.band_width(draws_of(manifest.plan), manifest.alpha)
    return (
        f"At r = {r:g}, chosen after the run, {count} of {manifest.rows} inputs stay within r with "
        f"a probability that is above ½; the bounds in {out.name} hold at every r at once (the "
        f"band of Dvoretzky, Kiefer and Wolfowitz, {width:.3g} wide), {of} together with those at "
        f"the radii of the plan, with probability at least 1 − α, α = {manifest.plan.alpha:g}."
    )


def _write(
    out: Path, columns: dict[str, Any], manifest: Manifest, sentences: Sequence[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = {"fingerprint": manifest.fingerprint, "guarantee": " ".join(sentences)}
    table = pa.table(columns).replace_schema_metadata(
        {KEY: json.dumps(about, sort_keys=True, ensure_ascii=False).encode()}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(out, sink.getvalue().to_pybytes())


def _tensor(column: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(column))
