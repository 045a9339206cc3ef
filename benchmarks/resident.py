"""Memory and processor time of another process, from Linux's own books."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Resident", "cpu_seconds", "resident"]


class Resident:
    """The resident set of a process, once a second.

    Attributes:
        samples: Seconds since the start, and MiB.
        marks: What it was when something was over.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.samples: list[tuple[float, float]] = []
        self.marks: dict[str, float] = {}
        self._process = 0

    @contextmanager
    def watching(self, process: int) -> Iterator[None]:
        """Look once a second, as long as the block lasts."""
        self._process, start, over = process, time.monotonic(), threading.Event()
        self.mark("start")

        def watch() -> None:
            while not over.wait(1):
                self.samples.append((time.monotonic() - start, resident(process)))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def mark(self, name: str) -> None:
        """Keep what it is now."""
        self.marks[name] = resident(self._process)

    def table(self) -> str:
        """All marks, and the highest sample."""
        found = self.marks | {"highest": max((value for _, value in self.samples), default=0.0)}
        lines = [f"| {name} | {value:.0f} |" for name, value in found.items()]
        return "\n".join(["| the server's memory | MiB |", "|---|---:|", *lines])


def resident(process: int) -> float:
    """Resident set in MiB (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far, all its threads (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
