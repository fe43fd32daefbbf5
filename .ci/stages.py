"""The suite in stages, as many at once as there are cores: ``stages.py test``, ``proofs``,
``soundness`` or ``chaos``.

All stages run, whatever becomes of the others. Each prints its output when it ends; the last lines
say what every stage took and whether it passed. The status is 1 where one failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import IO, NamedTuple

INTERPRETED = {"TRITON_INTERPRET": "1", "VAEFAST_REQUIRE": "triton"}
OPS = ("tests/ops", "--backend", "triton")
KERNELS = ("tests/kernels/test_elementary_gpu.py", "tests/kernels/test_barrier.py")
FUZZ = ("tests/ops/test_fuzz.py", "tests/field/test_fuzz_of_models.py")
NOTHING_COLLECTED = 5  # pytest's status where a stage has no test of the kind that is asked for


class Stage(NamedTuple):
    """One process of pytest."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str] = {}  # noqa: RUF012 - is never changed


TEST = (  # the longest first
    Stage("ops, in Triton's interpreter", OPS, INTERPRETED),
    Stage("all but ops", ("tests", "--ignore", "tests/ops")),
    Stage("kernels, in Triton's interpreter", KERNELS, INTERPRETED),
    Stage("ops", ("tests/ops",)),
)
PROOFS = (
    *(stage._replace(arguments=("-m", "proof", *stage.arguments)) for stage in TEST),
    Stage("fuzz in full", FUZZ, {"VAEFAST_FUZZ": "1000"}),
)
SOUND = {"VAEFAST_SOUNDNESS": "80"}
SOUNDNESS = (
    Stage("bounds of encoders", ("tests/soundness/test_bounds_of_encoders.py", "-rP"), SOUND),
    Stage("bounds of images", ("tests/soundness/test_bounds_of_images.py", "-rP"), SOUND),
    Stage("certified radii", ("tests/soundness/test_certified_radii.py", "-rP"), SOUND),
)
KILLS = {"VAEFAST_CHAOS": "20"}
ON_RAY = ("tests/jobs/test_ray.py", "-m", "proof", "-k", "chaos", "-rPs")
CHAOS = (
    Stage("kills of runs", ("tests/jobs/test_chaos.py", "-rP"), KILLS),
    Stage("kills of runs on Ray, skipped without it", ON_RAY, KILLS),
)
STAGES = {"test": TEST, "proofs": PROOFS, "soundness": SOUNDNESS, "chaos": CHAOS}


class Ended(NamedTuple):
    stage: Stage
    status: int
    seconds: float  # of a clock on the wall
    processor_seconds: float  # of its process and of those that it waited for
    output: str

    @property
    def passed(self) -> bool:
        return self.status in (0, NOTHING_COLLECTED)

    def __str__(self) -> str:
        verdict = "passed" if self.passed else f"FAILED ({self.status})"
        took = f"{self.seconds:5.0f} s, {self.processor_seconds:5.0f} s of processors"
        return f"  {verdict:12} {took}  {self.stage.name}: {_last_line(self.output)}"


def main(stages: Sequence[Stage]) -> int:
    """Run all stages; 1 where one fails."""
    ended = []
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the stages share the cores
    with ThreadPoolExecutor(_cores()) as pool:
        for future in as_completed([pool.submit(run, stage) for stage in stages]):
            ended.append(future.result())
            print(f"\n== {ended[-1].stage.name}\n{ended[-1].output}", flush=True)
    print("\n== stages")
    for one in sorted(ended, key=lambda one: stages.index(one.stage)):
        print(one)
    return int(not all(one.passed for one in ended))


def run(stage: Stage) -> Ended:
    """One stage, in a process of its own; -I, or vaefast/ here would hide the installed package."""
    command = [sys.executable, "-I", "-m", "pytest", "-q", *stage.arguments]
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        status, processor_seconds = _waited_for(command, os.environ | stage.environment, output)
        output.seek(0)
        text = output.read()
    return Ended(stage, status, time.monotonic() - start, processor_seconds, text)


def _waited_for(
    command: Sequence[str], environment: dict[str, str], output: IO[str]
) -> tuple[int, float]:
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main(STAGES[sys.argv[1]]))
