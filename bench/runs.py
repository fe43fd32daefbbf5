"""What a run in shards costs beside bare calls: ``python -m vaefast.bench.runs --model mlp``.

The run is a process of its own. After every shard it waits while the same function is called here
on the same rows, which lie in memory, so that both see the same moments of the machine. Its
anonymous resident memory is looked at from here all the time, and so is that of a run of few
inputs with shards of the same size. Weights are initial ones: no time depends on them.

    bare = the calls here, after a first one;  job = the whole run, from where such a call is done
    rate = bare / (job - one-off);  overhead = job / bare - 1
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaefast as vf
from vaefast import jobs
from vaefast.bench.rows import append
from vaefast.data.known import read_bytes
from vaefast.jobs import RunPlan, leases, rows, shards, worker
from vaefast.jobs.sources.rows import RawSource
from vaefast.models import VAE

__all__ = ["Clocks", "Costs", "main", "measured", "serve", "table"]

OUT = Path("bench/results/jobs.csv")
R = 1.0  # ℓ2, pixel scale
FEW = 600  # inputs of the run that memory is compared with
EVERY = 0.02  # s between two looks at the memory
ONE_OFF = ("imports", "create", "open", "freeze")
BY_SHARD = ("read", "lease", "checksum", "write", "rest")
STAGES = (
    (worker.Worker, "__init__", "open"),
    (worker.Worker, "__enter__", "freeze"),
    (worker.Worker, "__exit__", "freeze"),
    (worker, "compute", "compute"),
    (worker, "write_shard", "write"),
    (RawSource, "read", "read"),
    (leases.Leases, "claim", "lease"),
    (leases.Leases, "release", "lease"),
    (rows, "rows_digest", "checksum"),
    (shards.Shard, "content", "checksum"),
    (shards, "checksum", "checksum"),
)
START = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
began = time.perf_counter()
import torch, vaefast as vf
vae = vf.models.MLPVAE((1, 2, 2), (2,), 1).eval()
vf.certify.robust_probability(vae, torch.zeros(1, 1, 2, 2), 1.0, samples=1)
bare = time.perf_counter()
import numpy, pyarrow.parquet, xxhash
import vaefast.jobs
pyarrow.array(numpy.zeros(1))  # imports pandas where it is installed
more = time.perf_counter()
from vaefast.bench.runs import serve
serve(json.loads(sys.argv[2]), sys.argv[3], bare - began, more - bare)
"""


@dataclass(frozen=True)
class Costs:
    """``case`` says which task and model; seconds but for counts, shares and memory.

    Attributes:
        inputs, shard_size, samples: of the run; few: inputs of another.
        bare: calls on the same rows.
        job: the run: all that follows but ``start``.
        rate, overhead: as above.
        start: of a process until a first call is done; bare calls have it as well.
        imports: of what runs need besides.
        create, open, freeze: begin the run; open model and data and compare fingerprints; pack.
        read, compute, lease, checksum, write, rest: of all shards.
        memory, memory_few: peaks of RssAnon, MiB, of this run and of the other.
    """

    case: str
    inputs: int
    shard_size: int
    samples: int
    few: int
    bare: float
    job: float
    rate: float
    overhead: float
    start: float
    memory: float
    memory_few: float
    imports: float
    create: float
    open: float
    freeze: float
    read: float
    compute: float
    lease: float
    checksum: float
    write: float
    rest: float


