"""Ranks as processes: what comes back, whose error is told first, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import cloudpickle
import pytest
import torch

import course_lib
from course_lib.parallel import failures
from course_lib.parallel.failures import Failure, RankError
from course_lib.parallel.launch import launch
from course_lib.parallel.processes import Ranks

ROOT = Path(course_lib.__file__).parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals and process groups")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where temporary folders are made while the test runs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def mark(monkeypatch) -> bytes:
    """A line in the environment of every process that the test starts."""
    value = uuid.uuid4().hex
    monkeypatch.setenv("COURSE_TEST_MARK", value)
    return f"COURSE_TEST_MARK={value}".encode()


def marked(mark: bytes) -> set[int]:
    """The processes with this line in their environment, without those that have ended and those who ask."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes():
                found.add(int(path.name))
        except OSError:  # it has ended, or is not ours
            pass
    return found - {os.getpid()}


def wait_for(condition, seconds: float = 60.0) -> bool:
    """Whether ``condition()`` became true; the time is for machines that hang, not a demand."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


# Functions that ranks run.


def waits(comm):
    return comm.all_reduce(torch.ones(1))


def ends_badly(comm, how):
    """Rank 1 ends as ``how`` says; rank 0 waits for it."""
    if comm.rank == 1:
        print("rank 1 was here")
        how()
    waits(comm)


def raises():
    try:
        {}["layer"]
    except KeyError as error:
        raise ValueError("no such layer") from error


def dies():
    os._exit(3)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def crashes():
    import ctypes

    ctypes.string_at(0)


# What comes back


CELL = """
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b

def double(x): return 2 * x

def cell(comm, start):
    print("one", comm.rank)
    total = comm.all_reduce(start + comm.rank)
    print("two", comm.rank)
    return Pair((comm.rank, comm.ranks, torch.get_num_threads()), double(total))
