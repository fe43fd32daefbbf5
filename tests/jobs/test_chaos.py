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
from vaefast.jobs.durable import replace_whole
from vaefast.jobs.leases import Leases, process_start

KILLS = int(os.environ.get("VAEFAST_CHAOS", "2"))
SHARDS = 3 * (KILLS + 1)
SIZE = 4
ROWS = SIZE * SHARDS - 1
AHEAD = 4  # shards that may be finished before the next kill
SAMPLES = 50_000  # so that kills hit computing, reading and writing
MAIN = [sys.executable, "-I", "-c", "import sys; from vaefast.cli import main; sys.exit(main())"]
GATED = f'''
import time
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

class Gated:
    """Rows of x.npy; shards from the number in the file gate on wait until it is larger."""

    fingerprint = "gated"

    def __init__(self):
        self.x = np.load(HERE / "x.npy", mmap_mode="r")

    def __len__(self):
        return len(self.x)

    def read(self, start, stop):
        while start // {SIZE} >= int((HERE / "gate").read_text()):
            time.sleep(0.01)
        return np.array(self.x[start:stop])
'''


def small_files():
    """No file may grow beyond some bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


def resumed(run, *words, **options):
    command = [*MAIN, "jobs", "resume", str(run.folder), *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)


def finished(run):
    return run.manifest.shards - len(run.missing())


def open_gate(folder, shards):
    replace_whole(folder / "gate", str(shards).encode())


def workers(run, driver):
    """Processes beside the driver that live and have a shard now."""
    leases = Leases(run.places.leases)
    holders = [leases.holder(name) for name in leases.names() if name != "driver"]
    alive = [h for h in holders if h is not None and process_start(h.pid) == h.started]
    return [holder.pid for holder in alive if holder.pid != driver.pid]


def disturbed(run, choice):
    """Work on a run with kills at random numbers of finished shards; what was killed.

    The gate keeps the run from its end, and then holds workers in the middle of their shards: there
    is something to kill however late we look.
    """
    driver = None
    moments = sorted(choice.sample(range(1, run.manifest.shards - 2), KILLS))
    victims = ["worker", "driver", *choice.choices(("worker", "driver"), k=KILLS - 2)]
    for moment, victim in zip(moments, victims, strict=True):
        open_gate(run.folder.parent, min(moment + AHEAD, run.manifest.shards - 1))
        if driver is None or driver.poll() is not None:
            driver = resumed(run, "--workers", "2")
        while finished(run) < moment or not workers(run, driver):
            assert driver.poll() is None
            time.sleep(0.01)
        time.sleep(choice.random() * 0.1)
        if victim == "driver":
            driver.kill()
            driver.wait()
        else:
            kill_worker(run, driver, choice)
    driver.kill()
    driver.wait()
    open_gate(run.folder.parent, run.manifest.shards)
    return victims


def kill_worker(run, driver, choice):
    """One that has a shard at this moment."""
    while not (pids := workers(run, driver)):
        assert driver.poll() is None
        time.sleep(0.001)
    os.kill(choice.choice(pids), signal.SIGKILL)


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
    (tmp_path / "rows.py").write_text(GATED)
    open_gate(tmp_path, SHARDS)
    plan = RunPlan(
        str(tmp_path / "m.safetensors"),
        f"{tmp_path / 'rows.py'}:Gated",
        "robust_probability",
        0.8,
        options={"samples": SAMPLES},
        shard_size=SIZE,
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
