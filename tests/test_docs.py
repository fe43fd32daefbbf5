"""The documents: links lead somewhere, snippets run, figures are those of the CSV.

The Python snippets of a page run one after the other, as a reader would type them. A text block
right after a snippet is what it prints; ``...`` stands for what may differ. A comment
``<!-- needs: pythae -->`` before a snippet names packages without which it is left out.
"""

import contextlib
import doctest
import importlib.util
import io
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from vaefast.bench import readme

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SNIPPET = re.compile(
    r"(?:<!-- needs: (?P<needs>[\w, ]+) -->\n+)?```python\n(?P<code>.*?)```\n"
    r"(?:\n```text\n(?P<printed>.*?)```)?",
    re.DOTALL,
)
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Snippet(NamedTuple):
    code: str
    printed: str | None
    needs: list[str]
    line: int


def named(path):
    return str(path.relative_to(ROOT))


def snippets(path):
    text = path.read_text()
    for match in SNIPPET.finditer(text):
        needs = re.findall(r"\w+", match["needs"] or "")
        yield Snippet(match["code"], match["printed"], needs, text[: match.start()].count("\n") + 1)


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_and_named_files_exist(path):
    text = path.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (path.parent / link).exists()]
    files = re.findall(r"`((?:docs|bench|csrc|kernels|vaefast|tests)/[\w./-]+)`", text)
    missing += [name for name in files if not (ROOT / name).exists()]
    assert not missing


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if list(snippets(p))], ids=named)
def test_snippets_run_and_print_what_the_page_shows(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, left_out = {}, []
    for snippet in snippets(path):
        missing = [name for name in snippet.needs if importlib.util.find_spec(name) is None]
        if missing:
            left_out.append(f"line {snippet.line}: {', '.join(missing)} is not installed")
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(snippet.code, f"{named(path)}:{snippet.line}", "exec"), names)
        shown = snippet.printed is None or doctest.OutputChecker().check_output(
            snippet.printed, out.getvalue(), SAME
        )
        assert shown, f"line {snippet.line} prints\n{out.getvalue()}"
    if left_out:
        pytest.skip("; ".join(left_out))


def test_every_python_block_is_taken_for_a_snippet():
    for path in DOCUMENTS:
        assert path.read_text().count("```python") == len(list(snippets(path))), named(path)


def test_readme_holds_the_measured_figures(monkeypatch):
    """`python -m vaefast.bench.readme` writes them."""
    monkeypatch.chdir(ROOT)
    assert readme.main(["--check"]) == 0
