"""What disks, clocks, signals and other drivers do to a run, each with its one line."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest

from vaefast import jobs
from vaefast.jobs import durable
from vaefast.jobs.leases import Leases
from vaefast.jobs.local import driving


@pytest.fixture
def run(plan_of, folder):
    return jobs.create(plan_of(), folder / "run")


def whole(run, out):
    run.work()
    return run.merge(out).read_bytes()


def test_a_poisoned_input_is_a_failed_row(run):
    run.work()
    status = run.status()
    assert status.complete
    assert status.failed == {0: (1, 1)}
    assert "1 failed rows in 1 shards" in str(status)


def test_rows_that_make_the_model_raise_fail_alone(plan_of, folder):
    x = np.load(folder / "x.npy")
    x[[3, 20]] = 7.0
    np.save(folder / "x.npy", x)
    run = jobs.create(plan_of(box=(0.0, 10.0)), folder / "run")
    run.work()
    assert {n: count for n, (count, _) in run.status().failed.items()} == {0: 2, 2: 1}


def test_failed_rows_are_tried_as_often_as_the_plan_says(plan_of, folder):
    run = jobs.create(plan_of(attempts=3), folder / "run")
    before = whole(run, folder / "a.parquet")
    for tried in (2, 3, 3):
        run.work(retry_failed=True)
        assert run.status().failed == {0: (1, tried)}
    assert run.merge(folder / "b.parquet").read_bytes() == before


def test_a_full_disk_loses_no_row(run, folder, monkeypatch):
    calls, replace = [], os.fsync

    def full(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode):
            calls.append(handle)
        if len(calls) == 4 and calls[-1] == handle:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(handle)

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full; free some space"):
        run.work()
    assert not list((run.folder / "shards").glob(".*"))
    assert not list((run.folder / "leases").iterdir())
    there = len(run.missing())
    assert there
    run.work()
    assert not run.damaged()
    assert not run.missing()


def test_a_folder_that_cannot_be_written_says_so(run, monkeypatch):
    def denied(*_):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "link", denied)
    with pytest.raises(OSError, match="the folder cannot be written; mend its permissions"):
        run.work()


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_a_damaged_shard_is_found_and_made_anew(run, folder, how):
    before = whole(run, folder / "a.parquet")
    path = run.places.shard(2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes({"truncated": data[:-9], "flipped": data, "empty": b""}[how])
    with pytest.raises(
        ValueError, match=r"00000002.parquet is damaged: .* resume .* makes it anew"
    ):
        run.merge(folder / "b.parquet")
    assert not run.verify(seed=0).ok
    (line,) = run.check()
    assert line.startswith("00000002.parquet: it")
    run.work()
    assert run.merge(folder / "b.parquet").read_bytes() == before


def test_numbers_that_were_written_wrong_are_found_by_computing_them_again(run):
    from dataclasses import replace

    from vaefast.jobs.shards import read_shard, write_shard

    run.work()
    shard = read_shard(run.places.shard(1), run.manifest)
    wrong = replace(shard, values={**shard.values, "p": shard.values["p"] + 1e-9})
    write_shard(wrong, run.manifest, run.places, "someone")
    found = run.verify(share=1.0)
    assert found.different == ("00000001.parquet: p in 8 rows, first 0 came out otherwise",)


def test_a_second_driver_is_refused_and_told_of_the_first(run):
    with driving(run), pytest.raises(RuntimeError, match=f"has a driver, process {os.getpid()} on"):
        run.work()
    run.work()


def test_another_plan_on_the_same_folder_is_refused_and_named(run, plan_of, folder):
    with pytest.raises(ValueError, match=r"seed: 0 there, 1 here; pass the same"):
        jobs.create(plan_of(seed=1), folder / "run")
    with pytest.raises(ValueError, match=r"r: \[0.8\] there, \[0.9\] here"):
        jobs.create(plan_of(r=0.9), folder / "run")
    assert jobs.create(plan_of(), folder / "run").manifest == run.manifest


def test_data_that_changed_are_refused(run, folder):
    np.save(folder / "x.npy", np.load(folder / "x.npy")[::-1].copy())
    with pytest.raises(ValueError, match=r"data: .* there, .* here"):
        run.work()


def test_a_folder_of_something_else_is_left_alone(plan_of, folder):
    (folder / "own").mkdir()
    (folder / "own" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match=r"holds 'thesis.tex' and is no run"):
        jobs.create(plan_of(), folder / "own")


def test_a_manifest_that_was_changed_is_refused(run):
    path = run.places.manifest
    values = json.loads(path.read_text())
    values["entries"]["seed"] = 5
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="was changed after it was written"):
        jobs.open(run.folder)


def test_a_budget_in_seconds_is_refused(plan_of):
    with pytest.raises(ValueError, match=r"budget.seconds makes numbers depend on the machine"):
        plan_of(options={"samples": "auto", "budget": {"seconds": 3.0}})


def test_a_torn_last_line_says_nothing(tmp_path):
    path = tmp_path / "list.jsonl"
    durable.append_line(path, {"shard": 1})
    with path.open("ab") as file:
        file.write(b'{"shard": 2, "fi')
    durable.append_line(path, {"shard": 3})
    assert [entry["shard"] for entry in durable.read_lines(path)] == [1, 3]


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def elsewhere(leases, name):
    """As if a process of another machine held it."""
    path = leases.folder / f"{name}.json"
    values = json.loads(path.read_text()) | {"machine": "another", "host": "far"}
    path.write_text(json.dumps(values))


def test_a_clock_that_goes_backwards_delays_a_lease_and_does_not_keep_it(tmp_path):
    wall, clock = Clock(1e9), Clock(50.0)
    theirs, ours = (Leases(tmp_path, 10.0, wall=wall, clock=clock) for _ in range(2))
    assert theirs.claim("0")
    elsewhere(theirs, "0")
    wall.now -= 1e6  # what expires never comes
    assert not ours.claim("0")
    clock.now += 9.0
    assert not ours.claim("0")
    clock.now += 2.0  # no sign of life for longer than ten seconds
    assert ours.claim("0")
    theirs.close()
    ours.close()


def test_the_lease_of_a_dead_process_is_free_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from vaefast.jobs.leases import Leases; "
        "Leases(Path(sys.argv[1])).claim('0')"
    )
    subprocess.run([sys.executable, "-I", "-c", code, str(tmp_path)], check=True)
    ours = Leases(tmp_path)
    assert ours.holder("0") is not None
    assert ours.claim("0")
    ours.close()
    assert not ours.names()


MAIN = [sys.executable, "-I", "-c", "import sys; from vaefast.cli import main; sys.exit(main())"]


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
def test_termination_ends_a_run_soon_and_says_how_to_go_on(plan_of, folder, workers):
    run = jobs.create(plan_of(options={"samples": 2_000_000}), folder / "run")
    command = [*MAIN, "jobs", "resume", str(run.folder), *workers]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (run.places.leases / "00000000.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert said.splitlines()[-1] == (
        f"vaefast: stopped; 0 of 6 shards are done; go on with vaefast jobs resume {run.folder}"
    )
    assert not list(run.places.shards.iterdir())


def test_two_workers_on_shares_of_one_run_finish_it(run, folder, plan_of):
    run.take(1, 2)
    assert not run.missing()
    other = jobs.create(plan_of(shard_size=3), folder / "other")
    assert run.merge(folder / "a").read_bytes() == whole(other, folder / "b")
