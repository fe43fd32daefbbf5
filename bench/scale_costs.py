"""What a job's parts cost on this machine: ``python -m vaefast.bench.scale_costs``.

The figures that :mod:`vaefast.bench.scale` starts from. Shards, checksums and leases are those of
:mod:`vaefast.jobs`, of margins by "best"; the disk is that of ``--folder``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaefast as vf
from vaefast.bench.rows import append
from vaefast.certify.looks import flop_per_draw
from vaefast.jobs import Run, RunPlan, create
from vaefast.jobs.leases import Leases
from vaefast.jobs.shards import Shard, write_shard
from vaefast.jobs.table import merge_shards
from vaefast.models.prepare import prepare

__all__ = ["Cost", "main", "measured"]

OUT = Path("bench/results/scale_costs.csv")
DRAWS, SHARDS = 1000, (256, 4096, 65536)
THREADS, FILES, CALLS = 16, 512, 2000
START = "import vaefast as vf, torch; v = vf.models.MLPVAE((1, 28, 28), (512, 512), 32).eval(); \
vf.certify.robust_probability(v, torch.rand(1, 1, 28, 28), 5.0, samples=1)"


@dataclass(frozen=True)
class Cost:
    """``case`` is what was measured: median, least and largest of the repetitions."""

    case: str
    value: float
    low: float
    high: float
    unit: str
    repetitions: int


def cost(case: str, call: Callable[[], Any], repetitions: int, each: int = 1) -> Cost:
    """Seconds of a call, or of each of so many things that it does."""
    call()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) / each)
    return Cost(case, statistics.median(times), min(times), max(times), "s", repetitions)


def figure(case: str, value: float, unit: str) -> Cost:
    return Cost(case, value, value, value, unit, 1)


def rows() -> Iterator[Cost]:
    """Seconds and FLOP of a row: `robust_probability` of 1000 draws, one thread."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.rand(32, 1, 28, 28, generator=generator, dtype=torch.float32, device="cpu")
    models = {
        "MLP 784-512-512-32": (vf.models.MLPVAE((1, 28, 28), (512, 512), 32).eval(), 32, 15),
        "published convolutional": (vf.models.ConvVAE(latent=32).eval(), 2, 5),
    }
    for name, (vae, count, repetitions) in models.items():
        inputs = x[:count]
        call = lambda: vf.certify.robust_probability(vae, inputs, 5.0, samples=DRAWS)  # noqa: B023, E731
        yield cost(f"row, {name}", call, repetitions, each=count)
        yield figure(f"FLOP of a row, {name}", DRAWS * flop_per_draw(prepare(vae, inputs)), "FLOP")


def disk(folder: Path) -> Iterator[Cost]:
    """Files of a run as it writes them: shards, leases, checksums, and going through them again."""
    run = begun(folder)
    for size in SHARDS:
        yield cost(f"shard written, {size} rows", partial(write, run, size, 0, "bench"), 15)
        size_of_file = run.places.shard(0).stat().st_size
        yield figure(f"bytes of a shard, {size} rows", size_of_file, "bytes")
    line = (run.places.checksums / "bench.jsonl").read_bytes().splitlines()[-1]
    yield figure("bytes of a checksum's line", len(line) + 1, "bytes")
    with ThreadPoolExecutor(THREADS) as pool:
        at_once = partial(many, pool, run, range(THREADS))
        yield cost(f"shard written, {THREADS} at once, each", at_once, 7, each=THREADS)
        many(pool, run, range(FILES))
    leases = Leases(run.places.leases)
    yield cost("lease, taken and given back", partial(leased, leases), 31)
    leases.close()
    yield cost("name of a shard, looked for", run.missing, 7, each=FILES)
    yield cost("shard of 256 rows, checked at a resume", run.check, 3, each=FILES)
    paths, size = [run.places.shard(n) for n in range(FILES)], FILES * SHARDS[0]
    merged = partial(merge_shards, paths, folder / "all.parquet", {})
    yield cost("row, merged", merged, 3, each=size)


def begun(folder: Path) -> Run:
    """A run of margins by "best" whose shards may have any number."""
    np.save(folder / "x.npy", np.zeros((4, 1, 8, 8), np.float32))
    vae = vf.models.MLPVAE((1, 8, 8), (8,), 2).eval()
    options = {"method": "best", "samples": 10}
    plan = RunPlan(vae, str(folder / "x.npy"), r=(4.0,), options=options)
    return create(plan, folder / "run")


def write(run: Run, size: int, number: int, owner: str) -> None:
    """A shard of numbers that do not compress, as margins are."""
    manifest = replace(
        run.manifest, rows=size * (number + 1), plan=replace(run.manifest.plan, shard_size=size)
    )
    numbers = np.random.default_rng(number)
    values = {
        c.name: (1000 * numbers.standard_normal((size, *c.shape))).astype(c.dtype)
        for c in manifest.columns
    }
    failed, reasons = np.zeros(size, dtype=bool), [""] * size
    shard = Shard(number, values, failed, reasons, None, 32 * "0", 1, {"read": 0.1, "compute": 1.0})
    write_shard(shard, manifest, run.places, owner)


def many(pool: ThreadPoolExecutor, run: Run, numbers: range) -> None:
    """Small shards, written side by side as by workers of their own."""
    list(pool.map(lambda n: write(run, SHARDS[0], n, f"bench{n % THREADS}"), numbers))


def leased(leases: Leases) -> None:
    leases.claim("00000000")
    leases.release("00000000")


def start() -> Iterator[Cost]:
    """A worker's process until its first row is done."""
    command = [sys.executable, "-I", "-c", START]
    yield cost("start of a worker", lambda: subprocess.run(command, check=True), 3)


def ray_calls() -> Iterator[Cost]:
    """Of Ray on this machine: a call of an actor, and how much of it is the driver's."""
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False
    )
    try:
        actor = ray.remote(num_cpus=0)(Echo)
        first = time.perf_counter()
        actors = [actor.remote() for _ in range(2)]
        ray.get([a.call.remote(0) for a in actors])
        yield figure("Ray: start of an actor", time.perf_counter() - first, "s")
        yield cost("Ray: a call there and back", lambda: ray.get(actors[0].call.remote(1)), 200)
        yield cost(
            "Ray: a call, two in flight an actor", lambda: flight(ray, actors), 5, each=CALLS
        )
        before = time.process_time()
        flight(ray, actors)
        yield figure(
            "Ray: processor of the driver, a call", (time.process_time() - before) / CALLS, "s"
        )
    finally:
        ray.shutdown()


class Echo:
    """An actor that does nothing."""

    def call(self, shard: int) -> int:
        return shard


def flight(ray: Any, actors: list[Any]) -> None:
    """CALLS calls, at most two of an actor at a time."""
    waiting = {a.call.remote(0): a for a in actors for _ in range(2)}
    for number in range(CALLS):
        (done, *_), _ = ray.wait(list(waiting), num_returns=1)
        actor = waiting.pop(done)
        if number < CALLS - 4:
            waiting[actor.call.remote(number)] = actor


def measured(folder: Path) -> Iterator[Cost]:
    yield from rows()
    yield from disk(folder)
    yield from start()
    yield from ray_calls()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.scale_costs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for found in measured(Path(folder)):
            append(given.out, [found])
            print(f"{found.case:42} {found.value:12.6g} {found.unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