class Clocks:
    """Seconds by stage; those of a stage inside another are the inner one's alone."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._clock, self._last, self._inside = clock, clock(), ["rest"]

    def total(self) -> dict[str, float]:
        """Until now."""
        self._count()
        return self.seconds

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        self._count()
        self._inside.append(stage)
        try:
            yield
        finally:
            self._count()
            self._inside.pop()

    def on(self, owner: Any, name: str, stage: str) -> None:
        """Count all calls of a function or a method, or all looks at a property."""
        found = vars(owner)[name]
        call: Any = found.fget if isinstance(found, property) else found

        @wraps(call)
        def counted(*args: Any, **options: Any) -> Any:
            with self.of(stage):
                return call(*args, **options)

        setattr(owner, name, property(counted) if isinstance(found, property) else counted)

    def _count(self) -> None:
        now = self._clock()
        self.seconds[self._inside[-1]] += now - self._last
        self._last = now


def serve(plan: dict[str, Any], folder: str, start: float, imports: float) -> None:
    """The process of the run: a line after each shard, which it waits for, then one of seconds."""
    clocks = Clocks()
    with clocks.of("create"):
        run = jobs.create(RunPlan(**plan), folder)
    for owner, name, stage in STAGES:
        clocks.on(owner, name, stage)

    def turn(done: jobs.Done) -> None:
        with clocks.of("turn"):
            print(json.dumps({"shard": done.shard}), flush=True)
            sys.stdin.readline()

    run.work(done=turn)
    found = {"start": start, "imports": imports} | clocks.total()
    print(json.dumps({"seconds": found}), flush=True)


@contextmanager
def peak_of(pid: int) -> Iterator[list[float]]:
    """The largest RssAnon of a process while it lives, [MiB]."""
    peak, status, over = [0.0], Path(f"/proc/{pid}/status"), threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            with suppress(OSError, TypeError):  # it has ended
                found: Any = re.search(r"RssAnon:\s+(\d+)", status.read_text())
                peak[0] = max(peak[0], int(found[1]) / 1024)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def run_of(
    plan: dict[str, Any], folder: Path, turn: Callable[[int], None]
) -> tuple[dict[str, float], float]:
    """Seconds by stage and peak of memory of one run, with ``turn`` called after each shard."""
    command = [sys.executable, "-c", START, json.dumps(sys.path), json.dumps(plan), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    seconds: dict[str, float] = {}
    with process, peak_of(process.pid) as peak:
        for line in process.stdout:
            said = json.loads(line)
            seconds = said.get("seconds", seconds)
            if "shard" in said:
                turn(said["shard"])
                process.stdin.write("\n")
                process.stdin.flush()
    if process.returncode or not seconds:
        raise RuntimeError(f"the run's process ended with status {process.returncode}")
    return seconds, peak[0]


def measured(
    case: str, vae: VAE, x: np.ndarray, folder: Path, *, shard_size: int, samples: int, few: int
) -> Costs:
    """What a run on x [n, *event] costs, and bare calls on its shards' rows."""
    vf.models.save(vae, folder / "m.safetensors")
    np.save(folder / "x.npy", x)
    files = {"model": str(folder / "m.safetensors"), "data": str(folder / "x.npy")}
    task = {"task": "robust_probability", "r": R, "options": {"samples": samples}}
    plan = files | task | {"shard_size": shard_size}
    few = min(few, len(x))
    _, memory_few = run_of(plan | {"inputs": few}, folder / "few", lambda number: None)
    source, bare = jobs.open_source(folder / "x.npy"), 0.0

    def call(start: int) -> float:
        inputs, index = source.read(start, min(start + shard_size, len(x)))[:2]
        began = time.perf_counter()
        vf.certify.robust_probability(vae, inputs, R, samples=samples, index=index)
        return time.perf_counter() - began

    def turn(number: int) -> None:
        nonlocal bare
        bare += call(number * shard_size)

    call(len(x) - 1)
    seconds, memory = run_of(plan, folder / "run", turn)
    stages: dict[str, Any] = {
        name: seconds.get(name, 0.0) for name in (*ONE_OFF, "compute", *BY_SHARD)
    }
    job = sum(stages.values())
    shares = bare / (job - sum(stages[name] for name in ONE_OFF)), job / bare - 1
    found = len(x), shard_size, samples, few, bare, job, *shares, seconds["start"]
    return Costs(f"{case} cpu", *found, memory, memory_few, **stages)


MODELS = {
    "mlp": ("MLP 784-256-256-16", lambda: vf.models.MLPVAE((1, 28, 28), (256, 256), 16)),
    "convolutional": ("published convolutional", lambda: vf.models.ConvVAE(latent=32)),
}


def table(costs: Costs) -> str:
    """Markdown: seconds by stage, each as a share of the bare calls."""
    lines = [f"| {costs.case}, n = {costs.inputs:,} | s | share of bare |", "|---|---:|---:|"]
    for name in ("bare", "job", "start", *ONE_OFF, "compute", *BY_SHARD):
        value = getattr(costs, name)
        lines.append(f"| {name} | {value:.3f} | {100 * value / costs.bare:.2f} % |")
    lines.append(f"| rate {100 * costs.rate:.1f} %, overhead {100 * costs.overhead:.2f} % | | |")
    growth = 100 * (costs.memory / costs.memory_few - 1)
    few = f"{costs.few} inputs {costs.memory_few:.1f} MiB"
    lines.append(f"| memory {costs.memory:.1f} MiB, of {few}: {growth:+.1f} % | | |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure one model and write a row."""
    parser = argparse.ArgumentParser(prog="python -m vaefast.bench.runs")
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--inputs", type=int, default=60_000, help="of the training set")
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--shard-size", type=int, default=RunPlan.shard_size)
    parser.add_argument("--data", type=Path, default=os.environ.get("VAEFAST_DATA", "data"))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    name, make = MODELS[given.model]
    images = read_bytes("fashion-mnist", given.data, "train")[0][: given.inputs]
    what = f"robust_probability {name}", make().eval(), images.reshape(-1, 1, 28, 28)
    sizes = {"shard_size": given.shard_size, "samples": given.samples, "few": given.few}
    with tempfile.TemporaryDirectory() as folder:
        costs = measured(*what, Path(folder), **sizes)
    append(given.out, [costs])
    print(table(costs), f"{torch.get_num_threads()} threads", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
