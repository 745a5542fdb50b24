"""Run a judgement in a process of its own, so that no candidate can harm the kernel.

The child reports through a pipe, one JSON line at a time: the probe it is in, then the findings. On Linux it is a
fork, which costs milliseconds; elsewhere a fresh interpreter to which the candidate is sent with cloudpickle.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from course_lib.checks.report import REMARK, Finding

SECONDS = 8.0  # from the first probe to the verdict
START_UP = 60.0  # until the first probe; a fresh interpreter has to import torch
MEMORY = 2 * 2**30  # bytes a candidate may take beyond what the process already maps
PRINTED = 1_000_000  # characters after which printing is remarked upon


def run(
    exercise: str,
    candidate: Any,
    *,
    allow_production: bool = False,
    method: str | None = None,
    seconds: float = SECONDS,
) -> list[Finding]:
    """Judge ``candidate`` for ``exercise`` in a child process and return the findings.

    Args:
        exercise: id of the exercise.
        candidate: what the learner wrote, of any type.
        allow_production: accept torch's own optimizers (the control in the proof of the checks).
        method: ``fork`` or ``spawn``; by default fork on Linux, spawn elsewhere.
        seconds: time limit, after which the child is killed.
    """
    method = method or ("fork" if sys.platform == "linux" else "spawn")
    start = _fork if method == "fork" else _spawn
    try:
        read_fd, stop = start(exercise, candidate, allow_production)
    except Exception as error:  # a candidate that cannot be sent to another process
        return [_not_sent(error)]
    try:
        lines, ended = _read(read_fd, seconds)
    finally:
        os.close(read_fd)
        status = stop()
    return _verdict(lines, ended, status, seconds)


def _not_sent(error: Exception) -> Finding:
    return Finding(
        "cannot-run",
        f"The answer could not be run in a process of its own: {error}",
        "Define it in a cell of its own, without open files, locks or generators in it.",
    )


def _read(fd: int, seconds: float) -> tuple[list[dict[str, Any]], bool]:
    """Collect JSON lines until the child closes the pipe (True) or its time is over (False)."""
    data = b""
    deadline = time.monotonic() + START_UP
    while _readable(fd, deadline - time.monotonic()):
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        if not data:
            deadline = time.monotonic() + seconds
        data += chunk
    else:
        return [json.loads(line) for line in data.splitlines() if line.endswith(b"}")], False
    return [json.loads(line) for line in data.splitlines() if line.endswith(b"}")], True


def _readable(fd: int, seconds: float) -> bool:
    """Wait until there is something to read, at most ``seconds``. Windows cannot wait on a pipe: there, peek."""
    if seconds <= 0:
        return False
    if sys.platform != "win32":
        return bool(select.select([fd], [], [], seconds)[0])
    import ctypes
    import msvcrt

    handle, waiting, deadline = msvcrt.get_osfhandle(fd), ctypes.c_ulong(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = ctypes.windll.kernel32.PeekNamedPipe(handle, None, 0, None, ctypes.byref(waiting), None)
        if not alive or waiting.value:
            return True
        time.sleep(0.01)
    return False


def _verdict(lines: list[dict[str, Any]], ended: bool, status: int, seconds: float) -> list[Finding]:
    for line in lines:
        if "findings" in line:
            return [Finding(**finding) for finding in line["findings"]]
    probe = next((line["probe"] for line in reversed(lines) if "probe" in line), "starting")
    if not ended:
        return [
            Finding(
                "endless",
                f"Stopped after {seconds:g} seconds, while {probe}: your code does not come to an end.",
                "Look for a loop whose condition never turns false, or for work that grows with every step.",
            )
        ]
    if status == -signal.SIGKILL:
        return [
            Finding(
                "memory",
                f"The process was killed while {probe}, most likely for the memory it took.",
                "State should take a fixed number of bytes per parameter.",
            )
        ]
    return [
        Finding(
            "ended-process",
            f"Your code ended the whole process while {probe} (exit status {status}).",
            "Your code must come back from its call; it never calls exit, os._exit or abort.",
        )
    ]


class _Counter(io.TextIOBase):
    """A stdout that keeps nothing and counts what is written to it."""

    count = 0

    def write(self, text: str) -> int:
        self.count += len(text)
        return len(text)


def _child(fd: int, exercise: str, candidate: Any, allow_production: bool) -> None:
    """Judge, and write JSON lines to ``fd``. Runs in the child process and never returns."""

    def send(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(fd, data) :]

    try:
        printed = _Counter()
        sys.stdout = sys.stderr = printed
        _limit_memory()
        import torch

        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        without_compiler(torch.optim.Optimizer)
        from course_lib.checks.judges import judge

        send({"probe": "starting"})
        findings = judge(exercise, candidate, lambda probe: send({"probe": probe}), allow_production)
        if printed.count > PRINTED:
            findings.append(
                Finding(
                    "prints",
                    f"Your code prints a lot: {printed.count:,} characters during this check.",
                    "Take the print out of the loop.",
                    REMARK,
                )
            )
        send({"findings": [vars(finding) for finding in findings]})
        os._exit(0)
    except BaseException as error:
        send({"findings": [vars(_own_failure(error))]})
        os._exit(0)


def without_compiler(optimizer: type) -> None:
    """Keep an optimizer's first call from importing torch's compiler, which takes seconds and is not needed here."""
    for method in vars(optimizer).values():
        function = getattr(method, "__wrapped__", None)
        if function is not None:
            vars(function).setdefault("__dynamo_disable", function)


def _own_failure(error: BaseException) -> Finding:
    if isinstance(error, MemoryError):
        return Finding(
            "memory",
            "Your code asked for more memory than a check allows.",
            "State should take a fixed number of bytes per parameter.",
        )
    return Finding(
        "check-failed",
        f"The check itself failed on this answer: {type(error).__name__}: {error}",
        "Please report it with your answer; it is not your mistake alone.",
    )


def _limit_memory() -> None:
    """Limit the address space, where the system can, so that a candidate cannot take the machine's memory."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    except (ImportError, OSError, ValueError):
        pass


