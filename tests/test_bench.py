"""The benchmark runner: agreement before timing, turns in every round, one CSV row a figure."""

import csv
import sys
from dataclasses import replace

import pytest
import torch

import vaefast as vf
from vaefast.bench import (
    Benchmark,
    Place,
    Result,
    hmc_defence,
    measure,
    run,
    run_cli,
    verdicts,
)
from vaefast.bench.cases import images
from vaefast.bench.jobs import cases, module, names
from vaefast.bench.memory import peak_growth
from vaefast.bench.readme import latest
from vaefast.bench.runner import check, scaled, tensor_of
from vaefast.runtime.backends import ops

CPU = Place("cpu")


def doubled(tolerance=1e-6, error=0.0, **options):
    x = torch.rand(100)
    providers = {"ours": lambda: x * 2, "theirs": lambda: x + x + error, "copy": lambda: x.clone()}
    return Benchmark(
        "pgd_step",
        "toy",
        providers,
        bytes=800,
        flop=100,
        ceiling="copy",
        tolerance=tolerance,
        **options,
    )


def test_providers_take_turns():
    calls = []
    providers = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    measure(providers, rounds=3)
    changes = [name for name, before in zip(calls, [None, *calls]) if name != before]
    assert changes == ["a", "b"] + 3 * ["a", "b"]  # calibration, then three rounds


def test_nothing_is_timed_on_disagreement():
    with pytest.raises(AssertionError, match=r"theirs and ours differ by 0.5, more than [12]"):
        run(doubled(error=0.5), rounds=1)


def test_the_tolerance_is_relative_to_large_entries():
    big = torch.tensor([1000.0, 0.0])
    providers = {"ours": lambda: big, "theirs": lambda: big + 0.05}
    run(Benchmark("pgd_step", "toy", providers, 1, 1), rounds=1)
    providers["theirs"] = lambda: big + 0.2
    with pytest.raises(AssertionError, match=r"differ by 0.2, more than 0.1"):
        run(Benchmark("pgd_step", "toy", providers, 1, 1), rounds=1)


@pytest.mark.parametrize("theirs", [torch.zeros(4), torch.full((3,), torch.nan)])
def test_another_shape_or_nan_is_disagreement(theirs):
    providers = {"ours": lambda: torch.zeros(3), "theirs": lambda: theirs}
    with pytest.raises(AssertionError, match=r"theirs"):
        run(Benchmark("pgd_step", "toy", providers, 1, 1), rounds=1)


def test_a_stated_share_of_the_entries_may_differ():
    x = torch.zeros(100)
    other = x.clone()
    other[3] = 1.0
    providers = {"ours": lambda: x, "theirs": lambda: other}
    run(Benchmark("pgd_step", "toy", providers, 1, 1, outliers=0.01), rounds=1)
    with pytest.raises(AssertionError, match=r"differ by 1"):
        run(Benchmark("pgd_step", "toy", providers, 1, 1, outliers=0.009), rounds=1)


def test_a_provider_with_its_own_draws_is_checked_on_ours():
    def benchmark(wrong):
        checks = {"theirs": lambda: (torch.ones(2) + wrong, torch.ones(2))}
        return doubled(error=9.0, checks=checks)

    run(benchmark(0.0), rounds=1)
    with pytest.raises(AssertionError, match=r"differ by 1, "):
        run(benchmark(1.0), rounds=1)


def timed(monkeypatch, **seconds):
    """A run of ``doubled`` in which each provider's call takes what is said."""
    monkeypatch.setattr(
        "vaefast.bench.runner.measure",
        lambda providers, rounds: {n: [s] for n, s in seconds.items()},
    )
    return lambda **options: {row.provider: row for row in run(doubled(**options))}


def test_a_fraction_is_scaled_up(monkeypatch):
    rows = timed(monkeypatch, ours=2.0, theirs=3.0)
    assert rows()["theirs"].median_us == 3e6
    scaled_up = rows(scale={"theirs": 1000.0})["theirs"]
    assert (scaled_up.median_us, scaled_up.times_ours) == (3e9, 1500.0)


def test_what_a_call_costs_once_is_not_scaled_up():
    case = doubled(scale={"theirs": 10.0}, once={"theirs": lambda: 2.0})
    seconds = {"ours": [3.0], "theirs": [2.5, 1.9]}
    assert scaled(case, seconds) == {"ours": [3.0], "theirs": [7.0, 2.0]}


def test_slow_cases_get_fewer_rounds(monkeypatch):
    monkeypatch.setattr("vaefast.bench.runner.CASE_SECONDS", 0.1)
    seconds = measure({"a": lambda: None}, rounds=100)
    assert len(seconds["a"]) == 5  # each turn lasts at least 20 ms


def test_verdicts_name_the_best_peer_of_each_target():
    benchmark = doubled(
        at_least=1.5, at_least_of={"c": 1.1}, percent_at_least=85.0, memory=lambda: 70.0,
        mib_at_most=64.0,
    )  # fmt: skip
    rows = [
        result(provider, times, percent)
        for provider, times, percent in (
            ("vaefast", 1.0, 90.0), ("vaefast twice", 0.1, 0.0), ("copy", 0.9, 100.0),
            ("a", 1.7, 0.0), ("b", 1.6, 0.0), ("c", 1.0, 0.0),
        )
    ]  # fmt: skip
    found = [(v.against, v.reached, v.asked, v.met) for v in verdicts(benchmark, rows)]
    assert found == [
        ("b", 1.6, 1.5, True),
        ("c", 1.0, 1.1, False),
        ("of copy", 90.0, 85.0, True),
        ("beyond the inputs", 70.0, 64.0, False),
    ]


