"""Which version of vaefast computed something, told apart where two commits have one number."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["UNKNOWN", "mixed", "said_origin", "sources"]

ELSEWHERE = ("bench", "kernels")  # beside the package in a checkout; no reproduction runs them
UNKNOWN = "unknown"  # of parts from before it was kept


@cache
def sources() -> str:
    """A hash of the package's Python files and of its compiled extension, 8 hexadecimal digits."""
    return _hash(Path(__file__).parent.parent)


def _hash(package: Path) -> str:
    total = hashlib.sha256()
    names = [
        path.relative_to(package) for kind in ("*.py", "_C*.so") for path in package.rglob(kind)
    ]
    for name in sorted(names):
        if name.parts[0] not in ELSEWHERE:
            total.update(f"{name.as_posix()}\n".encode())
            total.update(hashlib.sha256((package / name).read_bytes()).digest())
    return total.hexdigest()[:8]


def mixed(made_by: Iterable[str]) -> bool:
    """Whether parts are of more than one version, or of an unknown one."""
    found = {*made_by}
    return len(found) > 1 or UNKNOWN in found


def said_origin(made_by: Iterable[str]) -> str:
    """One sentence: which versions of the sources made how many parts."""
    counts = Counter(made_by)
    if not mixed(counts):
        return f"Sources {''.join(counts)} of vaefast made every part of them ({counts.total()})."
    each = ", ".join(f"{name} ({count} parts)" for name, count in counts.most_common())
    return (
        f"These numbers are a mixture: their parts were made by sources {each} of vaefast, kept "
        "from one run to the next; a new folder has them of one version."
    )
