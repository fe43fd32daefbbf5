"""What a run costs is put together from a process's stages and memory; all of it is there."""

import itertools
import os

import numpy as np
import pytest
import torch

from vaefast import models
from vaefast.bench import runs

pytest.importorskip("pyarrow")
pytest.importorskip("xxhash")


class Inner:
    def work(self, clocks):
        with clocks.of("inner"):
            return 7

    @property
    def size(self):
        return 3


def test_a_stage_has_the_time_of_no_other_one():
    ticks = itertools.count()
    clocks = runs.Clocks(lambda: next(ticks))
    owner = type("Owner", (Inner,), dict(vars(Inner)))
    clocks.on(owner, "work", "outer")
    clocks.on(owner, "size", "property")
    assert (owner().work(clocks), owner().size) == (7, 3)
    with pytest.raises(KeyError), clocks.of("failed"):
        raise KeyError
    found = clocks.total()
    assert found == {"rest": 4, "outer": 2, "inner": 1, "property": 1, "failed": 1}
    assert sum(found.values()) == next(ticks) - 1


def test_the_parts_of_a_run_add_up(tmp_path):
    vae = models.MLPVAE((1, 4, 4), (8,), 2).eval()
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 4, 4), dtype=np.uint8)
    costs = runs.measured("tiny", vae, x, tmp_path, shard_size=16, samples=20, few=20)
    stages = [getattr(costs, name) for name in (*runs.ONE_OFF, "compute", *runs.BY_SHARD)]
    assert all(seconds > 0 for seconds in stages)
    assert costs.job == pytest.approx(sum(stages))
    assert costs.overhead == pytest.approx(costs.job / costs.bare - 1)
    assert costs.rate > costs.bare / costs.job
    assert min(costs.memory, costs.memory_few) > 10
    assert len(list((tmp_path / "run/shards").glob("*.parquet"))) == 3
    assert len(list((tmp_path / "few/shards").glob("*.parquet"))) == 2
    assert f"{costs.few} inputs" in runs.table(costs)


def test_a_process_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "START", "raise SystemExit(1)")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        runs.run_of({"model": "none", "data": "none"}, tmp_path, lambda number: None)


def test_memory_is_that_of_the_process():
    with runs.peak_of(os.getpid()) as peak:
        while not peak[0]:
            pass
        before = peak[0]
        held = torch.ones(100 << 18, dtype=torch.float32)  # 100 MiB
        while peak[0] < before + 90:
            pass
    assert len(held)
