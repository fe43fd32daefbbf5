"""Who works on what: files that end by themselves when their owner does.

Correctness does not rest on them. Two workers on one shard write the same bytes of numbers, and the
later file takes the place of the earlier; a lease only keeps them from doing so.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vaefast.jobs.durable import explained, replace_whole

__all__ = ["Holder", "Leases", "machine", "process_start"]

TTL = 60.0  # s without a sign of life after which a lease is nobody's


@dataclass(frozen=True)
class Holder:
    """What a lease says.

    Attributes:
        host, pid: of its owner.
        started: when that process began, in ticks since the machine did; 0 where not known.
        machine: boot and process namespace in which the pid means something.
        token: of this one owner.
        beat: signs of life so far.
        expires: s since 1970 by the owner's clock, unless there is another sign before.
    """

    host: str
    pid: int
    started: int
    machine: str
    token: str
    beat: int
    expires: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Leases:
    """The leases of one run as one owner sees them.

    An owner is taken for dead when its process is gone (seen on its own machine only), when its
    clock's time is over, or when it gave no sign for ``ttl`` seconds that we watched it: so a clock
    that jumps, ours or theirs, delays or doubles work but loses none.

    Args:
        folder: of the lease files.
        ttl: s.
        wall, clock: time since 1970, and a time that never goes backwards.
    """

    def __init__(
        self,
        folder: Path,
        ttl: float = TTL,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.ttl = folder, ttl
        self._wall, self._clock = wall, clock
        self._token = secrets.token_hex(8)
        self._held: dict[str, int] = {}  # beats by name
        self._seen: dict[str, tuple[str, int, float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def claim(self, name: str) -> bool:
        """Take a lease that is free or whose owner is dead; whether it is ours now.

        Raises:
            OSError: the folder cannot be written.
        """
        holder = self.holder(name)
        if holder is not None and self.alive(name, holder):
            return False
        if holder is None and not self._create(name):
            return False
        if holder is not None:
            self._write(name, 0)
            again = self.holder(name)  # another may have taken it in the same moment
            if again is None or again.token != self._token:
                return False
        with self._lock:
            self._held[name] = 0
        self._begin()
        return True

    def release(self, name: str) -> None:
        """Give a lease back; one that another took meanwhile is left alone."""
        with self._lock:
            self._held.pop(name, None)
        holder = self.holder(name)
        if holder is not None and holder.token == self._token:
            with suppress(OSError):
                self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Give all back."""
        self._ended.set()
        for name in list(self._held):
            self.release(name)

    def holder(self, name: str) -> Holder | None:
        """Whose a lease is; None where it is nobody's or cannot be read."""
        try:
            return Holder(**json.loads(self._path(name).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def names(self) -> list[str]:
        """Of all leases there are, dead ones too."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def alive(self, name: str, holder: Holder) -> bool:
        """Whether an owner may still be at work."""
        if holder.token == self._token:
            return name in self._held
        if holder.machine == machine() and process_start(holder.pid) != holder.started:
            return False
        if self._wall() > holder.expires:
            return False
        now, mark = self._clock(), (holder.token, holder.beat)
        token, beat, since = self._seen.get(name, ("", 0, now))
        if (token, beat) != mark:
            self._seen[name] = (*mark, now)
            return True
        return now - since <= self.ttl

    def _create(self, name: str) -> bool:
        """A file that was not there; False where another was quicker."""
        path = self._path(name)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            beside.write_bytes(self._own(0))
            os.link(beside, path)  # as one step on every file system that has links
        except FileExistsError:
            return self._replace_unreadable(name)
        except OSError as error:
            raise explained(error, path) from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        return True

    def _replace_unreadable(self, name: str) -> bool:
        """A lease of no meaning was written by nobody who lives."""
        if self.holder(name) is None and self._path(name).exists():
            self._write(name, 0)
            return True
        return False

    def _write(self, name: str, beat: int) -> None:
        replace_whole(self._path(name), self._own(beat), lasting=False)

    def _own(self, beat: int) -> bytes:
        holder = Holder(
            socket.gethostname(),
            os.getpid(),
            process_start(os.getpid()),
            machine(),
            self._token,
            beat,
            self._wall() + self.ttl,
        )
        return json.dumps(asdict(holder)).encode()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _begin(self) -> None:
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)
            self._heart.start()

    def _beat(self) -> None:
        while not self._ended.wait(self.ttl / 4):
            with self._lock:
                for name in self._held:
                    self._held[name] += 1
                    with suppress(OSError):  # the shard's own write will say so
                        self._write(name, self._held[name])


def machine() -> str:
    """The boot and the process namespace of this process, in which its pid is its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def process_start(pid: int) -> int:
    """When a process of this machine began, in ticks; −1 where there is none, 0 if not known."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if status[0] in "ZX" else int(status[19])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, IndexError):
        return 0
    if Path("/proc/self/stat").exists():
        return -1
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except OSError:
        return 0
    return 0
