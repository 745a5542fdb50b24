"""`course bench`: how long an optimizer's step takes, each way there is: as tables and bars, JSON or a record."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import torch

    from course_lib.kernels.recording import Job, Say
    from course_lib.kernels.records import Measurement
    from course_lib.kernels.roofline import Machine

NOT_ALL, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes
DEFAULT_SHAPES = "large,gpt2"
FIRST = ("large", "gpt2", "tiny", "forty", "llama3-layer")  # of a recording, which may run out of time
SLOW_TO_MAKE = ("large", "gpt2")  # where a recording also has the ways that compile for long, in float32
RECORDING = 240.0  # seconds after which a recording begins nothing new, so that it ends within five minutes
SECONDS = 30.0  # for the rounds of one table; in a recording
SECONDS_RECORDED = 3.0
MOST_ROUNDS = 10_000
NARROW = 80  # columns of a terminal

_WHAT = "What is timed"
_OUTPUT = "What is made of it"


def bench(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False,
                       help="With --record: where to; without it the device's name and the date, in this folder."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda", rich_help_panel=_WHAT, show_default=False,
                     help="Without it the GPU, if there is one."),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=_WHAT, show_default="adamw", help="As adamw, or adamw,lion."),
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=_WHAT, show_default=DEFAULT_SHAPES,
                     help="Lists of tensors: large, forty, gpt2, llama3-layer, tiny, or 1000x256: 1000 of 256."),
    ] = None,
    ways: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=_WHAT, show_default=False,
                     help="Ways to take a step, as naive,foreach,fused,copy; without it those that matter most."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="NAMES", rich_help_panel=_WHAT, show_default="float32",
                     help="Of parameters and gradients: float32, bfloat16."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(rich_help_panel=_WHAT, show_default=False,
                     help="How often each way is timed; without it as often as fits in half a minute, 5 to 50."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print one JSON document: a record.")
    ] = False,
    record: Annotated[
        bool,
        typer.Option("--record", rich_help_panel=_OUTPUT,
                     help="Write a record to a new file. What no option above narrows down is timed whole: all "
                          "optimizers, shapes and, on a GPU, both dtypes, within five minutes."),
    ] = False,
) -> None:
    """Time an optimizer's step: every way that torch and others take it, beside a plain copy.

    In each round every way takes one step, so that whatever slows the machine slows all of them. A ratio is the
    median of those within a round. GB/s are the bytes that a step must move, over its time.

    For example: course bench --device cpu --optimizer adamw --shapes gpt2,1000x256

    Exit code: 0 all was measured (ways that are not available here are told, and do not count); 1 something was not,
    for want of memory or time; 2 an argument or the file is wrong, or stdout takes nothing; 130 it was interrupted.
    """
    from course_lib.kernels import recording, records  # torch comes with them

    out = _Stdout(go_on=record)
    try:
        where = _device(device)
        if file is not None and not record:
            raise ValueError(f"Invalid argument: {file}. Allowed with --record only: course bench --record {file}")
        path = _path(file, where) if record else None
        jobs, left_out = _jobs(optimizer, shapes, ways, dtype, where, record)
        if rounds is not None and not 1 <= rounds <= MOST_ROUNDS:
            raise ValueError(f"Invalid rounds: {rounds}. Allowed: a whole number from 1 to {MOST_ROUNDS}.")
        command = _command(device=device, optimizer=optimizer, shapes=shapes, ways=ways, dtype=dtype, rounds=rounds,
                           json=as_json, record=record)  # fmt: skip
        for sentence in left_out:
            print(sentence, file=sys.stderr)
        made, missing = _measure(jobs, where, rounds, record, None if as_json else out)
        machine = _machine(where) if record and made else None
        if made:
            document = recording.record(made, where, command, machine)
            if path is not None:
                records.save(document, path)
            if as_json:
                out.take(lambda: print(records.to_json(document), end=""))
            elif path is not None:
                out.take(lambda: print(f"Recorded in {path}."))
            if out.error is not None:  # only a recording gets here
                print(f"Recorded in {path}.", file=sys.stderr)
    except (ValueError, records.BadFile) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        print("Stopped." + " Nothing was written." * record, file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except _NoStdout:
        missing = []
    for sentence in missing:
        print(sentence, file=sys.stderr)
    if out.error is not None and not isinstance(out.error, BrokenPipeError):
        print(f"stdout cannot be written: {out.error.strerror}. Send it to another file.", file=sys.stderr)
        raise typer.Exit(BAD_INPUT)
    stopped = out.error is not None and not record
    raise typer.Exit(NOT_ALL if missing or stopped else 0)


class _NoStdout(Exception):
    """Nothing that is measured from here on could be shown."""


class _Stdout:
    """Takes what is printed, until stdout takes no more.

    Attributes:
        go_on: whether measuring is worth its time even then, as there will be a file.
        error: why nothing is printed any more: a full disk, or whoever read it is gone; None while all is well.
    """

    def __init__(self, go_on: bool) -> None:
        self.go_on = go_on
        self.error: OSError | None = None

    def take(self, show: Callable[[], None]) -> None:
        """Call ``show``, which prints. Raises _NoStdout if that fails and there is nothing to go on for."""
        if self.error is not None:
            return
        try:
            show()
            sys.stdout.flush()
        except OSError as error:
            self.error = error
            _discard_stdout()
            if not self.go_on:
                raise _NoStdout from None


def _discard_stdout() -> None:
    """Send what stdout still holds nowhere: Python would try to write it at its end, and fail once more."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a file of the system
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