TOUCH = "vaefast.bench.memory", "touch"


def result(provider, times, percent):
    return Result("pgd_step", "toy", provider, times, times, times, 1.0, 1.0, percent, times)


def test_the_summary_is_printed_last(monkeypatch):
    given = [("toy", lambda: doubled(at_least=1e9))]
    monkeypatch.setattr("vaefast.bench.ops.pgd_step.cases", lambda place: given)
    lines = []
    run_cli(["pgd_step"], rounds=1, say=lines.append)
    assert lines[-1].startswith("  MISSED  pgd_step  toy:")
    assert "theirs (at least 1000000000.00)" in lines[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_measured_in_a_process_of_its_own():
    small, large = peak_growth(*TOUCH, (1,), (1,)), peak_growth(*TOUCH, (1,), (64,))
    assert small < 8
    assert 56 < large < 80


def test_figures_follow_from_the_times():
    rows = {row.provider: row for row in run(doubled(), rounds=3)}
    ours = rows["ours"]
    assert ours.times_ours == 1.0
    assert ours.low_us <= ours.median_us <= ours.high_us
    assert ours.gb_per_s == pytest.approx(800 / ours.median_us / 1e3)
    expected = 100 * rows["copy"].median_us / ours.median_us
    assert ours.percent_of_ceiling == pytest.approx(expected)


def test_rows_are_appended_with_machine_versions_and_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("vaefast.bench.ops.pgd_step.cases", lambda place: [("toy", doubled)])
    out = tmp_path / "results" / "cpu.csv"
    for _ in range(2):
        run_cli(["pgd_step"], out=out, rounds=1, say=lambda line: None)
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 6
    assert {"device", "threads", "torch", "commit", "date"} <= set(rows[0])
    assert len(latest(out)) == 3  # the newest run counts


def test_an_unknown_op_is_named():
    with pytest.raises(ValueError, match=r"op must be one of .*pgd_step.*, got 'pgd'"):
        run_cli(["pgd"], say=lambda line: None)


def test_every_op_is_measured():
    assert set(names(CPU)) == {
        *ops(),
        "generic",
        "hmc_defence",
        "convolutional",
        "public_calls",
        "spectra",
        "threads",
        "integrations",
    }
    assert set(names(Place("cuda"))) == {*ops(), "convolutional_hmc"}


@pytest.mark.parametrize("op", sorted(ops()))
def test_every_op_declares_what_it_costs_and_its_rivals(op):
    declared = cases(op, CPU)[0][1]()
    assert declared.op == op
    assert set(declared.checks) | set(declared.at_least_of) <= set(declared.providers)
    assert declared.bytes > 0
    assert declared.flop >= 0
    assert next(iter(declared.providers)).startswith("vaefast")
    assert len(declared.providers) >= 2


@pytest.mark.parametrize("op", sorted(ops()))
def test_peers_of_the_smallest_case_agree(op, monkeypatch):
    """All but the compiled ones, which take seconds each; `vaefast bench` checks those."""
    if op == "decode_distance":
        for name, value in {"B": 4, "S": 50, "CHUNKS": (2,)}.items():
            monkeypatch.setattr(module(op), name, value)
    smallest = min((build() for _, build in cases(op, CPU)), key=lambda found: found.flop)
    peers = {n: f for n, f in smallest.providers.items() if not n.startswith("torch.compile")}
    check(replace(smallest, providers=peers))


@pytest.mark.parametrize("number", range(5))
def test_public_calls_run(number):
    benchmark = cases("public_calls", CPU)[number][1]()
    assert tensor_of(benchmark.providers["vaefast"]()).isfinite().all()


def test_the_published_defence_has_our_energy():
    part = hmc_defence.Part(inputs=10, transitions=3, references=1, published=1)
    for benchmark in (hmc_defence.mlp(part), hmc_defence.convolutional(part)):
        check(benchmark)
        assert benchmark.scale["vaefast"] == 50 * 250
        assert benchmark.scale["published loop"] == 50 * 750


def test_the_published_defence_costs_21_gradients_and_2_energies(monkeypatch):
    calls = []
    energy = hmc_defence.energy
    monkeypatch.setattr(
        hmc_defence, "energy", lambda vae, z, x: calls.append(z.requires_grad) or energy(vae, z, x)
    )
    x = images(10, 784).x.view(10, 1, 28, 28)
    hmc_defence.published_loop(vf.models.MLPVAE((1, 28, 28), (8,), 2).eval(), x, 2)
    assert (calls.count(True), calls.count(False)) == (42, 4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_step_speed(benchmark, norm):
    """``pytest --benchmark-enable tests/test_bench.py`` times the op alone."""
    x_adv, grad, x = images(256, 3072)
    out = torch.empty_like(x)
    benchmark(vf.pgd_step, x_adv, grad, x, alpha=0.01, eps=0.1, norm=norm, out=out)
    assert out.isfinite().all()
