"""Ours at two commits, in turns: what a change does to the times, without what the machine does.

``vaefast bench --base COMMIT`` lays the commit out in a temporary worktree and builds its extension
there. Two processes, one a commit, build the same cases and take turns in every round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vaefast.bench.place import Place

__all__ = ["compare_with"]

CHILD = Path(__file__).with_name("_turns.py")  # runs in both: it takes the older lists as well
MAPPED = {"vaefast/kernels": "kernels/gpu", "vaefast/bench": "bench"}


def compare_with(
    commit: str, jobs: list[str], place: Place, *, rounds: int = 15, say: Callable = print
) -> None:
    """Print the medians of ours at a commit and today, and their ratio, case by case.

    Args:
        commit: what git calls it, in the checkout that is the current folder.
        jobs: names of :data:`vaefast.bench.jobs.JOBS`.
        place: the device.
        rounds: in each of which the two take turns; which is first changes too.
        say: where the lines go.

    Raises:
        ValueError: no such commit, or its extension does not build.
    """
    with ExitStack() as stack:
        root = stack.enter_context(_worktree(commit))
        site = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _lay_out(root, site)
        then = stack.enter_context(Turns(place, os.environ | {"PYTHONPATH": str(site)}))
        now = stack.enter_context(Turns(place, dict(os.environ)))
        say(f"{'us at ' + commit[:12]:>22} {'us now':>12} {'then/now':>9}")
        for job in jobs:
            for line in _compared(job, then, now, rounds):
                say(line)


def _compared(job: str, then: Turns, now: Turns, rounds: int) -> Iterator[str]:
    """A line for each of ours that both commits have, by the names of the cases."""
    before, today = then.cases(job), now.cases(job)
    for case in today:
        if case not in before:
            yield f"  {job}  {case}: not in the older commit"
            continue
        times: dict[str, list[list[float]]] = {}
        for round in range(rounds):
            order = (then, now) if round % 2 else (now, then)
            found = {turns: turns.seconds(job, case) for turns in order}
            for name in found[now].keys() & found[then].keys():
                times.setdefault(name, []).append([found[then][name], found[now][name]])
        for name, pairs in sorted(times.items()):
            old, new = (statistics.median(column) * 1e6 for column in zip(*pairs))
            ratio = statistics.median(a / b for a, b in pairs)
            yield f"{old:22.1f} {new:12.1f} {ratio:9.3f}  {job}  {case}: {name}"


class Turns:
    """A process that times a case when it is asked to."""

    def __init__(self, place: Place, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), place.device, str(int(place.tiny))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(tempfile.gettempdir()),  # in a checkout vaefast/ would be imported
        )

    def cases(self, job: str) -> list[str]:
        return self._ask(["cases", job])

    def seconds(self, job: str, case: str) -> dict[str, float]:
        """A call's seconds for each provider of ours."""
        return self._ask(["seconds", job, case])

    def _ask(self, question: list[str]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise ValueError(f"the process ended at {' '.join(question)}; its error is above")
        return json.loads(answer)

    def __enter__(self) -> Turns:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """A checkout of a commit, removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "base"
        _git("worktree", "add", "--detach", "--quiet", str(root), commit)
        try:
            yield root
        finally:
            _git("worktree", "remove", "--force", str(root))


def _git(*words: str) -> None:
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"git {' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")


def _lay_out(root: Path, site: Path) -> None:
    """The package as an install lays it out, with an extension of its own."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = os.environ | {"VAEFAST_STRICT_BUILD": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the extension does not build there: {done.stderr.strip()[-2000:]}")
    (site / "vaefast").mkdir()
    for path in (root / "vaefast").iterdir():
        (site / "vaefast" / path.name).symlink_to(path)
    for name, source in MAPPED.items():
        (site / name).symlink_to(root / source)
