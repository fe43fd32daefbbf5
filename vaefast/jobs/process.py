"""A worker in a process of its own: numbers of shards come in, what became of them goes out."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["main", "start"]

END = None  # no more shards
ORPHANED = 3  # status of a worker whose driver is gone
CODE = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from vaefast.jobs.process import main; main(sys.argv[1], float(sys.argv[2]), sys.argv[3])"
)


def start(
    folder: Path, environment: Mapping[str, str], ttl: float, task: str
) -> subprocess.Popen[bytes]:
    """A new worker of a run, not forked: what is imported here has no part in it.

    Args:
        folder: of the run.
        environment: what differs from ours.
        ttl: s, of its leases.
        task: what it does with a number: "work" or "again".
    """
    command = [sys.executable, "-c", CODE, json.dumps(sys.path), str(folder), str(ttl), task]
    own = os.environ | dict(environment)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=own, bufsize=0, **pipes)  # type: ignore[call-overload]


def main(folder: str, ttl: float, task: str) -> None:
    """Work until there are no more numbers, or whoever sends them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's affair
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a model's own code prints
    numbers: queue.Queue[int | None] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, numbers), daemon=True).start()
    try:
        _work(Path(folder), ttl, task, numbers, out)
    except Exception as error:
        _say(out, refused=_described(error), full=isinstance(error, OSError))


def _listen(source: IO[bytes], numbers: queue.Queue[int | None]) -> None:
    """Every line is a number, or "end"; a pipe that closes before is a driver that died."""
    for line in source:
        if line.strip() == b"end":
            numbers.put(END)
            return
        numbers.put(int(line))
    os._exit(ORPHANED)


def _work(
    folder: Path, ttl: float, task: str, numbers: queue.Queue[int | None], out: IO[str]
) -> None:
    from vaefast.jobs.worker import Worker

    with Worker(folder, ttl=ttl) as worker:
        run = worker.again if task == "again" else worker.work
        _say(out, ready=True)
        while (number := numbers.get()) is not END:
            try:
                done = run(number)
            except OSError as error:
                _say(out, shard=number, error=_described(error), full=True)
            except Exception as error:
                _say(out, shard=number, error=_described(error), full=False)
            else:
                _say(out, **vars(done))


def _say(out: IO[str], **values: Any) -> None:
    out.write(json.dumps(values) + "\n")


def _described(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
