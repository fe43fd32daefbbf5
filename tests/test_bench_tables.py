"""The tables and pictures that are made of the measurements' files."""

import csv

import pytest

from vaefast.bench import Place, readme
from vaefast.bench.gpu import plots, run_jobs

TINY = Place("cpu", tiny=True)
FIELDS = ("op", "case", "provider", "device", "commit", "date")
ZEROS = ("median_us", "percent_of_ceiling", "times_ours", "gflop_per_s", "gb_per_s")
RUN = [("ceiling", "copy", "torch"), ("pgd_step", "linf", "vaefast"), ("pgd_step", "linf", "eager")]


def written(path, *runs):
    """A file that runs were appended to, each with (op, case, provider) of its rows."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*FIELDS, "torch", "triton", *ZEROS], restval="1")
        writer.writeheader()
        for day, (device, rows) in enumerate(runs, 1):
            for row in rows:
                named = dict(zip(FIELDS, (*row, device, f"c{day}", f"2026-11-{day:02}")))
                writer.writerow(named)
    return path


def test_rows_have_todays_names_of_the_ops(tmp_path):
    old = [("mlp_chain", "N=1", "vaefast"), ("mlp_chain", "N=1", "eager")]
    path = written(tmp_path / "a.csv", ("EPYC", old), ("EPYC", [("net_chain", "N=1", "vaefast")]))
    assert {row["op"] for row in readme.latest(written(tmp_path / "b.csv", ("EPYC", old)))} == {
        "net_chain"
    }
    assert kept(readme.latest(path)) == [("vaefast", "c2")]


def kept(rows):
    return [(row["provider"], row["commit"]) for row in rows]


def test_a_new_run_of_a_case_stands_alone(tmp_path):
    """A peer that it left out is not compared with its predecessor's time."""
    path = written(tmp_path / "a.csv", ("H200", RUN), ("H200", RUN[:2]))
    assert kept(readme.latest(path)) == [("torch", "c2"), ("vaefast", "c2")]
    renamed = ("pgd_step", "linf", "vaefast (out=)")
    path = written(tmp_path / "b.csv", ("H200", RUN), ("H200", [RUN[0], renamed]))
    assert kept(readme.latest(path))[1:] == [("vaefast (out=)", "c2")]


def test_a_case_alone_may_be_run_twice(tmp_path):
    path = written(tmp_path / "a.csv", ("H200", RUN[1:]), ("H200", RUN[1:2]))
    assert kept(readme.latest(path)) == [("vaefast", "c2")]


def test_a_case_keeps_its_rows_while_others_are_run_again(tmp_path):
    other = ("pgd_step", "l2", "vaefast")
    path = written(tmp_path / "a.csv", ("H200", [*RUN, other]), ("H200", [other]))
    assert kept(readme.latest(path)) == [
        ("torch", "c1"), ("vaefast", "c1"), ("eager", "c1"), ("vaefast", "c2"),
    ]  # fmt: skip


def test_the_table_is_that_of_the_device_measured_last(monkeypatch, tmp_path):
    other = ("pgd_step", "l2", "vaefast")
    path = written(tmp_path / "gpu.csv", ("H200", [*RUN, other]), ("H100", RUN), ("H100", RUN[:1]))
    monkeypatch.setattr(readme, "GPU_RESULTS", path)
    table = readme.gpu([])
    assert table.count("| `pgd_step` |") == 1
    assert "H100; torch 1, triton 1, commit c3, c2, 2026-11-03." in table
    assert "H200" not in table


def measured(tmp_path):
    path = tmp_path / "gpu.csv"
    run_jobs(["pgd_step"], TINY, out=path, rounds=1, say=lambda line: None)
    return path


def test_tables_come_from_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr(readme, "GPU_RESULTS", tmp_path / "gpu.csv")
    assert readme.gpu([]) == "Not yet measured on a GPU.\n"
    rows = readme.latest(measured(tmp_path))
    table = readme.gpu([])
    assert table.count("\n| `pgd_step` |") == 2
    assert "Ceilings of the last run: copy of 16,384 bytes cpu" in table
    ours = next(row for row in rows if row["op"] == "pgd_step")
    assert readme.duration(ours) in table


def test_durations_have_three_digits():
    assert [readme.duration({"median_us": us}) for us in ("1.5", "2500", "3456789")] == [
        "1.5 µs", "2.5 ms", "3.46 s",
    ]  # fmt: skip


def test_a_picture_where_matplotlib_is(monkeypatch, tmp_path, capsys):
    path = measured(tmp_path)
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    assert plots.main([str(path), str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no plots: matplotlib is not installed\n"
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    assert plots.main([str(path), str(tmp_path)]) == 0
    assert (tmp_path / "gpu.svg").stat().st_size > 1000
    assert plots.main([str(tmp_path / "none.csv"), str(tmp_path)]) == 1
