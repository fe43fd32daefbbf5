"""Two commits in one run: they take turns, cases go by name, the base has its own package."""

import os
import subprocess
from pathlib import Path

import pytest

from vaefast.bench import Place, base

ROOT = Path(__file__).parent.parent
TINY = Place("cpu", tiny=True)


class Told:
    """A process that answers from a list of seconds and writes down when it was asked."""

    def __init__(self, name, cases, asked):
        self.name, self.given, self.asked = name, cases, asked

    def cases(self, job):
        return list(self.given)

    def seconds(self, job, case):
        self.asked.append(self.name)
        return self.given[case].pop(0)


def test_medians_and_the_ratio_are_those_of_the_rounds():
    asked = []
    then = Told("then", {"a": [{"vaefast": s} for s in (2.0, 9.0, 4.0)]}, asked)
    now = Told(
        "now", {"a": [{"vaefast": s, "vaefast (out=)": 1.0} for s in (1.0, 3.0, 1.0)]}, asked
    )
    (line,) = base._compared("pgd_step", then, now, rounds=3)
    assert line.split() == ["4000000.0", "1000000.0", "3.000", "pgd_step", "a:", "vaefast"]
    assert asked == ["now", "then", "then", "now", "now", "then"]


def test_a_case_that_the_older_commit_has_not_is_told():
    lines = base._compared("pgd_step", Told("then", {}, []), Told("now", {"a": []}, []), rounds=3)
    assert list(lines) == ["  pgd_step  a: not in the older commit"]


def test_a_process_times_ours_alone():
    with base.Turns(TINY, dict(os.environ)) as turns:
        (case,) = turns.cases("leapfrog_step")
        assert case == "N=3 d=5, 2 in turn, float32 cpu"
        found = turns.seconds("leapfrog_step", case)
        assert list(found) == ["vaefast"]
        assert found["vaefast"] > 0
        assert turns.cases("no_such_job") == []
        with pytest.raises(ValueError, match="the process ended at seconds leapfrog_step other"):
            turns.seconds("leapfrog_step", "other")


def test_a_job_that_the_commit_has_not_is_taken_from_beside_the_script(tmp_path):
    script = tmp_path / "_turns.py"
    script.write_text(base.CHILD.read_text())
    (tmp_path / "new_job.py").write_text(
        "from types import SimpleNamespace\n"
        "def cases(place):\n"
        "    return [('title', lambda: SimpleNamespace(case='a case', providers={}))]\n"
    )
    command = [base.sys.executable, str(script), "cpu", "0"]
    asked = '["cases", "new_job"]\n'
    told = subprocess.run(command, input=asked, capture_output=True, text=True, cwd="/")
    assert told.stdout == '["a case"]\n', told.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_an_unknown_commit_is_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=r"git worktree add .*no-such-commit"):
        base.compare_with("no-such-commit", ["pgd_step"], TINY)


def test_the_older_package_is_laid_out_as_an_install(monkeypatch, tmp_path):
    """Its own files come before the installed ones; without the half minute of a build."""
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(base.subprocess, "run", lambda *_, **__: done)
    base._lay_out(ROOT, tmp_path)
    monkeypatch.undo()
    code = "import vaefast, vaefast.bench, vaefast.kernels; print(vaefast.__file__)"
    command = [base.sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "VAEFAST_REQUIRE": ""}
    found = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(tmp_path), found.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_a_worktree_is_there_until_the_end(monkeypatch):
    monkeypatch.chdir(ROOT)
    with base._worktree("HEAD") as root:
        assert (root / "setup.py").is_file()
        assert str(root) in worktrees()
    assert not root.exists()
    assert str(root) not in worktrees()


def worktrees():
    command = ["git", "worktree", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.proof
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")
def test_the_last_commit_is_built_and_compared(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = []
    base.compare_with("HEAD", ["leapfrog_step"], TINY, rounds=2, say=lines.append)
    assert lines[1].endswith("leapfrog_step  N=3 d=5, 2 in turn, float32 cpu: vaefast")
