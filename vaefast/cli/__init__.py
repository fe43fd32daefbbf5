"""The command ``vaefast``: every mistake is one line on stderr and exit code 2, Ctrl-C is 130.

Warnings are a line each as well.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

__all__ = ["main"]

EXTRAS = (
    "typer",
    "rich",
    "matplotlib",
    "pyarrow",
    "jinja2",
    "sklearn",
    "PIL",
    "pandas",
    "tqdm",
    "xxhash",
)
INTERRUPTED, PIPE_CLOSED, TERMINATED, MISTAKE, DEFECT = 130, 141, 143, 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: the words after ``vaefast``; by default those of this process.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warner()
            return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as stop:
        return _say(f"interrupted; {str(stop) or 'nothing was left behind'}", INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        if os.environ.get("VAEFAST_DEBUG") == "1":
            traceback.print_exc()
        return _say(f"error: {describe(error)}", MISTAKE if _is_mistake(error) else DEFECT)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str]) -> int:
    from vaefast.cli.app import run

    return run(arguments)


def _warner() -> Callable[..., None]:
    """Shows a warning once, as one line without the place in our code that Python would add."""
    said: set[str] = set()

    def warn(message: Warning | str, *_: object) -> None:
        line = f"vaefast: warning: {' '.join(str(message).split())}"
        if line not in said:
            said.add(line)
            print(line, file=sys.stderr)

    return warn


def describe(error: BaseException) -> str:
    """An exception as one line that says what to do."""
    if isinstance(error, ModuleNotFoundError) and _package(error) in EXTRAS:
        return f"{_package(error)} is not installed; pip install 'vaefast[all]'"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if _is_mistake(error) else f"unexpected {type(error).__name__}: {text}{DEBUG_HINT}"


DEBUG_HINT = "; VAEFAST_DEBUG=1 shows where"


def _is_mistake(error: BaseException) -> bool:
    """Whether the error tells the caller what to change, rather than showing a defect of ours."""
    if isinstance(error, ModuleNotFoundError):
        return _package(error) in EXTRAS
    kinds = (ValueError, TypeError, RuntimeError, OSError, MemoryError, ImportError)
    return isinstance(error, kinds)


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]


def _say(line: str, code: int) -> int:
    print(f"vaefast: {line}", file=sys.stderr)
    return code


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)  # an exception, so that half-written files are taken away
