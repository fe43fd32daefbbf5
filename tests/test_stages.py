"""The suite's stages: all run whatever becomes of the others, and the end says how each went."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / ".ci" / "stages.py"


@pytest.fixture(scope="module")
def stages():
    spec = importlib.util.spec_from_file_location("stages", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stage_of(stages, path, name, text, **environment):
    path = path / f"test_{name}.py"
    path.write_text(text)
    options = (str(path), "-p", "no:cacheprovider", "-c", "/dev/null")
    return stages.Stage(name, options, environment)


def test_all_stages_run_and_one_that_fails_fails_the_suite(stages, tmp_path, capsys):
    passing = "def test_it():\n    assert __import__('os').environ['WORD'] == 'given'\n"
    some = [
        stage_of(stages, tmp_path, "broken", "def test_it():\n    assert False, 'as it should'\n"),
        stage_of(stages, tmp_path, "sound", passing, WORD="given"),
        stage_of(stages, tmp_path, "empty", ""),
    ]
    assert stages.main(some) == 1
    said, summary = capsys.readouterr().out.split("== stages\n")
    assert "as it should" in said
    broken, sound, empty = summary.splitlines()
    assert broken.startswith("  FAILED (1)")
    assert "broken: 1 failed" in broken
    assert sound.startswith("  passed")
    assert "sound: 1 passed" in sound
    assert "empty: no tests ran" in empty
    assert stages.main(some[1:]) == 0


def test_proofs_are_chosen_by_their_marker(stages, tmp_path):
    text = "import pytest\n@pytest.mark.proof\ndef test_long(): pass\ndef test_short(): pass\n"
    stage = stage_of(stages, tmp_path, "both", text)
    chosen = stage._replace(arguments=(*stage.arguments, *stages.PROOFS[0].arguments[:2]))
    assert "1 passed, 1 deselected" in stages.run(chosen).output


def test_every_folder_of_tests_is_in_a_stage(stages):
    folders = [("tests", "--ignore", "tests/ops"), ("tests/ops",)]
    assert [s.arguments for s in stages.TEST if not s.environment] == folders
    proofs = [("-m", "proof", *arguments) for arguments in folders]
    assert [s.arguments for s in stages.PROOFS if not s.environment] == proofs
