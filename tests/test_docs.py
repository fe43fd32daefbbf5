"""The documents: their links lead somewhere, and README's figures are those of the CSV."""

import re
from pathlib import Path

import pytest

from vaefast.bench import readme

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(path):
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (path.parent / link).exists()]
    named = re.findall(r"`((?:docs|bench|csrc|kernels|vaefast|tests)/[\w./-]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_readme_holds_the_measured_figures(monkeypatch):
    """`python -m vaefast.bench.readme` writes them."""
    monkeypatch.chdir(ROOT)
    assert readme.main(["--check"]) == 0
