"""Several ranks on this machine, each a process of its own: for a function, or for a script as torchrun runs it.

Nothing here imports torch, but where "nccl" is asked for.
"""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from course_lib.parallel.failures import RankError
from course_lib.parallel.processes import Ranks

__all__ = ["RankError", "launch", "launch_script"]

MOST_RANKS = 64
LONGEST = 86_400.0
"""Seconds that a launched function may run."""

# Of another launcher, if this process is itself a rank of one: the new ranks form a group of their own.
_FOREIGN = ("MASTER_ADDR", "MASTER_PORT", "COURSE_STORE", "COURSE_BACKEND", "GROUP_RANK", "GROUP_WORLD_SIZE",
            "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME")


def launch(function: Callable[..., Any], ranks: int, *args: Any, timeout: float = 60.0,
           backend: str | None = None) -> list[Any]:
    """Call ``function(comm, *args)`` on ``ranks`` processes of this machine; return what each returned, in their order.

    Works from a notebook's cell, a test and a script. Each rank is a fresh interpreter with one thread for torch
    (unless OMP_NUM_THREADS says otherwise); starting takes what importing torch takes. Function, arguments and results
    travel by cloudpickle, so a function of a notebook may use what its cells define. What the ranks print is printed
    after the run, one rank after the other.

    Args:
        function: gets a :class:`~course_lib.parallel.comm.Comm` first.
        ranks: how many, 1 to 64.
        args: a copy of each for every rank.
        timeout: seconds that the whole run may take, > 0, at most a day.
        backend: "gloo" (CPUs), "nccl" (GPUs), or None: nccl where this machine has a GPU for each rank.

    Raises:
        RankError: a rank raised, died, or did not finish in time. The message begins with the one that failed first.
            No process is left.
        TypeError: the function is none, or it or an argument cannot be sent to another process.
        ValueError: another argument is not as above.
    """
    import cloudpickle

    if not callable(function):
        raise TypeError(f"Invalid function: {function!r}. Allowed: a function of a Comm, as in launch(function, 2).")
    _check(ranks, backend)
    if not _is_number(timeout) or not 0 < timeout <= LONGEST:
        raise ValueError(f"Invalid timeout: {timeout!r}. Allowed: seconds above 0, at most {LONGEST:,.0f}.")
    try:
        # The group waits longer than this launcher, which can tell where each rank is.
        settings = cloudpickle.dumps((sys.path, backend, timeout + 60))
        task = settings + cloudpickle.dumps((function, args))
    except Exception as error:
        raise TypeError(f"The function or an argument cannot be sent to another process: {type(error).__name__}: "
                        f"{error}. Make such things inside the function, on each rank.") from error
    with Ranks(ranks, ["call"], _environment(), live=False) as run:
        (run.folder / "task").write_bytes(task)
        run.start()
        try:
            run.wait(timeout)
        except RankError as error:
            _print(run, [] if error.rank is None else [error.rank])
            raise
        _print(run, range(ranks))
        return [cloudpickle.loads(run.result(rank)) for rank in range(ranks)]


def launch_script(command: Sequence[str], ranks: int, *, module: bool = False, timeout: float = 600.0,
                  port: int | None = None, backend: str | None = None) -> None:
    """Run a Python script on ``ranks`` processes of this machine, with the environment that ``torchrun`` makes.

    What ranks print is printed as it comes, each line after "[rank 1] ".

    Args:
        command: the script's path, or the module's name, and its arguments.
        ranks: how many, 1 to 64.
        module: whether it is a module's name.
        timeout: seconds that the whole run may take, > 0; ``math.inf`` for any.
        port: where rank 0 listens, 1 to 65535; None: one that is free.
        backend: what :func:`~course_lib.parallel.comm.join` takes where the script names none.

    Raises:
        RankError: as :func:`launch`.
        FileNotFoundError: there is no such script.
        ConnectionError: the port is in use.
        ValueError: another argument is not as above.
    """
    _check(ranks, backend)
    if not _is_number(timeout) or not timeout > 0:
        raise ValueError(f"Invalid timeout: {timeout!r}. Allowed: seconds above 0, or inf for no limit.")
    if not module and not os.path.isfile(command[0]):
        raise FileNotFoundError(f"There is no script {command[0]}. Give the path of a Python file, or -m and a module.")
    environment = _environment() | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_port(port))}
    if backend is not None:
        environment["COURSE_BACKEND"] = backend
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's own name need not resolve
    kind = "module" if module else "script"
    with Ranks(ranks, [kind, *command], environment, live=True, patience=1.0) as run:
        run.start()
        run.wait(timeout)


def _check(ranks: int, backend: str | None) -> None:
    if isinstance(ranks, bool) or not isinstance(ranks, int) or not 1 <= ranks <= MOST_RANKS:
        raise ValueError(f"Invalid ranks: {ranks!r}. Allowed: a whole number from 1 to {MOST_RANKS}.")
    if backend not in (None, "gloo", "nccl"):
        raise ValueError(f"Invalid backend: {backend!r}. Allowed: 'gloo' for CPUs, 'nccl' for GPUs.")
    if backend == "nccl":
        from course_lib.parallel.comm import _backend

        _backend(backend, ranks - 1, ranks)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _environment() -> dict[str, str]:
    """This process's environment, without what another launcher has put there."""
    kept = {name: value for name, value in os.environ.items()
            if name not in _FOREIGN and not name.startswith("TORCHELASTIC_")}
    return {"OMP_NUM_THREADS": "1"} | kept


def _port(port: int | None) -> int:
    """A port on which nobody listens: this one, or any."""
    if port is not None and not (_is_number(port) and 1 <= port <= 65535):
        raise ValueError(f"Invalid port: {port!r}. Allowed: 1 to 65535; without it, one that is free is taken.")
    with socket.socket() as probe:
        if os.name == "posix":
            # As torch does: connections of an earlier run that are being closed are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port or 0))
        except PermissionError:
            raise ConnectionError(f"Port {port} needs the administrator's rights. Choose one above 1023, or none: one "
                                  "that is free is taken then.") from None
        except OSError:
            raise ConnectionError(f"Port {port} is in use by another program. Choose another one, or none: one that is "
                                  "free is taken then.") from None
        return probe.getsockname()[1]


def _print(run: Ranks, also_stderr: Sequence[int]) -> None:
    """Print what each rank printed; to stderr only what these ranks did: the others complain of the first one."""
    for rank in range(run.ranks):
        sys.stdout.write(run.printed(rank, "out"))
        if rank in also_stderr:
            sys.stderr.write(run.printed(rank, "err"))
    sys.stdout.flush()
