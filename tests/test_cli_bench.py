"""`course bench` as a user runs it: the table, the document, the record, and what it says to bad input."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from course_lib import cli
from course_lib.cli.bench import _number
from course_lib.kernels import bench, recording, records, variants
from course_lib.kernels.recording import Job, _groups
from course_lib.kernels.records import from_dict, load
from course_lib.kernels.roofline import Machine

CPU = torch.device("cpu")
FEW = ("--device", "cpu", "--shapes", "3x40", "--rounds", "3", "--ways", "naive,foreach,fused,copy")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(variants, "sets_for", lambda shapes, device, most=16: 2)


class Fake:
    """In place of the clock: a step takes its number of milliseconds, and each round twice as long as the last."""

    def __init__(self, monkeypatch) -> None:
        self.milliseconds = {"naive": 14.0, "for-loop": 6.0, "foreach": 16.0, "fused": 1.0, "copy": 0.5}
        self.calls: list[tuple[list[str], int]] = []
        self.fail: Exception | BaseException | None = None
        monkeypatch.setattr(bench, "measure", self.measure)

    def measure(self, steps, repeats=30, warmup=5, device=None, progress=None):
        self.calls.append((list(steps), repeats))
        if self.fail is not None:
            raise self.fail
        if progress is not None:
            progress(repeats, repeats)
        seconds = {name: 1e-3 * self.milliseconds.get(name, 2.0) for name in steps}
        return {name: bench.Spread(tuple(value * 2**turn for turn in range(repeats)))
                for name, value in seconds.items()}


@pytest.fixture
def fake(monkeypatch):
    return Fake(monkeypatch)


def course(*arguments: str):
    """Run ``course bench`` in this process: exit code, stdout and stderr apart."""
    return CliRunner().invoke(cli.app, ["bench", *arguments], catch_exceptions=False)


def document(*arguments: str) -> dict:
    result = course(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def rows(text: str) -> dict[str, list[str]]:
    """The first word of each line of a table -> the others."""
    lines = (line.split() for line in text.splitlines() if re.match(r" ?[a-z]", line))
    return {words[0]: words[1:] for words in reversed(list(lines)) if len(words) > 1}


# What is measured.


def test_every_way_is_timed_for_real():
    """Nothing is faked: the ways that the issue asks for, on the CPU, without a compiler's wait."""
    measured = document("--device", "cpu", "--shapes", "3x40,2x50", "--rounds", "2",
                        "--ways", "naive,for-loop,foreach,fused,copy")
    read = from_dict(measured)
    assert [one.shapes for one in read.measurements] == ["3x40", "2x50"]
    for one in read.measurements:
        assert [timed.way for timed in one.ways] == ["naive", "for-loop", "foreach", "fused", "copy"]
        assert (one.base, one.sets, one.unavailable) == ("fused", 2, {})
        assert all(timed.rounds == 2 for timed in one.ways)
    # In bytes: foreach keeps the roots of all tensors at once, a fused kernel nothing; a copy is no optimizer's step.
    extra = {timed.way: timed.extra_bytes for timed in read.measurements[1].ways}
    assert (extra["foreach"], extra["fused"], extra["copy"]) == (2 * 50 * 4, 0, None)
    first = read.measurements[0]
    assert (first.tensors, first.parameters, first.least_bytes) == (3, 120, 120 * 28)
    assert first.find("copy").bytes == 120 * 8


@pytest.mark.skipif(bool(variants.unavailable("compiled", "adamw", "cpu")), reason="no C++ compiler")
def test_the_defaults_are_those_of_the_issue(fake, monkeypatch):
    monkeypatch.setattr("course_lib.kernels.shapes.shapes", lambda name: [(4, 2)] * (1 + len(name)))
    monkeypatch.setattr(variants, "build", lambda *_: (lambda: None, None))
    measured = document("--device", "cpu")
    assert [(one["optimizer"], one["shapes"], one["dtype"]) for one in measured["measurements"]] == [
        ("adamw", "large", "float32"), ("adamw", "gpt2", "float32")]
    for one in measured["measurements"]:
        assert {"naive", "for-loop", "foreach", "compiled", "fused", "copy"} <= {way["way"] for way in one["ways"]}
        assert set(one["unavailable"]) == {"capturable", "triton"}


