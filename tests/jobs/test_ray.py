"""Runs on Ray itself: the bits of the local engine, whatever is killed; and what is refused."""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import vaefast as vf
from vaefast import jobs
from vaefast.jobs import RayOptions
from vaefast.jobs.fingerprint import digest
from vaefast.jobs.leases import process_start

STORE = 100 << 20  # bytes


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """Ray of these tests alone: a token of its own, no statistics, nothing in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def ray():
    """Ray on two logical processors."""
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'vaefast[ray]'")
    ray.init("local", num_cpus=2, object_store_memory=STORE, include_dashboard=False,
             log_to_driver=False)  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.fixture
def plan(tmp_path):
    """120 inputs in 12 shards."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((120, 1, 8, 8), np.float32))
    torch.manual_seed(0)
    vae = vf.models.MLPVAE((1, 8, 8), (16,), 4).eval()
    options = {"samples": 1000}
    data = str(tmp_path / "x.npy")
    return jobs.RunPlan(vae, data, "robust_probability", 2.0, options=options, shard_size=10)


@pytest.fixture
def undisturbed(plan, tmp_path):
    """The table of the local engine, as bytes."""
    return table(worked(jobs.create(plan, tmp_path / "local")))


def worked(run, **how):
    run.work(**how)
    return run


def table(run):
    """All of a merged table."""
    return run.merge(run.folder / "all.parquet").read_bytes()


def workers(run):
    """Process ids of those that have written a shard."""
    return [int(path.stem.split("-")[-2]) for path in sorted(run.places.checksums.glob("*.jsonl"))]


def kill_after(shards, who):
    """A ``done`` that once, after so many shards, kills."""
    seen = []

    def done(one):
        seen.append(one.shard)
        if len(seen) == shards:
            who()

    done.seen = seen
    return done


@pytest.mark.proof
def test_a_worker_killed_in_mid_run_changes_no_bit(ray, plan, undisturbed, tmp_path):
    """The default of two processors, two workers; the second attempt begins a third."""
    run, told = jobs.create(plan, tmp_path / "ray"), []
    done = kill_after(2, lambda: os.kill(workers(run)[0], signal.SIGKILL))
    run.work("ray", done=done, tell=told.append)
    assert table(run) == undisturbed
    assert sorted(done.seen) == list(range(12))
    assert sum("was lost, its shards go to others" in line for line in told) == 1
    assert run.missing() == []


@pytest.mark.proof
def test_what_ray_has_no_room_for_is_said_at_once(ray, plan, tmp_path):
    run = jobs.create(plan, tmp_path / "ray")
    with pytest.raises(ValueError, match="each asks for 3 CPU and 0 GPU on one node, the largest"):
        run.work("ray", options=RayOptions(cpus_per_worker=3))
    assert len(run.missing()) == 12


@pytest.mark.proof
def test_a_worker_of_other_versions_is_refused(ray, plan, tmp_path, monkeypatch):
    """The run is of another vaefast than the nodes have; the driver looks at the file alone."""
    from vaefast.jobs import ray_pool

    monkeypatch.setattr(ray_pool, "PATIENCE", 1.0)
    run = jobs.create(plan, tmp_path / "ray")
    values = json.loads(run.places.manifest.read_text())
    values["entries"]["vaefast"] = "0.0.9"
    values["fingerprint"] = digest(values["entries"])
    run.places.manifest.write_text(json.dumps(values))
    told = []
    with pytest.raises(ValueError, match=r"vaefast: 0\.0\.9 there, 0\.1\.0 here"):
        jobs.open(run.folder).work("ray", workers=1, tell=told.append)
    assert any(line.startswith("a worker is refused: ") for line in told)


def test_data_that_only_this_process_has_are_refused(plan, tmp_path):
    run = jobs.create(plan, tmp_path / "ray")
    object.__setattr__(run.manifest.plan, "data", {"kind": "object", "type": "mine"})
    with pytest.raises(ValueError, match="cannot be read by workers of Ray; name a file"):
        run.work("ray")


