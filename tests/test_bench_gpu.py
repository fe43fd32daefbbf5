"""The GPU's benchmarks, as far as a CPU goes: the cases, what a bad peer does, the script."""

import csv
import importlib
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vaefast.backends import ops
from vaefast.bench import Benchmark
from vaefast.bench.gpu import JOBS, Place, decode_distance, pairs, run_jobs
from vaefast.bench.gpu.place import at_precision, mlp_at, poisoned, rotating
from vaefast.bench.runner import seconds_on_cpu, tensor_of

ROOT = Path(__file__).parent.parent
TINY = Place("cpu", tiny=True)
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def toy(**options):
    x = torch.rand(100)
    providers = {"vaefast": lambda: x * 2, "theirs": lambda: x + x}
    options = {"bytes": 800, "flop": 400, "providers": providers, **options}
    return Benchmark("pgd_step", "toy cpu", **options)


def rows_of(benchmark, ceilings=None, **options):
    lines = []
    found = pairs.run(benchmark, TINY, ceilings or {}, rounds=1, say=lines.append, **options)
    return list(found), lines


def test_every_op_has_cases():
    assert set(JOBS) == {*ops(), "convolutional_hmc"}


@pytest.mark.parametrize("job", JOBS)
def test_peers_agree_in_tiny_sizes(job):
    """The first case and the last, of which one is in bf16 and one in ieee where both are."""
    cases = importlib.import_module(f"vaefast.bench.gpu.{job}").cases(TINY)
    for title, build in dict((cases[0], cases[-1])).items():
        benchmark = build()
        assert title.split()[-1] in benchmark.case
        rows, lines = rows_of(benchmark)
        assert lines == []
        assert [row.provider for row in rows] == list(benchmark.providers)
        assert benchmark.bytes > 0
        assert set(benchmark.checks) | set(benchmark.at_least_of) <= set(benchmark.providers)


def test_a_peer_that_fails_or_disagrees_is_left_out():
    def broken():
        raise RuntimeError("no such kernel\nand a trace")

    providers = toy().providers
    providers |= {"wrong": lambda: torch.zeros(100), "broken": broken, "fine": providers["theirs"]}
    rows, lines = rows_of(toy(providers=providers))
    assert [row.provider for row in rows] == ["vaefast", "theirs", "fine"]
    assert "left out  wrong: AssertionError" in lines[0]
    assert "left out  broken: RuntimeError: no such kernel" in lines[1]


def test_no_peer_starts_after_the_time_is_up():
    rows, lines = rows_of(toy(), until=time.monotonic() - 1)
    assert [row.provider for row in rows] == ["vaefast"]
    assert lines == ["  left out  theirs: the time is up"]


def test_ours_must_not_fail():
    x, written = torch.rand(100), torch.empty(100)

    def partly():
        written[:99] = x[:99]
        return written

    with pytest.raises(AssertionError, match="not written everywhere"):
        rows_of(toy(providers={"vaefast": partly}))


def test_poison_reaches_results_of_every_kind():
    result = poisoned(lambda: (torch.ones(3), None, torch.arange(4)))
    assert result[2].tolist() == [0, 1, 2, 3]
    held = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(AssertionError, match="not written everywhere"):
        poisoned(lambda: held)


def test_figures_follow_from_the_ceilings():
    for limit, amount in (("copy", 800), ("tf32", 400)):
        rows, _ = rows_of(toy(limit=limit), {"copy": 1e9, "tf32": 1e9})
        for row in rows:
            seconds = row.median_us / 1e6
            assert row.percent_of_ceiling == pytest.approx(100 * amount / 1e9 / seconds)


def test_a_part_is_scaled_up():
    rows, _ = rows_of(toy(scale={"vaefast": 1000.0, "theirs": 1000.0}))
    plain, _ = rows_of(toy())
    assert rows[0].median_us > 100 * plain[0].median_us
    assert rows[1].times_ours < 100


def test_precision_of_the_peers_is_set_and_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with at_precision("ieee"):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    with at_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def test_peers_get_bfloat16_weights_for_bf16_only():
    from vaefast.bench.cases import network

    mlp = network((3, 4), "tanh", dtype=torch.float32)
    assert mlp_at(mlp, "bf16").weights[0].dtype == torch.bfloat16
    assert mlp_at(mlp, "tf32") is mlp


def test_inputs_take_turns():
    calls = rotating(lambda i: lambda: i, [(0,), (1,), (2,)])
    assert [calls() for _ in range(5)] == [0, 1, 2, 0, 1]


def test_the_clock_is_that_of_the_device():
    assert TINY.clock is seconds_on_cpu
    assert Place("cuda").clock.__name__ == "seconds_on_gpu"


