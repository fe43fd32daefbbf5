"""Write docs/kernels.md: what every variant of every kernel takes on every target.

``python -m vaefast.kernels.proof.table docs/kernels.md`` writes the file, with ``--check`` only
says whether it names today's variants, sources and triton, with ``--compare`` compiles
everything and prints the rows that have changed, with ``--kept`` writes what earlier runs have
found and says of the others that they are not compiled yet. In a checkout's root, ``vaefast/``
there must be what is installed.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

import triton

from vaefast.kernels.proof import aot
from vaefast.kernels.proof.binary import Binary
from vaefast.kernels.proof.fingerprint import fingerprint
from vaefast.kernels.proof.occupancy import most_warps, programs
from vaefast.kernels.proof.results import kept, key
from vaefast.kernels.proof.survey import Job, jobs, survey, variant_of

__all__ = ["main", "outdated", "outline", "render", "stale"]

HEAD = """\
# What the kernels take

Compiled ahead of time with triton {version}, without a GPU, by `make kernels`, which writes this
file. One row is one binary: a form of a kernel that its launcher can choose, for one target.

- *registers*: 32-bit registers of a thread (vector registers on gfx942).
- *spilled*: bytes of stack and local memory of a thread.
- *shared*: bytes of shared memory of a program.
- *occupancy*: programs that one multiprocessor (compute unit) holds at once, predicted from
  registers, shared memory and warps by `kernels/gpu/proof/occupancy.py`, which names the limits and
  where they come from; behind it the share of the warps (waves) that the hardware could hold.
- *matrix units*: instructions of the matrix units in the assembly; blank where there are none.
"""
NOT_YET = "not compiled yet"
COLUMNS = ("variant", "target", "warps", "stages", "registers", "spilled", "shared", "occupancy",
           "matrix units")  # fmt: skip
KEY = re.compile(r"^(## `.*|<!-- sources .*|\| [^|]+ \| (?:sm_\d+|gfx\w+) \|)", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Write or compare the file; 1 where a check finds it stale."""
    options = {a for a in arguments if a.startswith("--")}
    path = Path(next(a for a in arguments if a not in options))
    before = path.read_text() if path.exists() else ""
    if "--check" in options:
        if reason := outdated(before):
            print(f"{path}: {reason}; run `make kernels`")
        return int(bool(reason))
    after = render(compiling="--kept" not in options)
    if "--compare" in options:
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
        print(*lines, sep="\n")
        return 0
    path.write_text(after)
    return 0


def outdated(text: str, version: str = triton.__version__) -> str:
    """Why the binaries have to be proven again, by a version of triton; "" where they need not."""
    if f"with triton {version}," not in text:
        return f"its binaries are not those of triton {version}"
    return "its binaries are not those of today's sources and forms" if stale(text) else ""


def stale(text: str) -> bool:
    """Whether the file lacks a variant or a target, or describes other sources; cheap."""
    return KEY.findall(text) != KEY.findall(outline())


def outline() -> str:
    """The file's headings, hashes of the sources and first columns."""
    sections = (_section(name, [_row(*job[1:]) for job in jobs(name)]) for name in aot.modules())
    return "\n".join([HEAD.format(version=triton.__version__), *sections])


def render(compiling: bool = True) -> str:
    """The whole file; without ``compiling`` of the binaries that earlier runs have compiled."""
    names = list(aot.modules())
    every = [job for name in names for job in jobs(name)]
    binaries = survey(every) if compiling else earlier(every)
    sections = (
        _section(name, [_measured(job, binaries.get(job)) for job in jobs(name)]) for name in names
    )
    missing = len(every) - len(binaries)
    note = f"\n**{missing} of {len(every)} forms are {NOT_YET}.** `make kernels` goes on.\n"
    head = HEAD.format(version=triton.__version__) + (note if missing else "")
    return "\n".join([head, *sections])


def earlier(every: list[Job]) -> dict[Job, Binary]:
    """What earlier runs have kept of these binaries."""
    found = ((job, kept(key(job.module, variant_of(job), job.target))) for job in every)
    return {job: binary for job, binary in found if binary is not None}


def _section(module: str, rows: list[str]) -> str:
    head = [f"## `{module}`", "", f"<!-- sources {fingerprint(module)} -->", "", _row(*COLUMNS)]
    return "\n".join([*head, "|---|---" + "|--:" * 6 + "|---|", *rows, ""])


def _measured(job: Job, b: Binary | None) -> str:
    if b is None:
        return _row(job.label, job.target, NOT_YET, *[""] * 6)
    n = programs(b, job.target)
    share = 100 * n * b.warps / most_warps(job.target)
    matrix = ", ".join(f"{count} x {name}" for name, count in b.matrix.items())
    return _row(
        job.label, job.target, b.warps, b.stages, b.registers, b.spills, b.shared,
        f"{n} ({share:.0f} %)", matrix,
    )  # fmt: skip


def _row(*cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