def test_without_ray_one_line_names_the_extra(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'vaefast\[ray\]'") as raised:
        jobs.create(plan, tmp_path / "ray").work("ray")
    assert "\n" not in str(raised.value)


def test_options_of_ray_are_no_other_engine_s(plan, tmp_path):
    run = jobs.create(plan, tmp_path / "run")
    with pytest.raises(ValueError, match='options are of engine "ray"'):
        run.work(options=RayOptions())
    with pytest.raises(ValueError, match="engine must be one of"):
        run.work("dask")


@pytest.fixture
def cluster():
    """A head that computes nothing, and two nodes of one logical processor."""
    pytest.importorskip("ray", reason="Ray is not installed; pip install 'vaefast[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()  # of the tests above
    small = {"object_store_memory": STORE, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    found.two = [found.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.proof
def test_a_node_lost_in_mid_run_changes_no_bit(cluster, plan, undisturbed, tmp_path):
    run, told = jobs.create(plan, tmp_path / "ray"), []
    lose = lambda: cluster.remove_node(cluster.two[0], allow_graceful=False)  # noqa: E731
    done = kill_after(3, lose)
    options = RayOptions(address=cluster.address)
    run.work("ray", done=done, tell=told.append, options=options)
    assert table(run) == undisturbed
    assert sorted(done.seen) == list(range(12))
    assert any("was lost" in line for line in told)


@pytest.mark.proof
def test_a_driver_killed_in_mid_run_is_begun_again(cluster, plan, undisturbed, tmp_path):
    """Its workers end with it, its lock is nobody's, and the next one goes on."""
    run = jobs.create(plan, tmp_path / "ray")
    code = (
        "import os, signal, sys; from vaefast import jobs; seen = []\n"
        "def done(one):\n"
        "    seen.append(one)\n"
        "    if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "jobs.open(sys.argv[1]).work('ray', done=done, "
        "options=jobs.RayOptions(address=sys.argv[2]))"
    )
    command = [sys.executable, "-I", "-c", code, str(run.folder), cluster.address]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    begun = len(run.missing())
    assert 0 < begun <= 9
    run.work("ray", options=RayOptions(address=cluster.address))
    assert table(run) == undisturbed


class Chaos:
    """A driver on a cluster, and what is killed by kill -9: it, a worker, or a node.

    Args:
        cluster: of two nodes.
        run: that the driver works on.
        numbers: random ones.
    """

    CODE = (
        "import sys; from vaefast import jobs; jobs.open(sys.argv[1]).work('ray', "
        "options=jobs.RayOptions(address=sys.argv[2]))"
    )

    def __init__(self, cluster, run, numbers):
        self.cluster, self.run, self.numbers = cluster, run, numbers
        self.killed, self.driver = Counter(), None

    def begin(self):
        """A driver, where none is alive."""
        if self.driver is None or self.driver.poll() is not None:
            words = [sys.executable, "-I", "-c", self.CODE, str(self.run.folder)]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self.driver = subprocess.Popen([*words, self.cluster.address], **quiet)

    def kill(self, what):
        """Whether there was one to kill."""
        if what == "driver":
            self.driver.kill()
            self.driver.wait()
        elif what == "node":
            node = self.numbers.randrange(2)
            self.cluster.remove_node(self.cluster.two[node], allow_graceful=False)
            self.cluster.two[node] = self.cluster.add_node(
                num_cpus=1, object_store_memory=STORE, include_dashboard=False
            )
        elif alive := [pid for pid in workers(self.run) if process_start(pid) > 0]:
            os.kill(self.numbers.choice(alive), signal.SIGKILL)
        else:
            return False
        self.killed[what] += 1
        return True

    def work(self, moments):
        """Kill something whenever as many shards are there as ``moments`` say, to the end."""
        while missing := len(self.run.missing()):
            self.begin()
            there = self.run.manifest.shards - missing
            what = self.numbers.choice(("driver", "worker", "worker", "node"))
            if moments and there >= moments[0] and self.kill(what):
                moments.pop(0)
            time.sleep(0.02)
        assert self.driver.wait(timeout=120) == 0


@pytest.mark.proof
def test_chaos_loses_nothing_doubles_nothing_and_changes_no_bit(cluster, plan, tmp_path):
    """VAEFAST_CHAOS times kill -9 of a worker, the driver or a node, at random moments."""
    kills = int(os.environ.get("VAEFAST_CHAOS", "5"))
    plan = replace(plan, shard_size=1, attempts=100)
    expected = table(worked(jobs.create(plan, tmp_path / "local")))
    numbers = random.Random(kills)
    run = jobs.create(plan, tmp_path / "ray")
    chaos = Chaos(cluster, run, numbers)
    try:
        chaos.work(sorted(numbers.randrange(1, 110) for _ in range(kills)))
    finally:
        if chaos.driver is not None:
            chaos.driver.kill()
    assert chaos.killed.total() == kills
    assert table(run) == expected
    print(f"killed: {dict(chaos.killed)}")


@pytest.mark.proof
def test_an_address_without_a_cluster_is_one_line(plan, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'vaefast[ray]'")
    ray.shutdown()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ConnectionError, match="no Ray cluster answers at 'auto'") as raised:
        jobs.create(plan, tmp_path / "r").work("ray", options=RayOptions(address="auto"))
    assert "\n" not in str(raised.value)
