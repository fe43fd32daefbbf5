"""The wheel: it holds vaefast/ alone and works from outside the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a clean copy, as a user's `pip wheel .` would."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = [
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "csrc",
        "vaefast",
        "kernels",
        "bench",
    ]
    ignore = ["--exclude=*.so", "--exclude=__pycache__"]
    archive = subprocess.run(
        ["tar", "-C", ROOT, *ignore, "-cf", "-", *names], check=True, capture_output=True
    )
    subprocess.run(["tar", "-C", source, "-xf", "-"], input=archive.stdout, check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        out,
        source,
    ]
    environment = {**os.environ, "VAEFAST_STRICT_BUILD": "1"}
    subprocess.run(command, check=True, env=environment)
    (path,) = out.glob("*.whl")
    return path


def test_wheel_contains_only_vaefast(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vaefast"}
    assert any(name.startswith("vaefast/_C") for name in names)
    for module in (
        "kernels/pgd_step.py",
        "bench/ops/pgd_step.py",
        "ops/pgd_step.py",
        "py.typed",
        "_C.pyi",
    ):
        assert f"vaefast/{module}" in names
    assert not [name for name in names if name.endswith((".cpp", ".h", ".csv"))]


def test_wheel_works_from_outside_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import vaefast, torch, pathlib\n"
        "assert pathlib.Path(vaefast.__file__).is_relative_to(pathlib.Path('site').resolve())\n"
        "x = torch.rand(3, 8)\n"
        "vaefast.pgd_step(x, x, x, alpha=.1, eps=.1, backend='cpp')\n"
        "import vaefast.kernels, vaefast.bench, vaefast.cli\n"
    )
    environment = {**os.environ, "VAEFAST_REQUIRE": "cpp"}
    environment.pop("PYTHONPATH", None)
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True, env=environment)


def test_kernels_folder_is_no_package_of_its_own():
    """With an __init__.py it would shadow the PyPI package `kernels` that transformers imports."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