def _fork(exercise: str, candidate: Any, allow_production: bool) -> tuple[int, Callable[[], int]]:
    read_fd, write_fd = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        try:
            os.setsid()  # so that whatever the candidate starts can be stopped with it
            null = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(null, standard)
            _child(write_fd, exercise, candidate, allow_production)
        finally:
            os._exit(70)
    os.close(write_fd)

    def stop() -> int:
        # A child that has closed its pipe is exiting; any other is stopped here.
        for _ in range(20):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.killpg(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return read_fd, stop


def _spawn(exercise: str, candidate: Any, allow_production: bool) -> tuple[int, Callable[[], int]]:
    import cloudpickle

    payload = cloudpickle.dumps(sys.path) + cloudpickle.dumps((exercise, candidate, allow_production))
    process = subprocess.Popen(
        [sys.executable, "-m", "course_lib.checks.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    read_fd = os.dup(process.stdout.fileno())
    process.stdout.close()
    process.stdin.write(payload)
    process.stdin.close()

    def stop() -> int:
        try:
            return process.wait(0.1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    return read_fd, stop


def _main() -> None:
    """The fresh interpreter's side of :func:`_spawn`: read the candidate from stdin, report to what was stdout."""
    import pickle

    from course_lib import journal

    journal.pause()  # a candidate that checks something itself must not write into the learner's progress
    fd = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        sys.path[:] = pickle.load(sys.stdin.buffer)
        exercise, candidate, allow_production = pickle.load(sys.stdin.buffer)
    except Exception as error:
        os.write(fd, json.dumps({"findings": [vars(_not_sent(error))]}).encode() + b"\n")
        return
    _child(fd, exercise, candidate, allow_production)


if __name__ == "__main__":
    _main()
