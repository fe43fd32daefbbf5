"""Finished parts: whole or not there, of one run's settings."""

import json

import pytest
import torch
from safetensors.torch import save_file

from vaefast.reproduce.kuzina2022.settings import Settings, parse_model
from vaefast.reproduce.kuzina2022.subject import choose_references
from vaefast.reproduce.sources import _hash, mixed, said_origin, sources
from vaefast.reproduce.store import Store
from vaefast.runtime.durable import write_whole

SETTINGS = {"epochs": 10, "models": ["vae", "beta-5"], "train_inputs": None}


def test_a_part_comes_back(tmp_path):
    store = Store(tmp_path / "new" / "run", SETTINGS)
    assert store.read("vae/cell") is None
    wrote = store.write("vae/cell", {"a": torch.arange(4)[::2]}, {"rate": 0.5})
    again = Store(tmp_path / "new" / "run", SETTINGS).read("vae/cell")
    assert again.facts == wrote.facts == {"rate": 0.5}
    assert again.tensors["a"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"epochs": 20}, "epochs 10, this one has 20"),
        ({"models": ["vae"]}, "models vae,beta-5, this one has vae"),
        ({"train_inputs": 5}, "train inputs all, this one has 5"),
    ],
)
def test_other_settings_are_refused(tmp_path, changed, words):
    Store(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=words):
        Store(tmp_path, SETTINGS | changed)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"holds 'thesis.txt'"):
        Store(tmp_path, SETTINGS)
    with pytest.raises(FileExistsError, match="is a file"):
        Store(tmp_path / "thesis.txt", SETTINGS)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(FileExistsError, match="of no reproduction"):
        Store(tmp_path, SETTINGS)
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_parts_tell_which_sources_made_them(tmp_path, monkeypatch):
    store = Store(tmp_path, SETTINGS)
    store.write("vae/a", {}, {})
    save_file({"weight": torch.zeros(1)}, store.path("vae/model"))  # is no part
    assert not mixed(store.made_by())
    assert said_origin(store.made_by()).endswith("of vaefast made every part of them (1).")
    monkeypatch.setattr("vaefast.reproduce.store.sources", lambda: "0ther")
    later = Store(tmp_path, SETTINGS)
    later.write("vae/b", {}, {})
    assert later.made_by()[1] == "0ther"
    assert mixed(later.made_by())
    assert "mixture: their parts were made by sources" in said_origin(later.made_by())
    assert "0ther (1 parts)" in said_origin(later.made_by())
    assert mixed(["unknown"])


def test_sources_are_told_by_python_files_and_the_extension(tmp_path):
    for name, text in (("a.py", "1"), ("b/c.py", "2"), ("_C.so", "3"), ("page.j2", "4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "kernels").mkdir()
    before = _hash(tmp_path)
    (tmp_path / "page.j2").write_text("5")
    (tmp_path / "kernels/k.py").write_text("elsewhere in a checkout")
    assert _hash(tmp_path) == before
    for name in ("b/c.py", "_C.so"):
        (tmp_path / name).write_text("6")
        assert _hash(tmp_path) != before
        before = _hash(tmp_path)
    assert len(sources()) == 8


def test_damaged_and_foreign_parts_are_refused(tmp_path):
    store = Store(tmp_path / "a", SETTINGS)
    store.write("cell", {}, {})
    other = Store(tmp_path / "b", SETTINGS | {"epochs": 1})
    other.path("cell").write_bytes(store.path("cell").read_bytes())
    with pytest.raises(ValueError, match="other settings; delete it"):
        other.read("cell")
    store.path("cell").write_bytes(b"half")
    with pytest.raises(ValueError, match="delete it to compute it again"):
        store.read("cell")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_settings_are_json(tmp_path):
    record = Settings("digits").record()
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"models": ("vae", "gan")}, "got 'gan'"),
        ({"models": ("vae", "vae")}, "must differ"),
        ({"models": ()}, "got none"),
        ({"radii": (0.1, -0.2)}, "positive and finite, got -0.2"),
        ({"radii": (0.1, 0.1)}, "must differ"),
        ({"references": 1}, "--references"),
        ({"epochs": 0}, "--epochs"),
        ({"gradients": ("last",)}, "--gradients"),
        ({"adaptive_transitions": 0}, "--adaptive-transitions"),
    ],
)
def test_settings_that_make_no_sense(given, words):
    with pytest.raises(ValueError, match=words):
        Settings("digits", **given)


def test_the_published_size():
    full = Settings.of_data("fashion-mnist", full=True)
    assert (full.epochs, full.references, full.restarts, full.transitions) == (300, 50, 10, 1000)
    assert full.train_inputs is None
    assert (full.step_size, len(full.models)) == (0.05, 7)
    mnist = Settings.of_data("mnist", full=True, epochs=3, train_inputs=7)
    assert (mnist.epochs, mnist.train_inputs, mnist.transitions) == (3, 7, 500)
    assert Settings.of_data("mnist", full=False).step_size == 0.1


def test_models_and_their_objectives():
    assert parse_model("vae").objective.beta == 1.0
    assert parse_model("beta-2.5").objective.beta == 2.5
    assert type(parse_model("tcvae-10").objective).__name__ == "TCVAE"


def test_references_are_balanced_and_repeat():
    y = torch.arange(2000) % 7 % 5  # classes 0 and 1 twice as often
    rows = choose_references(y, 10, seed=3)
    assert torch.bincount(y[rows]).tolist() == [2, 2, 2, 2, 2]
    assert rows.max() < 1024
    assert torch.equal(rows, choose_references(y, 10, seed=3))
    assert not torch.equal(rows, choose_references(y, 10, seed=4))
    assert len(choose_references(y, 3, seed=0).unique()) == 3
    with pytest.raises(ValueError, match="at most 1024"):
        choose_references(y, 1025, seed=0)
