"""Times ours when asked on stdin: a script that stands alone, for it also runs in older commits.

``_turns.py DEVICE TINY`` answers ``["cases", JOB]`` with the names of a job's cases and
``["seconds", JOB, CASE]`` with the seconds of a call of each provider of ours, a line of JSON each.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

DEVICE, TINY = sys.argv[1], sys.argv[2] == "1"
TURN = 0.05  # s that a provider's turn lasts at least


def answers() -> None:
    """Until the questions end; the libraries' own lines go to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        what, *given = json.loads(line)
        out.write(json.dumps({"cases": names, "seconds": seconds}[what](*given)) + "\n")
        out.flush()


def names(job: str) -> list[str]:
    return [benchmark.case for benchmark in benchmarks(job)]


def seconds(job: str, case: str) -> dict[str, float]:
    providers = built(job, case).providers.items()
    return {name: turn(call) for name, call in providers if name.startswith("vaefast")}


def turn(call) -> float:
    """Seconds of one of as many calls as fill a turn; the first of all is not counted."""
    first = clock(call, 1)
    return clock(call, max(1, math.ceil(TURN / max(first, 1e-9))))


def clock(call, calls: int) -> float:
    from vaefast.bench import runner

    on = runner.seconds_on_gpu if DEVICE == "cuda" else runner.seconds_on_cpu
    return on(call, calls) / calls


@lru_cache(maxsize=1)
def built(job: str, case: str):
    return next(benchmark for benchmark in benchmarks(job) if benchmark.case == case)


def benchmarks(job: str) -> Iterator:
    """From ``cases(place)``, or from the ``benchmarks()`` that a CPU had before."""
    module = found(job)
    if module is None:
        return
    if not hasattr(module, "cases"):
        yield from module.benchmarks()
        return
    for _, build in module.cases(place()):
        yield build()


def place():
    """None in a commit that has one list for the CPU alone."""
    try:
        return importlib.import_module("vaefast.bench.place").Place(DEVICE, tiny=TINY)
    except ModuleNotFoundError:
        return None


def found(job: str):
    """A job's module, in the commit or, where it has none, beside this file; None for neither."""
    older = job.replace("net_", "mlp_", 1)  # what the ops were called
    for name in (f"ops.{job}", job, f"ops.{older}"):
        try:
            return importlib.import_module(f"vaefast.bench.{name}")
        except ModuleNotFoundError:
            continue
    path = Path(__file__).with_name(f"{job}.py")
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(job, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    answers()
