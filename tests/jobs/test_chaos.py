"""Kills and a full disk at random moments: no row lost, none doubled, no bit changed.

In short in the suite; `make chaos` runs it with 20 kills.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq

from vaefast import jobs, models
from vaefast.jobs import RunPlan
from vaefast.jobs.leases import Leases

KILLS = int(os.environ.get("VAEFAST_CHAOS", "2"))
SHARDS = 3 * (KILLS + 1)
ROWS = 4 * SHARDS - 1
SAMPLES = 100_000  # enough for a shard to be under way when it is looked at
MAIN = [sys.executable, "-I", "-c", "import sys; from vaefast.cli import main; sys.exit(main())"]


def small_files():
    """No file may grow beyond some bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


def resumed(run, *words, **options):
    command = [*MAIN, "jobs", "resume", str(run.folder), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)


def finished(run):
    return run.manifest.shards - len(run.missing())


def workers(run):
    """Processes that have a shard now."""
    leases = Leases(run.places.leases)
    holders = [leases.holder(name) for name in leases.names() if name != "driver"]
    return [holder.pid for holder in holders if holder is not None]


def kill_one(driver, run, choice):
    """The driver, or one of its workers; what was killed."""
    if choice.random() < 0.5 and (pids := [p for p in workers(run) if p != driver.pid]):
        victim = choice.choice(pids)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:  # it ended meanwhile
            return None
        return "worker"
    driver.kill()
    driver.wait()
    return "driver"


def disturbed(run, choice):
    """Work on a run with kills at random numbers of finished shards; what was killed."""
    killed, driver = [], None
    moments = sorted(choice.sample(range(1, run.manifest.shards - 2), KILLS))
    for moment in moments:
        while finished(run) < moment or not workers(run):
            if driver is None or driver.poll() is not None:
                assert finished(run) < run.manifest.shards or not killed
                driver = resumed(run, "--workers", "2")
            time.sleep(0.01)
        time.sleep(choice.random() * 0.1)
        if driver is not None:
            killed.append(kill_one(driver, run, choice))
    if driver is not None:
        driver.kill()
        driver.wait()
    return killed


def filled(run):
    """Work until a write fails; what was said."""
    process = resumed(run, stderr=subprocess.PIPE, text=True, preexec_fn=small_files)
    _, said = process.communicate()
    assert process.returncode == 2
    return said


def test_kills_and_a_full_disk_change_no_bit(tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{KILLS} kills, seed {seed}")
    choice = random.Random(seed)
    models.save(models.MLPVAE((1, 4, 4), (8, 8), 2).eval(), tmp_path / "m.safetensors")
    x = np.random.default_rng(0).random((ROWS, 1, 4, 4), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    plan = RunPlan(
        str(tmp_path / "m.safetensors"),
        str(tmp_path / "x.npy"),
        "robust_probability",
        0.8,
        options={"samples": SAMPLES},
        shard_size=4,
        attempts=KILLS + 3,
    )
    calm = jobs.create(plan, tmp_path / "calm")
    calm.work()
    run = jobs.create(plan, tmp_path / "run")
    assert "the disk is full" in filled(run)
    print("killed:", disturbed(run, choice))
    assert run.check() == []  # what is there is whole
    run.work()
    table = run.merge(tmp_path / "b.parquet")
    assert table.read_bytes() == calm.merge(tmp_path / "a.parquet").read_bytes()
    assert pq.read_table(table)["index"].to_pylist() == list(range(ROWS))
    assert run.status().complete
    assert not list(run.places.leases.iterdir())
    assert not list(run.places.shards.glob(".*"))