def test_the_document_is_a_record(fake):
    measured = document(*FEW)
    read = from_dict(measured)
    assert read.to_dict() == measured
    assert (read.kind, read.driver, read.cuda, read.machine) == ("cpu", None, None, None)
    assert read.device and read.threads == torch.get_num_threads() and read.torch == torch.__version__
    assert read.command == "course bench --device cpu --shapes 3x40 --ways naive,foreach,fused,copy --rounds 3 --json"
    one = read.find("adamw", "3x40")
    # Rounds take 1, 2 and 4 times as long; each ratio is of one round, so it has no spread.
    naive, fused = one.find("naive"), one.find("fused")
    assert (naive.seconds.median, naive.seconds.low, naive.seconds.high) == (0.028, 0.021, 0.042)
    assert naive.times_base.median == naive.times_base.low == naive.times_base.high == pytest.approx(14)
    # 120 parameters of 28 bytes in 2 ms, 8 bytes in 1 ms.
    assert fused.gb_per_second == pytest.approx(120 * 28 / 2e-3 / 1e9)
    assert one.share_of_copy("fused") == pytest.approx(28 / 2 / 8)


def test_the_table_and_the_bars(fake):
    result = course(*FEW)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("adamw, 3x40: 3 tensors, 120 parameters, float32. A step must move 0.00336 MB.")
    table = rows(result.stdout)
    assert table["way"] == ["ms", "quartiles", "x", "fused", "GB/s", "of", "copy"]
    assert table["naive"][:3] == ["28.0", "21.0-42.0", "14.00"] and table["naive"][4] == "12%"
    assert table["copy"][:3] == ["1.00", "0.750-1.50", "0.50"] and table["copy"][4] == "100%"
    bars = {line.split()[0]: line.count("\u2588") for line in lines if "\u2588" in line}
    assert list(bars) == ["naive", "foreach", "fused", "copy"]
    assert bars["naive"] / bars["foreach"] == pytest.approx(14 / 16, abs=0.05) and bars["copy"] >= 1
    assert max(map(len, lines)) <= 80


