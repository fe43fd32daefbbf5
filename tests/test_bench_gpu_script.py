"""bench/gpu.sh in its dry run, and the compilation in parallel processes that it begins with."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vaefast.bench import Benchmark, Place
from vaefast.bench.gpu import warm
from vaefast.bench.jobs import JOBS, names
from vaefast.bench.ops import _jax as jx

ROOT = Path(__file__).parent.parent
TINY = Place("cpu", tiny=True)


def test_slow_kernels_are_compiled_first_and_peers_last():
    found = warm.tasks(list(names(TINY)), TINY)
    jobs = [name for name, _, peers in found if not peers]
    assert jobs[: jobs.index("pgd_step")] == ["net_chain"] * 3 + ["net_trajectory"] * 3
    assert set(jobs) == set(names(TINY))
    peers = [name for name, _, peers in found if peers]
    assert found[-len(peers) :] == [task for task in found if task[2]]
    assert list(dict.fromkeys(peers)) == list(JOBS[:5])


def calls_of(monkeypatch, task, **providers):
    """What a task on these providers says, and whom it called."""
    called, lines = [], []
    names = {"ours": "vaefast", "theirs": "eager", "compiled": "torch.compile, CUDA graph"}
    given = {
        names[key]: lambda key=key, value=value: called.append(key) or value()
        for key, value in providers.items()
    }
    case = Benchmark("pgd_step", "toy", given, bytes=1, flop=1)
    monkeypatch.setattr(warm, "cases", lambda name, place: [("toy", lambda: case)])
    warm.work(task, TINY, lines.append)
    return called, lines


def test_a_task_calls_ours_once_or_the_compiled_peers(monkeypatch):
    providers = dict.fromkeys(("ours", "theirs", "compiled"), lambda: torch.ones(1))
    called, lines = calls_of(monkeypatch, ("pgd_step", 0, False), **providers)
    assert called == ["ours"]
    assert lines[0].endswith(" s  pgd_step  toy")
    called, lines = calls_of(monkeypatch, ("pgd_step", 0, True), **providers)
    assert called == ["compiled"]
    assert lines[0].endswith("  compiled peers")


def test_what_fails_to_warm_up_is_told(monkeypatch):
    def broken():
        raise RuntimeError("no such kernel")

    _, lines = calls_of(monkeypatch, ("pgd_step", 0, False), ours=broken)
    assert lines == ["  not warmed  pgd_step  toy: RuntimeError: no such kernel"]


def module(*arguments):
    command = [sys.executable, "-m", "vaefast.bench", "--dry-run", "--warm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_processes_share_the_cases():
    done = module("leapfrog_step", "pgd_step", "--processes", "2")
    assert done.returncode == 0, done.stderr
    lines = sorted(line.split("s  ", 1)[1] for line in done.stdout.splitlines())
    assert lines == [
        "leapfrog_step  N=3 d=5",
        "pgd_step  l2 B=5 D=96", "pgd_step  l2 B=5 D=96  compiled peers",
        "pgd_step  linf B=5 D=96", "pgd_step  linf B=5 D=96  compiled peers",
    ]  # fmt: skip


def test_compilation_ends_with_its_time():
    done = module("net_chain", "--seconds", "0")
    assert (done.returncode, done.stdout) == (0, "")


def test_an_unknown_job_is_not_compiled():
    with pytest.raises(ValueError, match=r"op must be one of pgd_step.* on a GPU, got 'pgd'"):
        warm.warm(["pgd"], TINY, processes=1, seconds=1.0)


@pytest.fixture
def no_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    jx.platform.cache_clear()
    yield
    jx.platform.cache_clear()


def test_a_run_says_why_jax_is_missing(no_jax):
    assert jx.missing() == "it is not installed"
    assert not jx.installed()


def test_jax_without_the_device_is_missing(monkeypatch):
    monkeypatch.setattr(jx, "found", lambda *packages: True)
    monkeypatch.setattr(jx, "platform", lambda: ("cpu", ""))
    assert jx.missing() == ""
    assert jx.missing(gpu=True) == "it has no GPU here, only cpu"
    monkeypatch.setattr(jx, "platform", lambda: ("", "RuntimeError: no plugin"))
    assert jx.missing(gpu=True) == "RuntimeError: no plugin"


def script(tmp_path, *arguments, **environment):
    command = [str(ROOT / "bench" / "gpu.sh"), "--dry-run", *arguments]
    given = {"OUT": str(tmp_path), "PYTHON": sys.executable, "IN_ALL": "6000"}  # s; a busy machine
    environment = {**os.environ, **given, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.skipif(sys.platform != "linux", reason="bash, timeout and env of GNU")
def test_the_script_goes_through_all_stages(tmp_path):
    done = script(tmp_path, "leapfrog_step", VAEFAST_COMMIT="given")
    stages = done.stdout.split("Each stage")[1].splitlines()[1:]
    assert [line.split()[-1] for line in stages] == ["ok"] * 6, done.stdout
    assert done.returncode == 0
    assert {p.name for p in tmp_path.iterdir()} >= {"dry_run.csv", "dry_run.log"}
    assert not (ROOT / "bench" / "results" / "dry_run.csv").exists()
    rows = list(csv.DictReader((tmp_path / "dry_run.csv").open()))
    assert {row["commit"] for row in rows} == {"given"}


@pytest.mark.skipif(sys.platform != "linux", reason="bash, timeout and env of GNU")
def test_the_script_tells_which_stage_failed_and_goes_on(tmp_path):
    done = script(tmp_path, "no_such_job")
    assert done.returncode == 1
    stages = done.stdout.split("Each stage")[1]
    assert "FAILED" in next(line for line in stages.splitlines() if "no_such_job" in line)
    assert "got 'no_such_job'" in done.stdout
    assert "plots" in stages
