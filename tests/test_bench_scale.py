"""The simulation of large jobs: every shard once, closed forms, theory, and the page's figures."""

import math
import random
import statistics
from pathlib import Path

import pytest

from vaefast.bench import scale, scale_costs
from vaefast.bench.scale_simulation import Costs, Job, best_size, simulate, waste

FRAGILE = Costs(
    row=0.01, dispatch=0.002, lease=0.003, write=0.004, wait=0.01, bytes_in=100, storage=1e5,
    start=2.0, spread=0.3, slow_share=0.2, slow_factor=3.0, node_life=40.0, notice=1.5, replace=5.0,
)  # fmt: skip


def test_without_failures_a_job_takes_rounds_of_whole_shards():
    for rows, size, workers in ((1000, 10, 7), (10, 10, 3), (1, 4, 64), (990, 10, 9)):
        job = Job(rows, size, workers)
        outcome = simulate(job, Costs(row=0.5))
        whole = math.ceil(job.shards / workers) * size * 0.5
        last = rows - (job.shards - 1) * size  # rows of the last shard
        alone = job.shards % workers == 1 or workers == 1
        assert outcome.seconds == pytest.approx(whole - 0.5 * (size - last) * alone)


@pytest.mark.parametrize("seed", range(8))
def test_every_shard_is_written_once_whatever_fails(seed):
    numbers = random.Random(seed)
    job = Job(numbers.randint(1, 3000), numbers.randint(1, 40), numbers.randint(1, 20), 4)
    outcome = simulate(job, FRAGILE, seed)
    assert outcome.written == [1] * job.shards
    assert min(outcome.attempts) == 1
    assert bool(outcome.lost) == (sum(outcome.attempts) > job.shards)


def test_a_seed_is_a_run():
    job = Job(2000, 16, 12, 4)
    assert simulate(job, FRAGILE, 3) == simulate(job, FRAGILE, 3)
    assert simulate(job, FRAGILE, 3).seconds != simulate(job, FRAGILE, 4).seconds


def test_restarts_cost_what_theory_says():
    """One worker: E[seconds of a shard] = (1/λ + D)(exp(λT) − 1), lost work taken anew."""
    life, down, each = 10.0, 3.0, 6.0
    job, costs = Job(4000, 1, workers=1), Costs(row=each, node_life=life, replace=down)
    outcome = simulate(job, costs)
    expected = (life + down) * (math.exp(each / life) - 1)
    assert outcome.seconds / job.shards == pytest.approx(expected, rel=0.05)
    assert sum(outcome.attempts) / job.shards == pytest.approx(math.exp(each / life), rel=0.05)


def test_a_node_takes_the_work_of_its_workers_alone():
    job, costs = Job(3000, 10, workers=6, per_node=3), Costs(row=0.1, node_life=20.0, replace=1.0)
    outcome = simulate(job, costs)
    again = sum(outcome.attempts) - job.shards
    assert 0 < again <= 3 * outcome.failures
    assert outcome.lost <= again * 10 * 0.1


@pytest.mark.parametrize(
    ("server", "field"), [("driver", "dispatch"), ("metadata", "write"), ("metadata", "lease")]
)
def test_a_full_server_sets_the_time(server, field):
    job = Job(2000, 1, workers=50)
    outcome = simulate(job, Costs(row=0.001, **{field: 0.1}))
    assert outcome.seconds == pytest.approx(200, rel=0.01)
    assert outcome.load(server) == pytest.approx(1, rel=0.01)


def test_reading_is_bounded_by_the_bytes_of_all():
    outcome = simulate(Job(1000, 10, workers=20), Costs(row=0.001, bytes_in=500, storage=1000.0))
    assert outcome.seconds == pytest.approx(500, rel=0.01)


def test_the_formula_is_near_the_simulation_and_its_size_near_the_best():
    costs = Costs(row=0.01, wait=0.2, start=5.0, node_life=40_000.0, notice=10.0, replace=100.0)
    sizes = [2**k for k in range(3, 12)]
    jobs = [Job(200_000, size, 16) for size in sizes]
    found = [
        statistics.mean(simulate(job, costs, seed).efficiency(job, costs) for seed in range(3))
        for job in jobs
    ]
    for job, efficiency in zip(jobs, found):
        assert 1 / (1 + waste(job, costs)) == pytest.approx(efficiency, abs=0.05)
    by_formula = min(jobs, key=lambda job: abs(math.log(job.size / best_size(job, costs))))
    assert found[jobs.index(by_formula)] > max(found) - 0.01


def test_a_straggler_holds_up_the_end_by_its_shard():
    job = Job(640, 10, workers=64)
    usual, slow = (
        simulate(job, Costs(row=1, slow_share=1 / 64, slow_factor=f)) for f in (1.0, 3.0)
    )
    assert (usual.seconds, slow.seconds) == (10, 30)


def test_the_page_holds_the_simulated_figures(monkeypatch):
    """`python -m vaefast.bench.scale` writes them."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert scale.main(["--check"]) == 0


def test_rows_are_simulated_from_measured_costs(tmp_path):
    costs = scale.measured(Path(__file__).parent.parent / "bench/results/scale_costs.csv")
    found = list(scale.rows(costs, (20_000,), (4096,)))
    assert {row.case for row in found} == {*(f"sizes {work}" for work in scale.WORK), "workers"} | {
        *scale.ASSUMED
    }
    scale._write(tmp_path / "rows.csv", iter(found))
    assert scale._read(tmp_path / "rows.csv") == found


def test_costs_of_the_disk_are_measured(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(scale_costs, "SHARDS", (16,))
    monkeypatch.setattr(scale_costs, "FILES", 20)
    found = {cost.case: cost for cost in scale_costs.disk(tmp_path)}
    assert found["shard written, 16 rows"].value > 0
    assert all(cost.low <= cost.value <= cost.high for cost in found.values())
    assert len(list((tmp_path / "run/shards").glob("*.parquet"))) == 20
