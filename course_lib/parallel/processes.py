"""The processes of several ranks: started together, watched, and ended together, whatever happens.

Each rank is a fresh interpreter in a process group of its own, so that what it starts ends with it. Nothing here
imports torch: the command supervises its ranks without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from course_lib.parallel import failures
from course_lib.parallel.failures import Failure, Frame, RankError

POLL = 0.02
"""Seconds between two looks at the ranks."""
QUIET = 0.1
"""Seconds after a rank's own error in which another one may turn out to have failed before it."""
GRACE = 3.0
"""Seconds after a lost connection in which the rank that is gone may turn up."""

_ROOT = str(Path(__file__).resolve().parents[2])
_START = "import sys; sys.path.append({!r}); from course_lib.parallel.child import main; main()"


class Ranks:
    """The processes of one run, as a context: leaving it ends them all and removes the run's folder.

    Args:
        ranks: how many, >= 1.
        arguments: what :mod:`course_lib.parallel.child` takes after the folder.
        environment: for all ranks; RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE are added.
        live: print what ranks print as it comes, each line after "[rank 1] "; without it, it is kept in the folder.
        patience: seconds between SIGTERM and SIGKILL when ranks are ended; 0: SIGKILL at once.

    Attributes:
        folder: the run's temporary folder.
    """

    def __init__(self, ranks: int, arguments: Sequence[str], environment: Mapping[str, str], *, live: bool,
                 patience: float = 0.0) -> None:
        self.ranks, self.live, self.patience = ranks, live, patience
        self._arguments, self._environment = list(arguments), dict(environment)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._deaths: dict[int, Failure] = {}
        self._line = threading.Lock()
        self._temporary = tempfile.TemporaryDirectory(prefix="course-launch-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            self._end()
        finally:
            self._temporary.cleanup()

    def start(self) -> None:
        """Start all ranks."""
        for rank in range(self.ranks):
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.ranks, "LOCAL_WORLD_SIZE": self.ranks}
            out, err = (subprocess.PIPE,) * 2 if self.live else (open(self._file(rank, end), "wb")  # noqa: SIM115
                                                                 for end in ("out", "err"))
            process = subprocess.Popen(
                # -P: a file of the working folder that bears the name of a module of Python is not taken for it.
                [sys.executable, "-P", "-c", _START.format(_ROOT), str(self.folder), *self._arguments],
                env=self._environment | {name: str(value) for name, value in places.items()},
                stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True,
            )
            self._processes.append(process)
            if self.live:
                self._follow(rank, process.stdout, sys.stdout)
                self._follow(rank, process.stderr, sys.stderr)
            else:
                out.close()
                err.close()

    def wait(self, timeout: float) -> None:
        """Wait until all ranks have ended well.

        Args:
            timeout: seconds, at most, from now on.

        Raises:
            RankError: one failed, or the time is up. All of them have been ended by then.
        """
        end, settled = time.monotonic() + timeout, float("inf")
        while True:
            returned, failed = self._look()
            if len(returned) == self.ranks:
                return
            now = time.monotonic()
            if failed:
                own = any(not failure.lost for failure in failed.values())
                settled = min(settled, now + (QUIET if own else GRACE))
                if now >= settled or len(returned) + len(failed) == self.ranks:
                    raise self._failure(returned, failed)
            elif now >= end:
                raise self._too_late(returned, timeout)
            time.sleep(POLL)

    def printed(self, rank: int, end: str) -> str:
        """What a rank has printed to "out" or "err", where that is kept; of more than a million bytes the last ones."""
        with open(self._file(rank, end), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            left_out = max(0, size - 10**6)
            file.seek(left_out)
            text = file.read().decode(errors="replace").replace("\r\n", "\n")
        return f"[{left_out} bytes that rank {rank} printed before are left out]\n{text}" if left_out else text

    def result(self, rank: int) -> bytes:
        """What a rank's function has returned, by cloudpickle."""
        return self._file(rank, "result").read_bytes()

    def _file(self, rank: int, what: str) -> Path:
        return self.folder / f"{rank}.{what}"

    def _look(self) -> tuple[set[int], dict[int, Failure]]:
        """The ranks that have ended well, and the failures of those that have not; the others still run."""
        returned, failed = set(), {}
        call = self._arguments[0] == "call"
        for rank, process in enumerate(self._processes):
            code = process.poll()  # first, so that a process that has ended has written all that it ever will
            if self._file(rank, "failed").exists():
                failed[rank] = Failure.read(self._file(rank, "failed"))
            elif self._file(rank, "result").exists() or code == 0 and not call:
                returned.add(rank)
            elif code is not None:
                if rank not in self._deaths:
                    before = "before it returned" if call else ""
                    self._deaths[rank] = failures.died(code, before, self._dump(rank))
                failed[rank] = self._deaths[rank]
        return returned, failed

    def _failure(self, returned: set[int], failed: dict[int, Failure]) -> RankError:
        rank = failures.root(failed)
        frames = self._where(set(range(self.ranks)) - returned - set(failed))
        self._end()
        failure = failed[rank]
        parts = [f"Rank {rank} of {self.ranks} {failure.what}", failure.traceback(rank)]
        others = []
        for other in range(self.ranks):
            if other in returned:
                others.append(f"Rank {other} had returned.")
            elif other in frames:
                others.append(f"Rank {other} {failures.doing(frames[other], 'was')}; it was ended.")
            elif other != rank:
                then = failed[other]
                same = "the same" if then.what == failure.what else then.what
                others.append(f"Rank {other}{' then' * then.lost}: {same.rstrip('.')}.")
        if failure.lost and returned and len(returned) + len(failed) == self.ranks:
            others.append("A rank that has returned takes part in nothing more. Every rank must make the same calls.")
        return RankError("\n\n".join(part for part in [*parts, "\n".join(others)] if part), rank)

    def _too_late(self, returned: set[int], timeout: float) -> RankError:
        late = set(range(self.ranks)) - returned
        frames = self._where(late)
        self._end()
        count = f"{self.ranks} ranks" if len(late) == self.ranks else f"{len(late)} of {self.ranks} ranks"
        if self.ranks == 1:
            count = "The only rank"
        states = ", ".join(f"rank {rank} {'has returned' if rank in returned else failures.doing(frames[rank])}"
                           for rank in range(self.ranks))
        stacks = [failures.stack(frames[rank], rank) for rank in sorted(late)]
        return RankError("\n\n".join([f"{count} did not finish within {timeout:g} s; {states}", *filter(None, stacks)]))

    def _where(self, running: set[int]) -> dict[int, list[Frame]]:
        """The frames of ranks that run, the innermost first: asked with a signal, which Python answers as it waits."""
        if hasattr(signal, "SIGUSR1"):
            # The signal would end a process that has not come as far as to open its file.
            asked = {rank: len(self._dump(rank)) for rank in running if self._file(rank, "where").exists()}
            for rank in asked:
                self._processes[rank].send_signal(signal.SIGUSR1)
            end = time.monotonic() + 1
            while time.monotonic() < end and any(len(self._dump(rank)) == size for rank, size in asked.items()):
                time.sleep(POLL)
            if asked:
                time.sleep(2 * POLL)  # the rest of what is being written
        return {rank: failures.frames_of(self._dump(rank)) for rank in running}

    def _dump(self, rank: int) -> str:
        try:
            return self._file(rank, "where").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _follow(self, rank: int, pipe: IO[bytes], target: IO[str]) -> None:
        def read() -> None:
            with pipe:
                for line in pipe:
                    text = line.decode(errors="replace").rstrip("\r\n")
                    # If nobody reads any more (as with `| head`), the pipe is emptied all the same: a rank must not
                    # wait to print.
                    with self._line, contextlib.suppress(OSError, ValueError):
                        target.write(f"[rank {rank}] {text}\n")
                        target.flush()

        self._readers.append(threading.Thread(target=read, daemon=True))
        self._readers[-1].start()

    def _end(self) -> None:
        """End every process of every rank; a second time does nothing more."""
        try:
            if self.patience and any(process.poll() is None for process in self._processes):
                self._signal("SIGTERM")
                end = time.monotonic() + self.patience
                while time.monotonic() < end and any(process.poll() is None for process in self._processes):
                    time.sleep(POLL)
        finally:
            self._signal("SIGKILL")
            for process in self._processes:
                process.wait()
                process.stdin.close()
            for reader in self._readers:
                reader.join(1.0)
            self._processes = []

    def _signal(self, name: str) -> None:
        for process in self._processes:
            if hasattr(os, "killpg"):
                try:
                    os.killpg(process.pid, getattr(signal, name))
                except (ProcessLookupError, PermissionError):  # none is left; on macOS, all that are left have ended
                    pass
            if process.poll() is None:
                process.terminate() if name == "SIGTERM" else process.kill()
