"""The benchmark runner: agreement before timing, turns in every round, one CSV row a figure."""

import csv
import importlib

import pytest
import torch

import vaefast as vf
from vaefast.backends import ops
from vaefast.bench import Benchmark, measure, run, run_cli
from vaefast.bench.cases import images
from vaefast.bench.readme import latest


def doubled(tolerance=1e-6, error=0.0):
    x = torch.rand(100)
    providers = {"ours": lambda: x * 2, "theirs": lambda: x + x + error, "copy": lambda: x.clone()}
    return Benchmark(
        "pgd_step", "toy", providers, bytes=800, flop=100, ceiling="copy", tolerance=tolerance
    )


def test_providers_take_turns():
    calls = []
    providers = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    measure(providers, rounds=3)
    changes = [name for name, before in zip(calls, [None, *calls]) if name != before]
    assert changes == ["a", "b"] + 3 * ["a", "b"]  # calibration, then three rounds


def test_nothing_is_timed_on_disagreement():
    with pytest.raises(AssertionError, match=r"theirs and ours differ by 0.5, more than 1e-06"):
        run(doubled(error=0.5), rounds=1)


def test_figures_follow_from_the_times():
    rows = {row.provider: row for row in run(doubled(), rounds=3)}
    ours = rows["ours"]
    assert ours.times_ours == 1.0
    assert ours.low_us <= ours.median_us <= ours.high_us
    assert ours.gb_per_s == pytest.approx(800 / ours.median_us / 1e3)
    expected = 100 * rows["copy"].median_us / ours.median_us
    assert ours.percent_of_ceiling == pytest.approx(expected)


def test_rows_are_appended_with_machine_versions_and_commit(tmp_path, monkeypatch):
    module = importlib.import_module("vaefast.bench.ops.pgd_step")
    monkeypatch.setattr(module, "benchmarks", lambda: iter([doubled()]))
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


@pytest.mark.parametrize("op", sorted(ops()))
def test_every_op_declares_what_it_costs_and_its_rivals(op):
    declared = next(iter(importlib.import_module(f"vaefast.bench.ops.{op}").benchmarks()))
    assert declared.op == op
    assert declared.bytes > 0
    assert declared.flop >= 0
    assert next(iter(declared.providers)).startswith("vaefast")
    assert len(declared.providers) >= 2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_step_speed(benchmark, norm):
    """``pytest --benchmark-enable tests/test_bench.py`` times the op alone."""
    x_adv, grad, x = images(256, 3072)
    out = torch.empty_like(x)
    benchmark(vf.pgd_step, x_adv, grad, x, alpha=0.01, eps=0.1, norm=norm, out=out)
    assert out.isfinite().all()