def test_narrow_terminals(fake, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    text = course(*FEW).stdout
    assert max(map(len, text.splitlines())) <= 50
    assert rows(text)["way"] == ["ms", "x", "fused", "GB/s", "of", "copy"]


def test_ascii_is_enough(fake):
    result = CliRunner(charset="ascii").invoke(cli.app, ["bench", *FEW], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout.isascii() and "\x1b" not in result.stdout and "###" in result.stdout


def test_what_is_not_available_is_told(fake):
    result = course(*FEW[:-1], "fused,triton,production")
    assert result.exit_code == 0
    assert "Not timed: triton: runs on cuda, not on cpu." in result.stdout
    assert "Not timed: production: there is none for adamw. For adamw there are: naive" in result.stdout
    only = course(*FEW[:-1], "triton")
    assert only.exit_code == 1 and only.stdout == ""
    assert "Nothing could be measured for adamw on 3x40 in float32.\ntriton: runs on cuda" in only.stderr


def test_other_optimizers_and_dtypes(fake):
    measured = from_dict(document("--device", "cpu", "--optimizer", "lion,momentum", "--dtype", "bfloat16",
                                  "--shapes", "3x40", "--ways", "naive,copy", "--rounds", "1"))
    assert [(one.optimizer, one.dtype) for one in measured.measurements] == [("lion", "bfloat16"),
                                                                            ("momentum", "bfloat16")]
    # p and m read and written, g read, 2 bytes each; without fused the naive loop is the base.
    assert [one.least_bytes for one in measured.measurements] == [120 * 10, 120 * 10]
    assert {one.base for one in measured.measurements} == {"naive"}


def test_bytes_of_ways_with_other_state():
    big = Job("adamw", "one", ((256, 1024),), torch.bfloat16, ("fused",))
    count = 256 * 1024
    assert recording._bytes(big, None) == recording._bytes(big, "fused") == count * 14  # 7 numbers of 2 bytes
    assert recording._bytes(big, "triton") == count * (3 * 2 + 4 * 4)  # p twice, g; m and v in float32
    assert recording._bytes(big, "copy") == count * 4
    # Two moments of 8 bits, read and written, and a float32 for each 256 of both.
    assert recording._bytes(big, "bitsandbytes-8bit") == count * (3 * 2 + 4) + 4 * 4 * count // 256


def test_rounds_are_as_many_as_fit(fake):
    document(*FEW[:4], "--ways", "naive,fused")  # 15 ms for a round of both: half a minute holds more than the most
    assert fake.calls == [(["fused", "naive"], 1), (["fused", "naive"], recording.MOST)]
    fake.calls.clear()
    fake.milliseconds["naive"] = 1e5
    document(*FEW[:4], "--ways", "naive,fused")
    assert fake.calls[1] == (["fused", "naive"], recording.FEWEST)


def test_the_help_loads_no_torch():
    script = ("import sys\nfrom course_lib.cli import app\ntry:\n    app(['bench', '--help'])\n"
              "except SystemExit as done:\n    assert not done.code\nassert 'torch' not in sys.modules\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = re.sub(r"[│\s]+", " ", done.stdout)
    for option in ("--device", "--optimizer", "--shapes", "--ways", "--dtype", "--rounds", "--json", "--record"):
        assert option in told


def test_ways_that_compile_for_long_get_few_sets(fake, monkeypatch):
    """torch.compile compiles a step for each set, and stops without a word after 8 of one function."""
    monkeypatch.setattr(variants, "build", lambda *_: (lambda: None, None))
    monkeypatch.setattr(variants, "sets_for", lambda shapes, device, most=16: 16)
    monkeypatch.setattr(variants, "unavailable", lambda *_: None)
    assert document(*FEW)["measurements"][0]["sets"] == 16
    assert document(*FEW[:-1], "torch-compiled")["measurements"][0]["sets"] == recording.MOST_COMPILED


# Memory.


def test_groups_fit_into_the_memory_and_share_base_and_copy(fake, monkeypatch):
    each = 120 * 16 * 2  # p, g, m, v in two sets
    monkeypatch.setattr(recording, "CPU_MEMORY", 4 * each + 2 * 120 * 4)
    measured = from_dict(document("--device", "cpu", "--shapes", "3x40", "--rounds", "3", "--ways",
                                  "naive,for-loop,foreach,fused,copy"))
    assert [sorted(names) for names, _ in fake.calls] == [["copy", "for-loop", "fused", "naive"],
                                                          ["copy", "foreach", "fused"]]
    one = measured.measurements[0]
    assert [timed.way for timed in one.ways] == ["naive", "for-loop", "foreach", "fused", "copy"]
    assert [timed.rounds for timed in one.ways] == [3, 3, 3, 6, 6]
    assert one.find("foreach").times_base.median == pytest.approx(16)


def test_tensors_of_one_group_are_gone_before_the_next(fake, monkeypatch):
    alive = []

    class Counted:
        def __init__(self, name):
            self.name = name
            alive.append(name)
            most.append(len(alive))

        def __call__(self):
            pass

        def __del__(self):
            alive.remove(self.name)

    most: list[int] = []
    monkeypatch.setattr(variants, "build", lambda name, *rest: (Counted(name), None))
    monkeypatch.setattr(recording, "CPU_MEMORY", 3 * 120 * 32 + 2 * 120 * 4)
    names = ["naive", "for-loop", "foreach", "fused", "copy"]
    document("--device", "cpu", "--shapes", "3x40,2x50", "--rounds", "2", "--ways", ",".join(names))
    assert max(most) == 3 and not alive


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_default_lists_stay_within_12_gb(monkeypatch, dtype):
    monkeypatch.setattr(recording, "free_memory", lambda device: 64 * 10**9)
    from course_lib.kernels.shapes import shapes

    others = ["naive", "for-loop", "foreach", "compiled", "flat", "fused-huge-pages"]
    for name in ("large", "gpt2"):
        job = Job("adamw", name, tuple(shapes(name)), dtype, ())
        groups = _groups(job, 1, others, ["fused", "copy"], CPU)
        assert sum(groups, []) == others
        assert max(map(len, groups)) + 2 <= 12 * 10**9 / job.set_bytes
    gpt2 = Job("adamw", "gpt2", tuple(shapes("gpt2")), torch.float32, ())
    assert gpt2.parameters == 124_439_808 and gpt2.set_bytes == 16 * gpt2.parameters


def test_too_little_memory_is_told_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr(recording, "free_memory", lambda device: 10**9)
    monkeypatch.setattr(variants, "build", lambda *_: pytest.fail("allocated"))
    result = course("--device", "cpu", "--shapes", "large", "--ways", "naive,fused,copy")
    assert result.exit_code == 1 and result.stdout == ""
    # 67,108,864 parameters of 16 bytes in 2 sets are 2.1 GB for each of 3 ways, and 0.5 GB for the moment.
    assert "Too little memory for adamw on large in float32: 2.1 GB for each way, 7.0 GB" in result.stderr
    assert "1.0 GB are free" in result.stderr and "Choose smaller --shapes" in result.stderr


def test_a_way_that_runs_out_of_memory_leaves_the_others(fake, monkeypatch):
    build = variants.build

    def hungry(name, *rest):
        if name == "foreach":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        if name == "naive":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        if name == "for-loop":
            raise OSError("lib.so: no such file\nand more")
        return build(name, *rest)

    monkeypatch.setattr(variants, "build", hungry)
    result = course(*FEW[:-1], "naive,for-loop,foreach,fused,copy")
    assert result.exit_code == 0 and "Traceback" not in result.output
    text = " ".join(result.stdout.split())
    assert "Not timed: foreach ran out of memory. Choose smaller --shapes" in text
    assert "Not timed: naive ran out of memory." in text
    assert "Not timed: for-loop failed here: OSError: lib.so: no such file" in text and "and more" not in text
    assert {"fused", "copy"} <= set(rows(result.stdout))


def test_memory_that_runs_out_while_it_is_timed(fake):
    fake.fail = torch.OutOfMemoryError("CUDA out of memory")
    result = course(*FEW)
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "The memory was used up while adamw on 3x40 in float32 was timed." in result.stderr


def test_errors_of_our_own_are_not_hidden(fake):
    fake.fail = RuntimeError("a mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        course(*FEW)


def test_extra_memory_of_a_step_on_a_gpu(fake, monkeypatch):
    """The allocator's peak during a step, less what was there before; the first steps, which make state, are over."""
    held = {"now": 100, "peak": 0, "steps": 0}

    def step():
        held["steps"] += 1
        held["now"] += 40 if held["steps"] == 1 else 0
        held["peak"] = max(held["peak"], held["now"] + 7)

    monkeypatch.setattr(variants, "build", lambda *_: (step, None))
    monkeypatch.setattr(variants, "unavailable", lambda *_: None)
    for name, value in (("synchronize", None), ("empty_cache", None), ("memory_allocated", None),
                        ("mem_get_info", (10**9, 10**9)), ("max_memory_allocated", None)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: held.update(peak=0))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda *_: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: held["peak"])
    job = Job("adamw", "one", ((4, 4),), torch.float32, ("fused",))
    (timed,) = recording.measure_job(job, torch.device("cuda"), 1).ways
    assert timed.extra_bytes == 7


def test_where_a_gpus_record_was_made(monkeypatch, tmp_path):
    class Properties:
        name, total_memory = "NVIDIA H200", 150_000_000_000

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\n")
    tool.chmod(0o755)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    measured = recording.record([], torch.device("cuda"), "course bench --record")
    assert (measured.device, measured.kind, measured.memory) == ("NVIDIA H200", "cuda", 150_000_000_000)
    assert (measured.driver, measured.cuda) == ("580.65.06", "13.0")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert recording.record([], torch.device("cuda"), "course bench").driver is None


def test_free_memory_of_this_machine():
    free = recording.free_memory(CPU)
    assert free is None or 10**6 < free < 10**15


# Records.


@pytest.fixture
def quick(fake, monkeypatch):
    """A recording over small lists, with a machine that is not measured."""
    monkeypatch.setattr("course_lib.kernels.roofline.measure_machine",
                        lambda device: Machine("here", 1e10, {"float32": 1e11}, "made up", True))
    monkeypatch.setattr("course_lib.kernels.shapes.shapes", lambda name: [(8, 4)] if name != "tiny" else [(4,)])
    monkeypatch.setattr(variants, "DEFAULT", ("naive", "fused", "copy"))
    return fake


def test_a_recording_has_all_of_it(quick):
    result = course("--record", "mine.json", "--device", "cpu", "--ways", "naive,fused,copy")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("Recorded in mine.json.\n")
    made = load("mine.json")
    assert made.command == "course bench --device cpu --ways naive,fused,copy --record"
    assert made.machine.bandwidth == 1e10
    found = [(one.optimizer, one.shapes) for one in made.measurements]
    assert found[:5] == [("adamw", name) for name in ("large", "gpt2", "tiny", "forty", "llama3-layer")]
    assert {optimizer for optimizer, _ in found} == set(variants.OPTIMIZERS)
    assert ("muon", "tiny") not in found and ("muon", "gpt2") in found and len(found) == 5 * 6 - 1


def test_a_record_is_named_after_the_device_and_the_date(quick):
    result = course("--record", "--device", "cpu", "--optimizer", "adamw", "--shapes", "large", "--ways", "fused")
    (name,) = os.listdir(".")
    assert result.exit_code == 0 and re.fullmatch(r"[a-z0-9-]+-\d{4}-\d\d-\d\d\.json", name)
    assert load(name).measurements[0].find("fused")


def test_a_record_can_be_printed_too(quick):
    result = course("--record", "a.json", "--json", "--device", "cpu", "--optimizer", "adamw", "--shapes", "large",
                    "--ways", "naive,fused,copy")
    assert result.stdout == Path("a.json").read_text()


def test_a_record_is_never_overwritten(quick):
    Path("mine.json").write_text("mine")
    result = course("--record", "mine.json", "--device", "cpu")
    assert (result.exit_code, quick.calls) == (2, [])  # told before five minutes are spent
    assert "mine.json exists and was left as it is" in result.stderr and Path("mine.json").read_text() == "mine"
    result = course("--record", "missing/mine.json", "--device", "cpu")
    assert result.exit_code == 2 and "There is no folder missing" in result.stderr


@pytest.mark.parametrize("name", ["n" * 300 + ".json", "n" * 300 + "/mine.json", "file/mine.json", "folder"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(quick, name):
    Path("file").touch()
    Path("folder").mkdir()
    result = course("--record", name, "--device", "cpu")
    assert (result.exit_code, quick.calls, result.stdout) == (2, [], "")
    assert name in result.stderr and result.stderr.count("\n") == 1
    assert sorted(os.listdir(".")) == ["file", "folder"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="has no /proc")
def test_a_folder_that_takes_no_files_is_told_before_anything_is_measured(quick):
    result = course("--record", "/proc/x.json", "--device", "cpu")
    assert (result.exit_code, quick.calls) == (2, [])
    assert result.stderr.startswith("/proc/x.json cannot be written: ")


def test_a_recording_leaves_out_what_takes_none_of_the_shapes(quick, monkeypatch):
    monkeypatch.setattr("course_lib.kernels.shapes.shapes", lambda name: [(8, 4)] if name == "large" else [(40,)])
    given = ("--device", "cpu", "--ways", "naive,fused,copy", "--record")
    result = course("--shapes", "3x40,large", *given, "mine.json")
    assert (result.exit_code, result.stderr) == (0, "Left out: muon on 3x40, as it takes matrices only.\n")
    found = [(one.optimizer, one.shapes) for one in load("mine.json").measurements]
    assert set(found) == {(key, name) for key in variants.OPTIMIZERS for name in ("3x40", "large")} - {
        ("muon", "3x40")}
    result = course("--shapes", "3x40", "--optimizer", "muon", *given, "other.json")  # this one was asked for
    assert result.exit_code == 2 and "Invalid shapes for muon: '3x40'" in result.stderr


class Closed(io.StringIO):
    """A stdout that takes some characters, and then nothing more."""

    def __init__(self, number: int, most: int) -> None:
        super().__init__()
        self.number, self.most = number, most

    def write(self, text: str) -> int:
        if self.tell() + len(text) > self.most:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)


@pytest.mark.parametrize("most", [0, 1500])  # before the first table, and after it
@pytest.mark.parametrize("printed", [(), ("--json",)])
@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 0), (errno.ENOSPC, 2)])
def test_a_record_is_saved_though_stdout_takes_nothing(quick, monkeypatch, capsys, number, code, printed, most):
    monkeypatch.setattr(sys, "stdout", Closed(number, most))
    with pytest.raises(SystemExit) as done:
        cli.app(["bench", *FEW[:2], "--optimizer", "adamw", *FEW[-2:], "--record", "mine.json", *printed])
    assert done.value.code == code
    assert len(load("mine.json").measurements) == 5
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "Recorded in mine.json."
    assert told[1:] == ([] if code == 0 else [f"stdout cannot be written: {os.strerror(number)}. Send it to another "
                                              "file."])


@pytest.mark.parametrize("printed", [(), ("--json",)])
@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 1), (errno.ENOSPC, 2)])
def test_without_a_record_nothing_is_measured_for_nobody(quick, monkeypatch, capsys, number, code, printed):
    monkeypatch.setattr(sys, "stdout", Closed(number, 0))
    with pytest.raises(SystemExit) as done:
        cli.app(["bench", *FEW[:2], "--shapes", "large,gpt2", *FEW[4:], *printed])
    assert done.value.code == code and len(quick.calls) == (2 if printed else 1)
    told = capsys.readouterr().err
    assert told.count("\n") == (code == 2) and ("stdout cannot be written" in told) == (code == 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
@pytest.mark.parametrize(("stdout", "says"), [
    (">/dev/full", f"stdout cannot be written: {os.strerror(errno.ENOSPC)}. Send it to another file.\n"),
    (">&-", "stdout is closed, so nothing could be shown. Send it to a file, or to /dev/null.\n"),
])
def test_a_full_disk_and_a_closed_stdout_as_the_shell_makes_them(stdout, says):
    script = "from course_lib.cli import main; main()"
    arguments = "bench --device cpu --shapes 3x40 --rounds 1 --ways fused,copy --json"
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "{script}" {arguments} {stdout}', sys.executable],
                          stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, says)


