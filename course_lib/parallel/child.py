"""The process of one rank: it runs a function or a script, says how that ended, and ends with its launcher.

Started by :mod:`course_lib.parallel.processes` as ``main()`` with the arguments FOLDER and ``call``, or FOLDER,
``script`` or ``module``, its name and its arguments. In FOLDER it writes, N being the rank:

- ``N.where``: stacks: as it crashes, and whenever the launcher asks with SIGUSR1,
- ``N.failed``: a :class:`~course_lib.parallel.failures.Failure`,
- ``N.result``: what the function returned, by cloudpickle.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from course_lib.parallel.failures import Failure, raised, write_whole

LINGER = 3.0
"""Seconds that a rank whose function has returned keeps its connections open. Another one that still waits in a
collective, which this rank will never call, then learns of it before the time limit."""


def main() -> None:
    """Be the rank that the environment's RANK says."""
    folder, kind, *command = Path(sys.argv[1]), *sys.argv[2:]
    rank = int(os.environ["RANK"])
    _end_with_the_launcher(folder)
    where = open(folder / f"{rank}.where", "w")  # noqa: SIM115  open as long as the process
    faulthandler.enable(where)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, where)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    if kind == "call":
        _call(folder, rank)
    else:
        _script(folder, rank, kind, command)


def _call(folder: Path, rank: int) -> NoReturn:
    """Call the function of the file ``task`` and write down what it returns."""
    import cloudpickle

    failed = folder / f"{rank}.failed"
    os.environ["COURSE_STORE"] = str(folder / "store")
    try:
        with open(folder / "task", "rb") as file:
            sys.path[:], backend, timeout = cloudpickle.load(file)
            function, args = cloudpickle.load(file)
    except BaseException as error:  # noqa: BLE001  whatever it is, the caller is told
        _fail(failed, raised(error, f"cannot load the function or its arguments: {type(error).__name__}: {error}"))
    try:
        from course_lib.parallel.comm import join

        result = function(join(backend, timeout=timeout), *args)
    except SystemExit as error:
        _fail(failed, raised(error, f"exited with code {_code(error)} before it returned{_said(error)}"))
    except BaseException as error:  # noqa: BLE001
        _fail(failed, raised(error))
    try:
        written = cloudpickle.dumps(result)
    except BaseException as error:  # noqa: BLE001
        _fail(failed, Failure(
            f"returned a {type(result).__name__} that cannot be sent back: {type(error).__name__}: {error}. Return "
            "tensors, numbers, text, and lists or dicts of them."
        ))
    _flush()
    write_whole(folder / f"{rank}.result", written)
    time.sleep(LINGER)
    os._exit(0)  # nothing of the group needs to be taken down, and doing it may wait for others


def _script(folder: Path, rank: int, kind: str, command: list[str]) -> None:
    """Run a script or a module as Python itself would."""
    sys.argv = command
    failed = folder / f"{rank}.failed"
    try:
        if kind == "script":
            sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
            runpy.run_path(command[0], run_name="__main__")
        else:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if _code(error) != 0:
            _fail(failed, Failure(f"exited with code {_code(error)}{_said(error)}"))
    except BaseException as error:  # noqa: BLE001  whatever it is, the caller is told
        _fail(failed, raised(error))
    _end_well()


def _end_well() -> NoReturn:
    """End as Python does, but for taking torch down: threads of DDP then sometimes abort a process that is done."""
    threading._shutdown()  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    _flush()
    os._exit(0)


def _fail(path: Path, failure: Failure) -> NoReturn:
    """Say how this rank failed, and wait for the end.

    A process that ended at once would close its connections, and the other ranks would fail of that.
    """
    _flush()
    failure.write(path)
    time.sleep(60)
    os._exit(1)


def _code(error: SystemExit) -> int:
    return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


def _said(error: SystemExit) -> str:
    return f": {error.code}" if isinstance(error.code, str) else ""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed, or nobody reads it
            pass


def _end_with_the_launcher(folder: Path) -> None:
    """End this process and those that it has started when the launcher is gone, however it went.

    Standard input is a pipe from the launcher, which never writes to it: it ends with the launcher. What this rank
    runs reads from an empty file instead.
    """
    pipe, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def wait() -> Any:
        while os.read(pipe, 1):
            pass
        shutil.rmtree(folder, ignore_errors=True)  # the launcher may have had no time to
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, name="ends with the launcher", daemon=True).start()
