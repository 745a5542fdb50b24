"""`course launch` as a user runs it: a script on several ranks, also under torchrun, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from test_parallel_launch import LINUX, ROOT, mark, marked, wait_for  # noqa: F401  the fixture is used by its name
from typer.testing import CliRunner

import course_lib.parallel.launch
from course_lib import cli

SCRIPT = """
import os, sys
import torch
from course_lib.parallel.comm import join

comm = join(timeout=600)
places = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")]
print("|".join([__name__, *places, *sys.argv[1:], os.environ["MASTER_ADDR"]]) + "\\n", end="", flush=True)
if sys.argv[1:] == ["fail"] and comm.rank == 1:
    sys.exit(3)
total = comm.all_reduce(torch.ones(2) * (comm.rank + 1)).tolist()
print(f"{total}\\n", end="", file=sys.stderr, flush=True)
comm.leave()
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "script.py").write_text(SCRIPT)


@pytest.fixture
def asked(monkeypatch) -> list:
    """What the command would have run."""
    calls = []
    monkeypatch.setattr(course_lib.parallel.launch, "launch_script",
                        lambda command, ranks, **settings: calls.append((command, ranks, settings)))
    return calls


def course(*arguments: str):
    """Run ``course launch`` in this process: exit code, stdout and stderr apart."""
    return CliRunner().invoke(cli.app, ["launch", *arguments], catch_exceptions=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_script_with_options_of_its_own(monkeypatch):
    monkeypatch.setenv("COURSE_STORE", "left by another run")
    done = course("--ranks", "2", "--timeout", "300", "script.py", "--ranks", "9", "--help")
    assert done.exit_code == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        f"[rank {rank}] __main__|{rank}|{rank}|2|2|--ranks|9|--help|127.0.0.1" for rank in (0, 1)]
    assert sorted(done.stderr.splitlines()) == ["[rank 0] [3.0, 3.0]", "[rank 1] [3.0, 3.0]"]


def test_the_same_script_under_torchrun():
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1",
         "--master-port", str(free_port()), "script.py", "--lr", "3"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else ""},
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"__main__|{rank}|{rank}|2|2|--lr|3|127.0.0.1" for rank in (0, 1)]
    assert done.stderr.count("[3.0, 3.0]\n") == 2


def test_a_rank_that_fails_is_told_and_makes_the_command_fail():
    done = course("script.py", "fail")
    assert done.exit_code == 1
    assert done.stderr.startswith("Rank 1 of 2 exited with code 3\n")
    assert re.search(r"Rank 0 (was|had not|then)", done.stderr)
    assert "[rank 1] __main__|1" in done.stdout


@pytest.mark.parametrize("text", ["def f(:\n", "import nowhere_at_all\n"])
def test_a_script_that_cannot_run(tmp_path, text):
    (tmp_path / "bad.py").write_text(text)
    done = course("--ranks", "1", "bad.py")
    assert done.exit_code == 1
    assert re.match(r"Rank 0 of 1 raised (SyntaxError: invalid|ModuleNotFoundError: No module named 'nowhere)", done.stderr)
    assert "bad.py\", line 1" in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_is_told_before_anything_starts():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = course("--port", str(port), "script.py")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == (f"Port {port} is in use by another program. Choose another one, or none: one that is free is "
                           "taken then.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--ranks", "0", "script.py"], "Invalid ranks: 0. Allowed: a whole number from 1 to 64."),
     (["--timeout", "0", "script.py"], "Invalid timeout: 0.0. Allowed: seconds above 0"),
     (["--timeout", "nan", "script.py"], "Invalid timeout: nan."),
     (["--port", "70000", "script.py"], "Invalid port: 70000. Allowed: 1 to 65535"),
     (["--backend", "mpi", "script.py"], "Invalid backend: 'mpi'."),
     (["missing.py"], "There is no script missing.py."),
     (["--rank", "2", "script.py"], "There is no option --rank of course launch."),
     (["--ranks", "two", "script.py"], "'--ranks'"),
     (["-m"], "'-m' requires an argument")],
)
def test_bad_input_is_a_sentence(arguments, said):
    done = course(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "command", "module", "ranks"),
    [([], ["course_lib.parallel"], True, 2),
     (["--ranks", "4", "--steps", "5"], ["course_lib.parallel", "--steps", "5"], True, 4),
     (["--ranks", "3", "-m", "pkg.train", "--ranks", "9"], ["pkg.train", "--ranks", "9"], True, 3),
     (["-m", "pkg.train", "x.py"], ["pkg.train", "x.py"], True, 2),
     (["script.py", "-m", "7"], ["script.py", "-m", "7"], False, 2)],
)
def test_what_is_run(asked, arguments, command, module, ranks):
    assert course(*arguments).exit_code == 0
    (found, number, settings), = asked
    assert (found, number, settings["module"]) == (command, ranks, module)


@LINUX
def test_ctrl_c_ends_every_process(tmp_path, mark):  # noqa: F811
    (tmp_path / "slow.py").write_text(
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n"
        "print('begun')\n"
        "time.sleep(1000)\n"
    )
    command = subprocess.Popen([sys.executable, "-m", "course_lib.cli", "launch", "slow.py"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        seen = sorted(command.stdout.readline() for _ in range(2))
        assert seen == ["[rank 0] begun\n", "[rank 1] begun\n"], "shown while the script still runs"
        assert wait_for(lambda: len(marked(mark)) == 5)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=60)
    finally:
        command.kill()
    assert (command.returncode, said) == (130, "Stopped. All ranks were ended.\n")
    assert wait_for(lambda: not marked(mark))
