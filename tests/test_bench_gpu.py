"""The GPU's benchmarks, as far as a CPU goes: the cases, and what a bad peer does."""

import csv
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from vaefast.bench import Benchmark, Place
from vaefast.bench.gpu import job, pairs, run_jobs
from vaefast.bench.place import at_precision, ieee_products, made_over_nan, net_at, rotating
from vaefast.bench.runner import seconds_on_cpu, tensor_of

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


def test_ours_must_pass_its_own_check():
    x = torch.rand(100)
    with pytest.raises(AssertionError, match="vaefast and vaefast differ by 1"):
        rows_of(toy(checks={"vaefast": lambda: (x + 1, x)}))


def test_what_is_not_written_is_found_in_results_of_every_kind():
    result = made_over_nan(lambda: (torch.ones(3), None, torch.arange(4)))
    assert result[2].tolist() == [0, 1, 2, 3]
    held = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(AssertionError, match="not written everywhere"):
        made_over_nan(lambda: held)


def test_figures_follow_from_the_ceilings():
    for limit, amount in (("copy", 800), ("tf32", 400)):
        rows, _ = rows_of(toy(limit=limit), {"copy": 1e9, "tf32": 1e9})
        for row in rows:
            seconds = row.median_us / 1e6
            assert row.percent_of_ceiling == pytest.approx(100 * amount / 1e9 / seconds)


def test_a_part_is_scaled_up(monkeypatch):
    def measure(providers, *options):
        return {name: [2.0 if name == "vaefast" else 3.0] for name in providers}

    monkeypatch.setattr(pairs, "measure", measure)
    rows, _ = rows_of(toy(scale={"vaefast": 1000.0, "theirs": 1000.0}))
    assert [row.median_us for row in rows] == [2e9, 3e9]
    assert rows[1].times_ours == 1.5


def test_precision_of_the_peers_is_set_and_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with at_precision("ieee"):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cudnn.allow_tf32
    with at_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def test_a_part_may_be_kept_from_rounding():
    with at_precision("tf32"):
        with ieee_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"


def test_peers_get_bfloat16_weights_for_bf16_only():
    from vaefast.bench.cases import network

    net = network((3, 4), "tanh", dtype=torch.float32)
    assert net_at(net, "bf16").weights[0].dtype == torch.bfloat16
    assert net_at(net, "tf32") is net


def test_states_that_take_turns_are_the_same_for_all():
    lines = []
    assert run_jobs(["leapfrog_step"], TINY, rounds=1, say=lines.append) == 0
    assert not [line for line in lines if "differ" in line]


def test_inputs_take_turns():
    calls = rotating(lambda i: lambda: i, [(0,), (1,), (2,)])
    assert [calls() for _ in range(5)] == [0, 1, 2, 0, 1]


def test_the_clock_is_that_of_the_device():
    assert TINY.clock is seconds_on_cpu
    assert Place("cuda").clock.__name__ == "seconds_on_gpu"


def run(monkeypatch, cases, place=TINY, **options):
    """One job in place of pgd_step's."""
    monkeypatch.setattr("vaefast.bench.ops.pgd_step.cases", lambda place: cases)
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


def test_a_case_shares_out_the_time_that_is_left_when_ours_has_run(monkeypatch):
    """Building and compiling ours may take longer than the peers' share."""
    now = [0.0]  # a clock that only the compilation moves
    for module in (job, pairs):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow():
        case, first = toy(), iter([1.2])
        ours = case.providers["vaefast"]

        def compiling():
            now[0] += next(first, 0.0)
            return ours()

        return replace(case, providers=case.providers | {"vaefast": compiling})

    monkeypatch.setattr("vaefast.bench.gpu.job.ceilings", lambda place: iter(()))
    _, lines = run(monkeypatch, [("a", slow), ("b", toy)], seconds=2.0)
    assert not any("left out  theirs" in line for line in lines)


def test_goals_of_another_gpu_stand_beside_the_name_of_this_one(monkeypatch):
    monkeypatch.setattr("vaefast.bench.gpu.job.ceilings", lambda place: iter(()))
    for name, told in (("NVIDIA H200", False), ("NVIDIA H100 80GB HBM3", True)):
        monkeypatch.setattr("vaefast.bench.gpu.job.processor", lambda name=name: name)
        _, lines = run(monkeypatch, [("a", toy)], place=replace(TINY, tiny=False))
        assert lines[-1].endswith(f"  on dry run, {name}") == told
        assert lines[-2].endswith("as asked of one H200") or "JAX" in lines[-2]


def test_jax_left_out_is_told_once_more_in_the_summary(monkeypatch):
    monkeypatch.setattr("vaefast.bench.ops._jax.missing", lambda gpu: "it is not installed")
    _, lines = run(monkeypatch, [("a", toy)])
    assert lines.count("  left out  JAX everywhere: it is not installed") == 2


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