class _Console(Console):
    """rich's, but when whoever reads is gone it says so, and does not end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _device(device: str | None) -> torch.device:
    import torch

    from course_lib.memory.arguments import choice

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = choice("device", device, ("cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        built = "was built without CUDA" if torch.version.cuda is None else f"is for CUDA {torch.version.cuda}"
        raise ValueError(f"Invalid device: cuda. There is no GPU that torch can use (torch {torch.__version__} "
                         f"{built}). Allowed here: --device cpu.")
    return torch.device(name)


def _path(file: Path | None, device: torch.device) -> Path:
    """Where to write; checked before anything is measured. Raises ValueError, of which BadFile is one."""
    from course_lib.kernels import records
    from course_lib.kernels.bench import describe_device

    if file is None:
        name = re.sub(r"[^a-z0-9]+", "-", describe_device(device).partition(",")[0].lower()).strip("-")
        file = Path(f"{name}-{date.today().isoformat()}.json")
    if not os.path.isdir(file.parent):
        raise ValueError(f"Invalid file: {file}. There is no folder {file.parent}.")
    records.require_writable(file)
    return file


def _jobs(
    optimizer: str | None, shapes: str | None, ways: str | None, dtype: str | None, device: torch.device, record: bool
) -> tuple[list[Job], list[str]]:
    """What is to be measured, what matters most first; a sentence for each that goes with no list that was named.

    Raises ValueError for a name that there is not, or an optimizer and a list, both named, that do not go together.
    """
    import torch

    from course_lib.kernels import shapes as lists
    from course_lib.kernels import variants
    from course_lib.kernels.recording import Job
    from course_lib.kernels.records import DTYPES
    from course_lib.memory.arguments import choice

    everything = (",".join(variants.OPTIMIZERS), ",".join(sorted(lists.SHAPES, key=_place)),
             ",".join(DTYPES if device.type == "cuda" else DTYPES[:1]))
    usual = everything if record else ("adamw", DEFAULT_SHAPES, DTYPES[0])
    keys, names, dtypes = (_split(name, usual[index] if given is None else given) for index, (name, given) in
                           enumerate({"optimizer": optimizer, "shapes": shapes, "dtype": dtype}.items()))
    keys = [choice("optimizer", key, variants.OPTIMIZERS) for key in keys]
    dtypes = [choice("dtype", name, DTYPES) for name in dtypes]
    found = {name: tuple(lists.shapes(name)) for name in names}
    chosen = None if ways is None else [choice("ways", name, variants.WAYS) for name in _split("ways", ways)]
    jobs, left_out = [], []
    for kind in dtypes:
        for key in keys:
            offered = variants.offered(key)
            for name in names:
                whole = record and name in SLOW_TO_MAKE and kind == DTYPES[0]
                mine = tuple(chosen or [way for way in offered if whole or way in variants.DEFAULT])
                if None in (optimizer, shapes) and not variants.fitting(key, list(found[name])):
                    if shapes is not None:
                        left_out.append(f"Left out: {key} on {name}, as it takes matrices only.")
                    continue  # nobody asked for just this one
                jobs.append(Job(key, name, found[name], getattr(torch, kind), mine))
    return jobs, list(dict.fromkeys(left_out))


def _place(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _split(name: str, text: str) -> list[str]:
    found = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not found:
        raise ValueError(f"Invalid {name}: none is named. Leave --{name} out for the usual ones.")
    return found


def _command(**given: object) -> str:
    words = ["course bench"]
    for name, value in given.items():
        if value is not None and value is not False:
            words.append(f"--{name}" if value is True else f"--{name} {value}")
    return " ".join(words)


def _measure(
    jobs: list[Job], device: torch.device, rounds: int | None, record: bool, out: _Stdout | None
) -> tuple[list[Measurement], list[str]]:
    """Measure, and show each table once it is there; the measurements, and a sentence for each that was not made."""
    from course_lib.kernels.recording import measure_jobs

    made: list[Measurement] = []
    missing: list[str] = []
    deadline = time.monotonic() + RECORDING if record else math.inf
    seconds = SECONDS_RECORDED if record else SECONDS
    with _progress() as (say, pause):
        for one in measure_jobs(jobs, device, rounds, seconds, deadline, say):
            if isinstance(one, str):
                missing.append(one)
                continue
            made.append(one)
            if out is not None:
                with pause():
                    out.take(lambda one=one: _show(one))
    return made, missing


@contextmanager
def _progress() -> Iterator[tuple[Say, Callable[[], AbstractContextManager[None]]]]:
    """What is done now, on a terminal's stderr: a function that says it, and one that makes room for a while."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def say(what: str, done: int, of: int) -> None:
            progress.update(task, description=what, completed=done, total=of or None)

        @contextmanager
        def pause() -> Iterator[None]:
            progress.stop()  # so that nothing is drawn over what is printed
            yield
            progress.start()

        yield say, pause