def run(monkeypatch, cases, place=TINY, **options):
    """One job in place of pgd_step's."""
    module = importlib.import_module("vaefast.bench.gpu.pgd_step")
    monkeypatch.setattr(module, "cases", lambda place: cases)
    lines = []
    failures = run_jobs(["pgd_step"], place, rounds=1, say=lines.append, **options)
    return failures, lines


def test_a_failed_case_is_told_and_the_next_one_runs(monkeypatch, tmp_path):
    def broken():
        raise RuntimeError("out of memory")

    out = tmp_path / "new" / "gpu.csv"
    failures, lines = run(monkeypatch, [("a", broken), ("b", toy)], out=out)
    assert failures == 1
    assert lines[-1] == "  FAILED  pgd_step  a:  RuntimeError: out of memory"
    rows = list(csv.DictReader(out.open()))
    assert [row["op"] for row in rows] == ["ceiling"] * 4 + ["pgd_step"] * 2


def test_a_row_is_in_the_file_before_the_next_peer_starts(monkeypatch, tmp_path):
    out, seen = tmp_path / "gpu.csv", []

    def theirs():
        seen.append(len(out.read_text().splitlines()))
        return torch.ones(3)

    providers = {"vaefast": lambda: torch.ones(3), "theirs": theirs}
    run(monkeypatch, [("a", lambda: toy(providers=providers))], out=out)
    assert seen[0] == 1 + 4 + 1


def test_cases_that_do_not_fit_the_time_count_as_failed(monkeypatch):
    failures, lines = run(monkeypatch, [("a", toy), ("b", toy)], seconds=-1)
    assert failures == 2
    assert lines[-1] == "  FAILED  pgd_step  b:  the time is up"


def test_what_was_asked_is_printed_for_the_device(monkeypatch):
    monkeypatch.setattr("vaefast.bench.gpu.job.ceilings", lambda place: iter(()))
    cases = [("a", lambda: toy(seconds_at_most=1e9, at_least=1e9))]
    _, lines = run(monkeypatch, cases, place=replace(TINY, tiny=False))
    assert lines[-2].startswith("  MISSED  pgd_step  toy cpu:")
    assert "s for the whole job (at most 1000000000.00)" in lines[-1]


def test_an_unknown_job_is_named():
    with pytest.raises(ValueError, match=r"op must be one of pgd_step.* on a GPU, got 'pgd'"):
        run_jobs(["pgd"], TINY)


@WITHOUT_GPU
def test_no_gpu_is_one_clear_line():
    with pytest.raises(ValueError, match="no CUDA device was found"):
        run_jobs(["pgd_step"])


def test_tensor_of_a_result():
    x = torch.ones(2)
    assert tensor_of((x, None)) is x


def test_remarks_stand_behind_the_times(monkeypatch):
    case = toy(remark=lambda: "7 % of it was done twice")
    _, lines = run(monkeypatch, [("a", lambda: case)])
    assert lines.count("  7 % of it was done twice") == 2  # once more in the summary


def test_decode_distance_tells_the_share_that_it_decided_again(monkeypatch):
    logger = logging.getLogger("vaefast")
    level = logger.level
    job = decode_distance.Job(TINY, "bf16")
    assert job.decided_again() == "decided again: not known"  # the op ran in another backend
    monkeypatch.setattr(job, "ours", lambda _: logger.debug("decided 7 % of the samples again"))
    assert job.decided_again() == "decided 7 % of the samples again"
    assert logger.level == level
    assert decode_distance.case(TINY, "ieee").remark is None


def script(tmp_path, *arguments, **environment):
    command = [str(ROOT / "bench" / "gpu.sh"), "--dry-run", *arguments]
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.skipif(sys.platform != "linux", reason="bash, timeout and env of GNU")
def test_the_script_goes_through_all_stages(tmp_path):
    done = script(tmp_path, "leapfrog_step")
    stages = done.stdout.split("Each stage")[1].splitlines()[1:]
    assert [line.split()[-1] for line in stages] == ["ok"] * 5, done.stdout
    assert done.returncode == 0
    assert {p.name for p in tmp_path.iterdir()} >= {"dry_run.csv", "dry_run.log"}
    assert not (ROOT / "bench" / "results" / "dry_run.csv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="bash, timeout and env of GNU")
def test_the_script_tells_which_stage_failed_and_goes_on(tmp_path):
    done = script(tmp_path, "no_such_job")
    assert done.returncode == 1
    stages = done.stdout.split("Each stage")[1]
    assert "FAILED" in next(line for line in stages.splitlines() if "no_such_job" in line)
    assert "got 'no_such_job'" in done.stdout
    assert "plots" in stages