def test_a_recording_ends_in_time(quick, monkeypatch):
    clock = iter(range(0, 100_000, 100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    result = course("--record", "mine.json", "--device", "cpu", "--optimizer", "adamw", "--ways", "fused", "--json")
    assert result.exit_code == 1
    made = load("mine.json").measurements
    assert 1 <= len(made) < 5 and made[0].shapes == "large"
    assert "Not measured: adamw on llama3-layer in float32, as the time for a recording was used up." in result.stderr


def test_every_recorded_command_is_one_that_can_be_given(quick, monkeypatch):
    """What a recorded file says made it is understood by the command of today."""
    for recorded in records.all_recorded():
        words = recorded.command.split()[2:]
        if "--device" not in words and recorded.kind == "cuda":
            words += ["--device", "cuda"]
        result = course(*[word.replace("cuda", "cpu") for word in words if word != "--record"], "--rounds", "1")
        assert result.exit_code in (0, 1), result.stderr


# Bad input: exit code 2, a sentence with what is allowed or meant, no traceback.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--device", "gpu"], "Invalid device: 'gpu'. "), (["--device", "cud"], "Did you mean cuda"),
     (["--optimizer", "adamv"], "Did you mean adamw"), (["--optimizer", ""], "none is named"),
     (["--optimizer", "soap"], "Allowed: adamw, sgd"), (["--optimizer", "adamw,lions"], "Did you mean lion"),
     (["--shapes", "larg"], "Invalid shapes: 'larg'. Did you mean large?"),
     (["--shapes", "9" * 5000 + "x1"], "Invalid shapes: '999"),
     (["--shapes", "3x40,huge", "--optimizer", "muon"], "Invalid shapes: 'huge'"),
     (["--shapes", " , "], "none is named"),
     (["--shapes", "0x5"], "Invalid shapes: '0x5'"), (["--shapes", "99999999x99999999"], "Allowed: large"),
     (["--ways", "foreech"], "Did you mean foreach"), (["--ways", ""], "none is named"),
     (["--dtype", "bf16"], "bfloat16"), (["--dtype", "float16"], "float32"), (["--dtype", "float64"], "float32"),
     (["--rounds", "0"], "Invalid rounds: 0. Allowed: a whole number from 1 to 10000"), (["--rounds", "-3"], "-3"),
     (["--optimizer", "muon"], "Invalid shapes for muon: '3x40'. Allowed: lists with matrices"),
     (["mine.json"], "Allowed with --record only: course bench --record mine.json")],
    ids=str,
)
def test_bad_input_is_told_in_a_sentence(fake, arguments, says):
    given = [] if "--shapes" in arguments else ["--shapes", "3x40"]
    given += [] if "--device" in arguments else ["--device", "cpu"]
    result = course(*given, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr and result.stderr.count("\n") == 1
    assert not fake.calls and not os.listdir(".")


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = course("--device", "cuda")
    assert result.exit_code == 2
    assert "There is no GPU that torch can use (torch " in result.stderr and "--device cpu" in result.stderr


@pytest.mark.parametrize("arguments", [["--rounds", "many"], ["--shape", "large"], ["a", "b"]])
def test_what_is_no_option_is_told_with_the_usage(arguments):
    result = course(*arguments)
    assert result.exit_code == 2 and "Usage: " in result.stderr and "Traceback" not in result.stderr


def test_ctrl_c(quick):
    quick.fail = KeyboardInterrupt()
    result = course(*FEW)
    assert (result.exit_code, result.stdout) == (130, "") and "Stopped." in result.stderr
    result = course(*FEW, "--record", "mine.json")
    assert result.exit_code == 130 and "Nothing was written." in result.stderr and not os.listdir(".")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (0.01234, "0.0123"),
     (0.0, "0"), (99.96, "100.0")],
)
def test_numbers_have_three_digits(value, text):
    assert _number(value) == text