"""


def test_results_and_prints_come_back_in_the_order_of_ranks(capsys, monkeypatch, folder):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = {"__name__": "__main__", "torch": torch}
    exec(CELL, notebook)
    found = launch(notebook["cell"], 3, torch.tensor([1.0, 10.0]))
    assert [pair.a for pair in found] == [(0, 3, 1), (1, 3, 1), (2, 3, 1)]
    for pair in found:
        assert pair.b.tolist() == [2 * (1 + 2 + 3), 2 * (10 + 11 + 12)]
    assert type(found[0]) is notebook["Pair"]
    assert capsys.readouterr().out == "one 0\ntwo 0\none 1\ntwo 1\none 2\ntwo 2\n"
    assert list(folder.iterdir()) == []


def test_what_a_rank_starts_reads_no_input_and_other_launchers_are_forgotten(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("WORLD_SIZE", "7")

    def asks(comm):
        return sys.stdin.read(), os.environ["WORLD_SIZE"], {"MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"} & {*os.environ}

    assert launch(asks, 1) == [("", "1", set())]


# Whose error


def test_the_rank_that_raises_is_told_first_with_its_own_code(capsys, folder):
    with pytest.raises(RankError) as caught:
        launch(ends_badly, 2, raises)
    message = str(caught.value)
    assert caught.value.rank == 1
    assert message.startswith("Rank 1 of 2 raised ValueError: no such layer\n\nRank 1, most recent call last:\n")
    assert '{}["layer"]' in message and "From this came:" in message
    assert message.index("KeyError: 'layer'") < message.index("\nValueError: no such layer")
    assert "child.py" not in message and "runpy" not in message
    line = waits.__code__.co_firstlineno + 1
    assert message.endswith(f"Rank 0 was waiting at test_parallel_launch.py:{line} in all_reduce; it was ended.")
    assert capsys.readouterr().out == "rank 1 was here\n"
    assert list(folder.iterdir()) == []


@POSIX
@pytest.mark.parametrize(
    ("how", "what"),
    [(dies, "exited with code 3 before it returned"), (is_killed, "was killed by signal 9 (SIGKILL)"),
     (crashes, "was killed by signal 11 (SIGSEGV)")],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_rank_that_dies_is_told_before_the_connection_that_others_lose(how, what, folder):
    with pytest.raises(RankError) as caught:
        launch(ends_badly, 2, how)
    assert str(caught.value).startswith(f"Rank 1 of 2 {what}")
    assert "\nRank 0 " in str(caught.value)
    assert ("in crashes" in str(caught.value)) == (how is crashes)
    assert list(folder.iterdir()) == []


def test_a_rank_that_calls_what_another_one_does_not_is_told_before_the_time_is_up():
    def one_alone(comm):
        return comm.rank or waits(comm)

    with pytest.raises(RankError, match="Rank 0 of 2 raised .*(?s:.*)Rank 1 had returned.\n.*the same calls"):
        launch(one_alone, 2, timeout=600)


@POSIX
def test_when_the_time_is_up_it_says_where_each_rank_is(tmp_path):
    def hangs(comm, folder):
        (folder / str(comm.rank)).touch()
        if comm.rank == 2:
            return
        if comm.rank == 1:
            time.sleep(1000)
        waits(comm)

    with Ranks(3, ["call"], os.environ, live=False) as run:
        (run.folder / "task").write_bytes(cloudpickle.dumps((sys.path, "gloo", 600)) +
                                          cloudpickle.dumps((hangs, (tmp_path,))))
        run.start()
        assert wait_for(lambda: len(list(tmp_path.iterdir())) == 3)
        with pytest.raises(RankError) as caught:
            run.wait(2)
        assert all(process.poll() is not None for process in run._processes)
    first = hangs.__code__.co_firstlineno
    assert str(caught.value).startswith(
        f"2 of 3 ranks did not finish within 2 s; rank 0 waits at test_parallel_launch.py:"
        f"{waits.__code__.co_firstlineno + 1} in all_reduce, rank 1 is at test_parallel_launch.py:{first + 5} in hangs, "
        "rank 2 has returned\n"
    )
    assert caught.value.rank is None


def test_a_launch_has_a_time_limit_of_its_own(folder):
    with pytest.raises(RankError, match=r"^2 ranks did not finish within 0\.5 s; rank 0 .*, rank 1 "):
        launch(waits, 2, timeout=0.5)
    assert list(folder.iterdir()) == []


def test_of_a_flood_of_prints_the_end_is_kept(capsys):
    def floods(comm):
        print("x" * 1_500_000)
        print("the end")

    launch(floods, 1)
    shown = capsys.readouterr().out
    assert shown.startswith("[500009 bytes that rank 0 printed before are left out]\nxxx")
    assert shown.endswith("x\nthe end\n")


def test_what_cannot_travel_is_named():
    def returns_a_generator(comm):
        return (number for number in range(3))

    with pytest.raises(RankError, match="^Rank 0 of 1 returned a generator that cannot be sent back: TypeError"):
        launch(returns_a_generator, 1)
    with pytest.raises(TypeError, match="cannot be sent to another process: TypeError: cannot pickle '_thread.lock'"):
        launch(ends_badly, 1, threading.Lock())


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "said"),
    [((waits, 0), {}, ValueError, "Invalid ranks: 0. Allowed: a whole number from 1 to 64."),
     ((waits, "2"), {}, ValueError, "Invalid ranks: '2'."),
     ((waits, True), {}, ValueError, "Invalid ranks: True."),
     ((waits, 65), {}, ValueError, "Invalid ranks: 65."),
     ((2, 2), {}, TypeError, "Invalid function: 2."),
     ((waits, 2), {"timeout": 0}, ValueError, "Invalid timeout: 0. Allowed: seconds above 0"),
     ((waits, 2), {"timeout": float("nan")}, ValueError, "Invalid timeout: nan."),
     ((waits, 2), {"timeout": "1"}, ValueError, "Invalid timeout: '1'."),
     ((waits, 2), {"backend": "mpi"}, ValueError, "Invalid backend: 'mpi'. Allowed: 'gloo' for CPUs")],
)
def test_bad_arguments(arguments, keywords, error, said):
    with pytest.raises(error) as caught:
        launch(*arguments, **keywords)
    assert str(caught.value).startswith(said)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are GPUs")
def test_gpus_that_are_not_there():
    with pytest.raises(ValueError, match="needs a GPU for each rank, and there is none for rank 1"):
        launch(waits, 2, backend="nccl")


def test_a_lost_connection_is_a_consequence_whenever_it_was_seen():
    lost, own, later = Failure("raised", 1.0, lost=True), Failure("exited", 2.0), Failure("raised", 3.0)
    assert failures.root({0: lost, 1: later, 2: own}) == 2
    assert failures.root({0: lost}) == 0


@pytest.mark.parametrize(
    ("error", "lost"),
    [(RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:1"), True),
     (RuntimeError("Timed out waiting 1000ms for recv operation to complete"), True),
     (ConnectionError("The 2 ranks did not meet at this machine"), True),
     (ConnectionError("The port of here:1 is in use by another program."), False),
     (ValueError("Connection closed by peer"), False), (RuntimeError("size mismatch"), False)],
)
def test_which_errors_are_consequences(error, lost):
    assert failures.raised(error).lost is lost


def test_an_error_in_a_cell_of_a_notebook_is_shown_with_its_source(monkeypatch):
    import linecache

    name = "/tmp/ipykernel_12/34.py"
    monkeypatch.setitem(linecache.cache, name, (9, None, ["x = 1\n", "x.no\n"], name))
    failure = Failure("raised", causes=[([(name, 2, "f")], "AttributeError: no", "")])
    assert failure.traceback(1) == ('Rank 1, most recent call last:\n  File "cell", line 2, in f\n    x.no\n'
                                    "AttributeError: no")
    assert failures.doing([(name, 2, "f")]) == "is at cell:2 in f"


# Nothing is left


STARTS_MORE = """
import subprocess, sys, time
from course_lib.parallel.launch import launch

def works(comm):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    print("started")
    if {what!r} == "raises":
        raise ValueError("on purpose")
    time.sleep(1000)
"""


@LINUX
def test_nothing_is_left_when_the_caller_is_killed(tmp_path, mark):
    (tmp_path / "tmp").mkdir()
    script = tmp_path / "caller.py"
    script.write_text(STARTS_MORE.format(what="hangs") + "\nif __name__ == '__main__': launch(works, 2, timeout=600)\n")
    caller = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=os.environ | {
        "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)})
    try:
        assert wait_for(lambda: len(marked(mark)) == 5), "the caller, two ranks, and what they have started"
    finally:
        caller.kill()
        caller.wait()
    assert wait_for(lambda: not marked(mark))
    assert wait_for(lambda: not list((tmp_path / "tmp").iterdir()))


@LINUX
def test_nothing_is_left_after_a_test_that_fails(tmp_path, mark):
    (tmp_path / "test_it.py").write_text(
        STARTS_MORE.format(what="raises") + "\ndef test_it():\n    launch(works, 2)\n"
    )
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ValueError: on purpose" in done.stdout and "1 failed" in done.stdout
    assert wait_for(lambda: not marked(mark))
