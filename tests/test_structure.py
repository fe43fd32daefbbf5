"""The shape of the house: one stem per op in every folder, imports that go down only."""

import ast
from pathlib import Path

import pytest

from vaefast import ops  # noqa: F401 - the ops declare themselves
from vaefast.runtime.backends import _implemented

ROOT = Path(__file__).parent.parent
FLOORS = (  # names on one floor do not import each other
    {"types", "philox"},
    {"checks"},
    {"runtime"},
    {"functional"},
    {"reference", "kernels", "_C"},
    {"ops"},
    {"models"},
    {"data", "elbo"},
    {"metrics"},
    {"hmc", "geometry"},
    {"attacks"},
    {"certify"},
    {"training"},
    {"audit"},
    {"report", "jobs", "integrations"},
    {"reproduce", "studies", "bench"},
    {"cli"},
)
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


def op_files(op):
    yield f"vaefast/reference/{op}.py"
    yield f"vaefast/ops/{op}.py"
    yield f"tests/ops/test_{op}.py"
    yield f"bench/ops/{op}.py"
    yield f"docs/ops/{op}.md"
    if "cpp" in _implemented[op]:
        yield f"csrc/ops/{op}.h"
    if "triton" in _implemented[op]:
        yield f"kernels/gpu/{op}.py"


@pytest.mark.parametrize("op", sorted(_implemented))
def test_an_op_has_its_stem_in_every_folder(op):
    missing = [name for name in op_files(op) if not (ROOT / name).is_file()]
    assert not missing, f"{op} lacks {', '.join(missing)}"


@pytest.mark.parametrize("folder", ["vaefast/ops", "bench/ops", "docs/ops"])
def test_no_file_without_an_op(folder):
    stems = {path.stem for path in (ROOT / folder).glob("*") if path.is_file()}
    stray = {s for s in stems if not s.startswith("_")} - set(_implemented)
    assert not stray


FOLDERS = {"vaefast": "vaefast", "kernels/gpu": "vaefast.kernels", "bench": "vaefast.bench"}


def floor_of(module):
    parts = module.split(".")
    return FLOOR.get(parts[1]) if len(parts) > 1 else None


def imports(tree):
    """The vaefast modules that a file imports when it runs, wherever in the file."""
    for node in tree.body if isinstance(tree, ast.Module) else ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue  # a name for the type checker alone
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vaefast"):
            if node.module == "vaefast":
                yield from (f"vaefast.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("vaefast."))
        else:
            yield from imports(node)


def _python_files():
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if (name := ".".join((package, *parts)).removesuffix(".__init__")) != "vaefast":
                yield pytest.param(path, name, id=name)


FILES = list(_python_files())  # path and dotted name of every module


@pytest.mark.parametrize(("path", "name"), FILES)
def test_imports_go_down_only(path, name):
    own = name.split(".")[1]
    assert own in FLOOR, f"{own} stands on no floor of the house"
    upward = [
        m
        for m in imports(ast.parse(path.read_text()))
        if m.split(".")[1] != own and (floor_of(m) or 0) >= FLOOR[own]
    ]
    assert not upward, f"{name} imports {', '.join(upward)}"


def test_only_ops_know_the_references():
    for param in FILES:
        path, name = param.values
        if name.split(".")[1] not in ("ops", "reference"):
            found = [m for m in imports(ast.parse(path.read_text())) if "reference" in m.split(".")]
            assert not found, f"{name} imports {', '.join(found)}"


def test_files_are_short():
    """A file of more than 300 lines wants to be two."""
    folders = ("vaefast", "kernels", "bench", "csrc")
    files = [p for f in folders for s in ("*.py", "*.h", "*.cpp") for p in (ROOT / f).rglob(s)]
    long = {
        str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 300
    }
    assert not long


def test_every_package_is_listed():
    """pyproject.toml lists packages explicitly, because kernels/ and bench/ are mapped."""
    listed = (ROOT / "pyproject.toml").read_text()
    for path in (ROOT / "vaefast").rglob("__init__.py"):
        name = ".".join(path.parent.relative_to(ROOT).parts)
        assert f'"{name}",' in listed, f"{name} is not in [tool.setuptools] packages"
