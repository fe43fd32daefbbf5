"""A folder or a file appears whole or not at all, and nothing foreign is ever deleted."""

import json
import os
import stat

import pytest

from vaefast.report.folder import MADE_BY, new_file, new_folder


def report(path, text="old"):
    path.mkdir()
    (path / "summary.json").write_text(json.dumps({"made_by": MADE_BY}))
    (path / "report.html").write_text(text)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_at_the_end(tmp_path):
    out = tmp_path / "deep" / "report"
    with new_folder(out) as folder:
        assert not out.exists()
        (folder / "report.html").write_text("new")
    assert names(out) == ["report.html"]
    assert names(out.parent) == ["report"]


def test_a_folder_has_the_usual_permissions(tmp_path):
    with new_folder(tmp_path / "report"):
        pass
    (tmp_path / "plain").mkdir()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("report", "plain")]
    assert modes[0] == modes[1]


def break_off(out, failure, *, force=False):
    with new_folder(out, force=force) as folder:
        (folder / "report.html").write_text("half")
        raise failure


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure):
        break_off(tmp_path / "deep" / "report", failure)
    assert names(tmp_path) == []


def test_a_failure_leaves_the_old_report(tmp_path):
    out = report(tmp_path / "report")
    with pytest.raises(KeyboardInterrupt):
        break_off(out, KeyboardInterrupt, force=True)
    assert (out / "report.html").read_text() == "old"
    assert names(tmp_path) == ["report"]


def test_force_replaces_an_old_report(tmp_path):
    out = report(tmp_path / "report")
    with new_folder(out, force=True) as folder:
        assert (out / "report.html").read_text() == "old"
        (folder / "report.html").write_text("new")
    assert names(out) == ["report.html"]
    assert (out / "report.html").read_text() == "new"
    assert names(tmp_path) == ["report"]


def test_force_replaces_an_empty_folder(tmp_path):
    (tmp_path / "report").mkdir()
    with new_folder(tmp_path / "report", force=True) as folder:
        (folder / "report.html").write_text("new")
    assert names(tmp_path / "report") == ["report.html"]


def test_a_link_to_a_report_stays_a_link(tmp_path):
    report(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link", force=True) as folder:
        (folder / "report.html").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "report.html").read_text() == "new"


def refuse(out, *, force, match):
    before = names(out.parent)
    with pytest.raises(FileExistsError, match=match), new_folder(out, force=force):
        pytest.fail("the body ran")
    assert names(out.parent) == before


def test_an_existing_folder_is_refused_without_force(tmp_path):
    refuse(report(tmp_path / "report"), force=False, match="pass --force")


def test_a_file_is_refused(tmp_path):
    (tmp_path / "report").write_text("mine")
    refuse(tmp_path / "report", force=True, match="is a file")


def test_a_folder_of_others_is_refused_even_with_force(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "summary.json").write_text('{"made_by": "me"}')
    refuse(folder, force=True, match="not a vaefast report")


def test_a_report_with_a_note_of_the_user_is_refused(tmp_path):
    folder = report(tmp_path / "report")
    (folder / "notes.txt").write_text("mine")
    refuse(folder, force=True, match=r"holds 'notes\.txt'")


def test_what_appears_meanwhile_is_refused(tmp_path):
    out = tmp_path / "report"
    context = new_folder(out)
    context.__enter__()
    out.mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        context.__exit__(None, None, None)
    assert names(tmp_path) == ["report"]


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="cannot be written"):
        new_folder(tmp_path / "file" / "report").__enter__()
    with pytest.raises(PermissionError, match="cannot be written"):
        new_file(tmp_path / "file" / "a.npz").__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written"):
        new_folder(tmp_path / "report").__enter__()
    tmp_path.chmod(0o700)


def test_a_file_appears_at_the_end(tmp_path):
    out = tmp_path / "deep" / "a.npz"
    with new_file(out) as path:
        path.write_text("new")
        assert not out.exists()
    assert out.read_text() == "new"
    assert names(out.parent) == ["a.npz"]


def test_a_file_is_replaced_with_force_only(tmp_path):
    out = tmp_path / "a.npz"
    out.write_text("old")
    with pytest.raises(FileExistsError, match="--force"), new_file(out):
        pytest.fail("the body ran")
    with pytest.raises(ValueError, match="no"), new_file(out, force=True):
        raise ValueError("no")
    assert out.read_text() == "old"
    with new_file(out, force=True) as path:
        path.write_text("new")
    assert out.read_text() == "new"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FileExistsError, match="is a folder"):
        new_file(tmp_path, force=True).__enter__()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_interruption_between_two_folders_leaves_none(tmp_path, monkeypatch, count):
    """The signal comes when the operating system has made a folder and nobody knows it yet."""
    made, mkdir = [], os.mkdir

    def interrupted(path, *args, **options):
        mkdir(path, *args, **options)
        made.append(path)
        if len(made) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "deep" / "down" / "report"):
        pass
    assert len(made) == count
    assert list(tmp_path.iterdir()) == []
