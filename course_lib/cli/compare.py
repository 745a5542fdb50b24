"""`course compare`: every optimizer on one language model with equal budgets, as a table; it can be interrupted."""

from __future__ import annotations

import platform
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import course_lib
from course_lib.benchmark.settings import SEEDS, STEPS

if TYPE_CHECKING:
    from course_lib.benchmark.records import Log, Run

BAD_INPUT, INTERRUPTED = 2, 130  # exit codes
LONGEST = 100_000  # steps
ROUNDS = 7  # of the measurement of the time


def compare(
    optimizers: Annotated[
        str | None,
        typer.Option(metavar="NAMES", show_default=False, help="Which, as adamw,lion,muon; without it all of them."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Updates in each run.")] = STEPS,
    seeds: Annotated[int, typer.Option(help="Runs of each at its best rate, 2 to 30.")] = SEEDS,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the runs are kept, a line each.")] = Path(
        "compare.jsonl"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew; a file that is there is kept under another name.")
    ] = False,
) -> None:
    """Tune every optimizer with the same budget, run it with several seeds, and print the table.

    A language model of 42,880 parameters on the Python language reference: seven learning rates for each, more while
    the best is at an edge, one seed for tuning; then the best rate with seeds of their own.

    Ctrl-C stops it. The same command goes on from there.

    Exit code: 0, 2 if an argument or the file is wrong, 130 if it was interrupted.
    """
    from course_lib.benchmark import plan, records, runner, summary  # torch comes with them

    try:
        keys = _keys(optimizers)
        plan.check_seeds(seeds)
        if not 2 <= steps <= LONGEST:
            raise ValueError(f"Invalid steps: {steps}. Allowed: a whole number from 2 to {LONGEST}.")
        if out.is_dir():
            raise ValueError(f"Invalid out: {out} is a folder. Allowed: a file, as {out / 'compare.jsonl'}.")
        if fresh and (kept := records.set_aside(out)):
            print(f"What was in {out} is kept in {kept}.")
        log = records.Log(out, {"problem": runner.problem(), "steps": steps})
        for note in log.notes + _apart(plan.set_apart(log.results.runs, keys)):
            print(note)
        try:
            _work(log, keys, seeds, _provenance(optimizers, steps, seeds, out))
        except KeyboardInterrupt:
            made, total = plan.count(log.results.runs, keys, seeds)
            print(
                f"Stopped. {made} of about {total} runs are in {out}; the same command goes on from there.",
                file=sys.stderr,
            )
            raise typer.Exit(INTERRUPTED) from None
        print(summary.table(log.results))
        print(f"\nAll runs are in {out}.")
    except (ValueError, records.BadFile) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None


def _work(log: Log, keys: list[str], seeds: int, provenance: dict[str, Any]) -> None:
    """Make the runs that are missing, and measure the time where that was not done for all of them at once."""
    import torch

    from course_lib.benchmark import plan, runner
    from course_lib.kernels.bench import step_times

    wanted = dict.fromkeys([*keys, "adamw"])
    timed = any(set(wanted) <= set(seconds) for seconds in log.results.times)
    if timed and all(plan.next_run(log.results.runs, key, seeds) is None for key in keys):
        return
    log.session(provenance)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster for matrices as small as these, and a session is as fast as the one before
    try:
        with _progress() as progress:
            made, total = plan.count(log.results.runs, keys, seeds)
            task = progress.add_task("starting", total=total, completed=made)
            for run in plan.carry_on(log, keys, seeds, runner.run_one):
                made, total = plan.count(log.results.runs, keys, seeds)
                progress.update(task, description=_said(run), total=total, completed=made)
                if plan.next_run(log.results.runs, run.key, seeds) is None:
                    progress.console.print(f"{run.key}: best rate {run.lr:.2g}", markup=False, highlight=False)
            if not timed:
                progress.update(task, description="measuring the time of a step")
                measured = step_times(runner.step_variants(wanted), repeats=ROUNDS, warmup=1, device="cpu")
                log.time({key: seconds / runner.CHUNK for key, seconds in measured.items()})
    finally:
        torch.set_num_threads(threads)


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _said(run: Run) -> str:
    loss = "diverged" if run.loss is None else f"loss {run.loss:.3f}"
    return f"{run.key}, rate {run.lr:.2g}, seed {run.seed}: {loss}"


def _keys(optimizers: str | None) -> list[str]:
    """The keys named, in the registry's order."""
    from course_lib.benchmark.settings import find
    from course_lib.optim import REGISTRY

    if optimizers is None:
        return list(REGISTRY)
    named = [name.strip() for name in optimizers.split(",") if name.strip()]
    if not named:
        raise ValueError("Invalid optimizers: none is named. Write --optimizers adamw,lion; without it all are run.")
    for name in named:
        find(name)
    return [key for key in REGISTRY if key in named]


def _provenance(optimizers: str | None, steps: int, seeds: int, out: Path) -> dict[str, Any]:
    """Where and with what the runs of this session are made."""
    import torch

    from course_lib.kernels.bench import describe_device

    which = f"--optimizers {optimizers} " if optimizers else ""
    return {
        "course": course_lib.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": describe_device("cpu").partition(",")[0],
        "threads": 1,
        "date": date.today().isoformat(),
        "command": f"course compare {which}--steps {steps} --seeds {seeds} --out {out.name}",
    }


def _apart(counts: dict[str, int]) -> list[str]:
    return [
        f"Runs of {key} that were made with other settings than its present ones: {number}. They are kept apart: the "
        "table leaves them out, and new ones are made."
        for key, number in counts.items()
    ]
