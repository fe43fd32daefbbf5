"""Progress: rates, what is left, where the time goes, and what machines read of it."""

import io
import json
import os
import re
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from vaefast.jobs.progress import Progress, Snapshot, duration
from vaefast.jobs.prometheus import metrics
from vaefast.jobs.watching import from_shards, watch


@dataclass
class Done:
    shard: int
    rows: int = 100
    failed: int = 0
    state: str = "written"
    seconds: dict = field(default_factory=lambda: {"read": 0.5, "compute": 1.5})


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def console(terminal=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)


def told(progress, clock, count, pause=2.0, **options):
    for shard in range(count):
        clock.now += pause
        progress(Done(shard, **options))
    return progress.now


def test_rate_eta_failures_and_shares():
    clock = Clock()
    progress = Progress(1000, before=Snapshot(1000, done=200, shards=2), clock=clock)
    now = told(progress, clock, 4, failed=1)
    assert (now.done, now.failed, now.shards) == (600, 4, 6)
    assert now.rate == pytest.approx(50.0)
    assert now.left == pytest.approx(8.0)
    assert now.shares == {"compute": 0.75, "read": 0.25}
    words = "600 of 1000 rows (60.0 %), 50 rows/s, 8 s left, 4 failed, compute 75 %, read 25 %"
    assert now.words() == words


def test_the_rate_is_that_of_the_last_minute():
    clock = Clock()
    progress = Progress(10**6, clock=clock)
    told(progress, clock, 100, pause=10.0)
    now = told(progress, clock, 100, pause=1.0)
    assert now.rate == pytest.approx(100.0, rel=0.02)


def test_the_rate_of_slow_shards_is_known():
    clock = Clock()
    assert told(Progress(10**6, clock=clock), clock, 3, pause=500.0).rate == pytest.approx(0.2)


def test_shards_that_others_made_are_not_counted():
    clock = Clock()
    progress = Progress(1000, clock=clock)
    for state in ("there", "held"):
        progress(Done(0, state=state))
    assert progress.now == Snapshot(1000)
    assert progress.now.words() == "0 of 1000 rows (0.0 %), 0 failed"


def test_a_console_that_is_no_terminal_gets_few_lines():
    clock, out = Clock(), console()
    with Progress(10_000, console=out, clock=clock) as progress:
        told(progress, clock, 100, pause=0.5)
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 6  # every ten of fifty seconds, and the end
    assert lines[-1].startswith("10000 of 10000 rows (100.0 %), 0 failed, compute")


def test_a_terminal_gets_a_bar():
    clock, out = Clock(), console(terminal=True)
    with Progress(500, console=out, clock=clock) as progress:
        told(progress, clock, 5)
    assert "500 of 500 rows" in out.file.getvalue()


def test_json_lines_are_one_per_shard_and_are_added(tmp_path):
    clock, path = Clock(), tmp_path / "progress.jsonl"
    for _ in range(2):
        with Progress(1000, lines=path, clock=clock) as progress:
            told(progress, clock, 3, failed=1)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(entries) == 6
    assert entries[2] | {"time": 0} == {
        "time": 0,
        "shard": 2,
        "rows": 100,
        "failed": 1,
        "seconds": {"read": 0.5, "compute": 1.5},
        "done": 300,
        "of": 1000,
        "failed_in_all": 3,
        "rows_per_second": 50.0,
    }


def test_metrics_follow_the_text_format():
    now = Snapshot(1000, 300, 2, 3, {"read": 0.5, "compute": 2.0}, 50.0)
    text = metrics(now, 'a "run"\\\n', 12.5)
    run = r'run="a \"run\"\\\n"'
    assert f"vaefast_run_rows_completed_total{{{run}}} 300\n" in text
    assert f'vaefast_run_stage_seconds_total{{{run},stage="compute"}} 2.0\n' in text
    assert f"vaefast_run_remaining_seconds{{{run}}} 14.0\n" in text
    kinds = dict(re.findall(r"# TYPE (\S+) (\w+)", text))
    assert all((kind == "counter") == name.endswith("_total") for name, kind in kinds.items())
    assert all(re.fullmatch(r"vaefast_run_[a-z_]+", name) for name in kinds)
    samples = re.findall(r"^(vaefast\w+)\{", text, re.MULTILINE)
    assert set(samples) == set(kinds)
    assert len(set(re.findall(r"# HELP (\S+)", text))) == len(kinds)
    assert text.endswith("\n")
    unknown = metrics(Snapshot(10), "x", 0.0)
    assert "rows_per_second" not in unknown
    assert "remaining" not in unknown


def test_metrics_are_replaced_at_once(tmp_path, monkeypatch):
    clock, path = Clock(), tmp_path / "vaefast.prom"
    path.write_text("old")
    seen = []
    replace = os.replace

    def looking(source, target, **options):
        seen.append(path.read_text())
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", looking)
    with Progress(1000, metrics=path, name="r", clock=clock) as progress:
        told(progress, clock, 8, pause=0.3)
    assert seen[0] == "old"
    assert 2 <= len(seen) <= 4  # not for every shard
    assert 'rows_completed_total{run="r"} 800' in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["vaefast.prom"]


def entries(count, rows=100):
    seconds = {"compute": 3.0, "read": 1.0}
    return {
        k: {"start": k * rows, "stop": (k + 1) * rows, "failed": 1, "seconds": seconds}
        for k in range(count)
    }


def test_a_folder_says_how_far_its_run_is():
    """A checksum is written before its shard, so shard 4 is not there yet."""
    written = {k: 1000.0 + 2 * k for k in range(4)}
    now = from_shards(1000, entries(5), written, now=1007.0)
    assert (now.done, now.failed, now.shards, now.rate) == (400, 4, 4, 50.0)
    assert now.shares == {"compute": 0.75, "read": 0.25}
    assert from_shards(1000, entries(5), written, now=2000.0).rate is None  # nobody works
    assert from_shards(1000, {}, {}).words() == "0 of 1000 rows (0.0 %), 0 failed"


def test_a_folder_of_slow_shards_has_a_rate():
    written = {k: 1000.0 + 300 * k for k in range(4)}
    assert from_shards(1000, entries(4), written, now=2100.0).rate == pytest.approx(1 / 3)


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_ends_with_the_run(terminal):
    states = iter([Snapshot(300, 100), Snapshot(300, 100), Snapshot(300, 200), Snapshot(300, 300)])
    out, slept = console(terminal), []
    assert watch(lambda: next(states), out, every=2.0, sleep=slept.append).done == 300
    assert slept == [2.0] * 3
    assert "300 of 300 rows" in out.file.getvalue()
    if not terminal:
        assert len(out.file.getvalue().splitlines()) == 3  # nothing twice


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (3700, "1 h 1 min"), (200_000, "2 d 7 h"), (5, "5 s")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