def _machine(device: torch.device) -> Machine | None:
    """The roofs of the device, unless its memory is too small for the buffers."""
    from course_lib.kernels.recording import out_of_memory
    from course_lib.kernels.roofline import measure_machine

    try:
        return measure_machine(device)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None


def _show(one: Measurement) -> None:
    """A table and bars, on stdout."""
    from course_lib.kernels.records import GB

    console = _Console(highlight=False)
    tensors = f"{one.tensors:,} tensor{'s' * (one.tensors != 1)}, {one.parameters:,} parameters"
    unit, name = (GB, "GB") if one.least_bytes >= GB / 10 else (GB / 1e3, "MB")
    console.print(Text(f"{one.optimizer}, {one.shapes}: {tensors}, {one.dtype}. A step must move "
                       f"{_number(one.least_bytes / unit)} {name}."))
    wide = console.width >= NARROW
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("way", no_wrap=True)
    headings = ["ms", *["quartiles"] * wide, f"x {one.base or 'base'}", "GB/s", "of copy"]
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for timed in one.ways:
        seconds, share = timed.seconds, one.share_of_copy(timed.way)
        cells = [_number(1e3 * seconds.median)]
        if wide:
            cells.append(f"{_number(1e3 * seconds.low)}-{_number(1e3 * seconds.high)}")
        cells += ["" if timed.times_base is None else f"{timed.times_base.median:.2f}",
                  _number(timed.gb_per_second), "" if share is None else f"{share:.0%}"]
        table.add_row(Text(timed.way), *cells)
    console.print(table)
    console.print(_bars({timed.way: timed.seconds.median for timed in one.ways}, console))
    extra = {timed.way: timed.extra_bytes for timed in one.ways if timed.extra_bytes}
    if extra:
        sizes = ", ".join(f"{way} {_number(size / unit)} {name}" for way, size in extra.items())
        console.print(Text(f"Memory that a step takes for itself: {sizes}; the others that were looked at, none."))
    for sentence in one.unavailable.values():
        console.print(Text(f"Not timed: {sentence}"))
    console.print()


def _bars(seconds: dict[str, float], console: Console) -> Text:
    """A line for each way: a bar as long as its step takes; characters of ASCII where the terminal has no others."""
    block = "#" if console.options.ascii_only else "\u2588"
    name = max(map(len, seconds))
    numbers = {way: f"{_number(1e3 * value)} ms" for way, value in seconds.items()}
    room = max(1, console.width - name - max(map(len, numbers.values())) - 2)
    longest = max(seconds.values())
    lines = Text()
    for way, value in seconds.items():
        cells = max(1, round(room * value / longest))
        lines.append(f"{way:<{name}} ")
        lines.append(block * cells, style="cyan")
        lines.append(f" {numbers[way]}\n")
    return lines


def _number(value: float) -> str:
    """Three digits that mean something: 1,234 and 12.3 and 0.0123."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{digits}f}"
