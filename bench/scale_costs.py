"""What a job's parts cost on this machine: ``python -m vaefast.bench.scale_costs``.

The figures that :mod:`vaefast.bench.scale` starts from. Shards here are tables of twelve columns,
leases and checksums lines of JSON as a job writes them; the disk is that of ``--folder``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaefast as vf
from vaefast.bench.rows import append
from vaefast.certify.looks import flop_per_draw
from vaefast.models.prepare import prepare
from vaefast.runtime.durable import write_whole

__all__ = ["Cost", "main", "measured"]

OUT = Path("bench/results/scale_costs.csv")
DRAWS, SHARDS, COLUMNS = 1000, (256, 4096, 65536), 12
THREADS, FILES, CALLS = 16, 2000, 2000
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
    """Files of a job: shards, leases, checksums, and going through them at a resume."""
    import pyarrow.parquet as pq

    for size in SHARDS:
        data = shard(size)
        name = folder / f"shard{size}.parquet"
        yield cost(f"durable write, {size} rows", lambda: write_whole(name, data), 15)  # noqa: B023
        yield figure(f"bytes of a shard, {size} rows", len(data), "bytes")
        yield cost(f"shard as Parquet, {size} rows", lambda: shard(size), 5)  # noqa: B023
    data = shard(4096)
    with ThreadPoolExecutor(THREADS) as pool:
        call = lambda: list(pool.map(lambda n: write_whole(folder / f"{n}", data), range(THREADS)))  # noqa: E731
        yield cost(f"durable write, {THREADS} at once, each", call, 15, each=THREADS)
    lease = json.dumps({"shard": 12, "host": "host", "pid": 1, "started": 0.0, "expires": 0.0})
    yield cost("lease, taken and given back", lambda: leased(folder / "lease", lease), 31)
    line = json.dumps({"shard": 12, "file": "00000012.parquet", "xxh3": 16 * "0", "rows": 4096})
    yield figure("bytes of a checksum's line", len(line) + 1, "bytes")
    with (folder / "checksums.jsonl").open("a") as file:
        yield cost("checksum's line, synced", lambda: synced(file, line), 31)
    many = folder / "many"
    many.mkdir()
    small = shard(256)
    for number in range(FILES):
        (many / f"{number:08}.parquet").write_bytes(small)
    yield cost("name of a file in a folder", lambda: list(os.scandir(many)), 15, each=FILES)
    metadata = lambda: [pq.read_metadata(path) for path in sorted(many.iterdir())]  # noqa: E731
    yield cost("metadata of a shard, read", metadata, 3, each=FILES)


def shard(size: int) -> bytes:
    """A table of numbers that do not compress, as margins are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = np.random.default_rng(0)
    columns = {"index": np.arange(size)} | {
        f"column{c}": numbers.standard_normal(size) for c in range(COLUMNS - 1)
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def leased(path: Path, text: str) -> None:
    """Take a lease that nobody has, and give it back."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(handle, text.encode())
    os.fsync(handle)
    os.close(handle)
    path.unlink()


def synced(file: Any, line: str) -> None:
    file.write(line + "\n")
    file.flush()
    os.fsync(file.fileno())


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
