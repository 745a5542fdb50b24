"""The `course` command. One function a command; what a command does lives in a module of its own."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import webbrowser
from collections import Counter
from pathlib import Path
from typing import Annotated

import course_lib

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"The course command needs the package {missing.name}. Install it with: pip install 'course_lib[cli]' "
        "(in a checkout: pip install -e '.[cli]')."
    ) from None

from course_lib import carry, journal
from course_lib import progress as learner
from course_lib.checks import hint as print_hint
from course_lib.checks.exercises import EXERCISES
from course_lib.cli import bank, bench, compare, export, launch, memory, practice
from course_lib.journal import exchange
from course_lib.run_answers import NOT_YET, PASSED, UNTOUCHED, BadInput, Outcome, Source, judge, read

START = Path("notebooks", "00_start_here.ipynb")
COLOURS = {PASSED: "green", NOT_YET: "yellow", UNTOUCHED: "dim"}
WIDEST = 24  # characters in a column of the progress tables, before it is folded
NOT_PASSED, BAD_INPUT = 1, 2  # exit codes

app = typer.Typer(
    help="Why everyone trains large models with Adam, and what it costs: the course at the command line.",
    add_completion=False, rich_markup_mode="markdown", no_args_is_help=True, pretty_exceptions_enable=False,
)


@app.callback()
def _course() -> None:
    pass  # keeps the name of the command in the command line, however many there are


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open the course in JupyterLab.

    Options that are not known here go to JupyterLab: course lab --no-browser --port 9999
    """
    try:
        root = course_folder()
        if not (root / START).is_file():
            raise BadInput(f"{root / START} is missing. Get it back with: git checkout -- {START.as_posix()}")
        if importlib.util.find_spec("jupyterlab") is None:
            raise BadInput("JupyterLab is not installed. Install it with: pip install 'course_lib[lab]' "
                           "(in a checkout, make lab does all of it).")
    except BadInput as error:
        print(error, file=sys.stderr)
        raise typer.Exit(NOT_PASSED) from None
    carry.prepare(root)
    command = [
        sys.executable, "-m", "jupyterlab",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{START.as_posix()}",
        "--LanguageServerManager.autodetect=False",  # else a list of 20 servers that are not there follows the address
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # as in most containers; JupyterLab would refuse to start
    try:
        webbrowser.get()
    except webbrowser.Error:
        command.append("--no-browser")
    print(f"Starting JupyterLab in {root}. Its address follows; Ctrl-C stops it.", flush=True)
    command += context.args
    if os.name == "posix":
        os.chdir(root)
        os.execv(sys.executable, command)  # Ctrl-C, signals and the exit code are JupyterLab's own
    raise typer.Exit(subprocess.call(command, cwd=root))


@app.command()
def check(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="EXERCISE", help="Ids of exercises, notebooks (.ipynb), Python files (.py). "
                       "Ids beside files pick from these files. Nothing: the whole course.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, metavar="SECONDS", help="Longest time that one file may run.")
    ] = 60.0,
) -> None:
    """Run your answers and show which exercises pass.

    Notebooks are run in a process of their own and never changed. In a Python file that does not call check itself,
    answers are found by their names.

    Exit code: 0 all passed, 1 not all passed, 2 something could not be checked.
    """
    outcomes: list[Outcome] = []
    problems: list[str] = []
    named = list(dict.fromkeys(what or []))
    try:
        for source, ids in _sources(named):
            with Console(stderr=True).status(Text(f"Running {source.path} (at most {timeout:g} s) ...")):
                found, trouble = judge(source, ids, timeout)
            outcomes += found
            problems += trouble
        if not problems:
            problems += [f"No cell for exercise {name} was found." for name in named
                         if name in EXERCISES and all(outcome.exercise != name for outcome in outcomes)]
    except BadInput as error:
        problems += str(error).splitlines()
    passed = sum(outcome.status == PASSED for outcome in outcomes)
    if as_json:
        document = {
            "exercises": [outcome.to_dict() for outcome in outcomes],
            "passed": passed,
            "total": len(outcomes),
            "problems": problems,
        }
        print(json.dumps(document, indent=2))
    elif outcomes:
        _print_table(outcomes)
    for problem in problems + journal.news():
        print(problem, file=sys.stderr)
    raise typer.Exit(BAD_INPUT if problems else 0 if passed == len(outcomes) else NOT_PASSED)


@app.command()
def reset(exercise: Annotated[str, typer.Argument(metavar="EXERCISE", help="The id of the exercise.")]) -> None:
    """Make an exercise blank again. What you wrote is copied to exercises/kept first.

    Exit code: 0 done, 2 there is no such exercise, or its notebook cannot be written.
    """
    from course_lib import reset as module  # needs jupytext, which no other command waits for

    try:
        if exercise not in EXERCISES:
            raise BadInput(_unknown(exercise))
        outcome = module.reset(exercise, course_folder())
    except (BadInput, module.CannotReset) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    print(f"{_short(outcome.notebook)} {outcome.done}")
    if outcome.copy:
        print(f"As it was before: {_short(outcome.copy)}")
        print("Is the notebook open in JupyterLab? Then: File > Reload Notebook from Disk.")


@app.command()
def hint(
    exercise: Annotated[str, typer.Argument(help="Id of an exercise.", show_default=False)],
    again: Annotated[bool, typer.Option("--again", help="Show the hints seen so far, and no new one.")] = False,
) -> None:
    """Show the next hint for an exercise; after all of them and an honest try, where its solution is.

    Hints seen in a notebook count here, and the other way round.
    """
    if exercise not in EXERCISES:
        print(_unknown(exercise), file=sys.stderr)
        raise typer.Exit(BAD_INPUT)
    print_hint(exercise, again)


@app.command()
def progress(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the tables.")] = False,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write all of it to a new JSON file; - for stdout.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Add what such a file holds to what is here.")
    ] = None,
) -> None:
    """Show what you have passed and tried, and what to do next.

    Exit code: 0, or 2 if something could not be read or written.
    """
    try:
        if as_json + (export is not None) + (import_ is not None) > 1:
            raise BadInput("Use one of --json, --export and --import at a time.")
        if export is not None:
            _export(export)
        elif import_ is not None:
            _import(import_)
        elif as_json:
            print(json.dumps(learner.overview().to_dict(), indent=2))
        else:
            _print_progress(learner.overview())
        problems = []
    except journal.Trouble as trouble:
        problems = [f"Progress cannot be read or written: {trouble}"]
    except (BadInput, exchange.BadFile) as error:
        problems = [str(error)]
    for sentence in journal.news() + problems:
        print(sentence, file=sys.stderr)
    raise typer.Exit(BAD_INPUT if problems else 0)


app.command()(memory.memory)
app.command()(compare.compare)
app.command()(bench.bench)
app.command(cls=launch.ScriptLast, options_metavar=launch.ARGUMENTS, context_settings=launch.SETTINGS)(launch.launch)
app.command()(bank.questions)
app.command()(practice.quiz)
app.command()(practice.interview)
app.command()(export.paper)
app.command()(export.anki)


def _export(target: str) -> None:
    events = journal.load()
    text = exchange.to_json(events)
    if target == "-":
        print(text, end="")
        return
    exchange.write_new(Path(target), text)
    print(f"Wrote {len(events)} events to {target}. On another machine: course progress --import {target}")


def _import(path: Path) -> None:
    events = exchange.read(path)
    new = journal.open_store().append(events)
    print(f"{path} holds {len(events)} events, of which {new} were new.")


def _print_progress(now: learner.Overview) -> None:
    console = Console()
    tables = now.tables()
    widths = [max(len(row[column]) for row in [learner.HEADINGS, *(row for _, rows in tables for row in rows)])
              for column in range(len(learner.HEADINGS))]
    for title, rows in tables:
        table = Table(title=Text(title), title_justify="left")
        for heading, width in zip(learner.HEADINGS, widths, strict=True):
            table.add_column(heading, min_width=min(width, WIDEST), overflow="fold")
        for exercise, state, *rest in rows:
            style = COLOURS.get(state, COLOURS[NOT_YET])
            table.add_row(Text(exercise), Text(state, style=style), *map(Text, rest))
        console.print(table)
    for sentence in now.summary():
        console.print(Text(sentence))


def course_folder() -> Path:
    """The folder with the course's notebooks and exercises: the package's checkout, else where we are, or above.

    Raises BadInput where there is none.
    """
    here = Path.cwd()
    for folder in (Path(course_lib.__file__).resolve().parents[1], here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "exercises").is_dir():
            return folder
    raise BadInput(f"The course's folder was not found: neither {here} nor a folder above it holds notebooks/ and "
                   "exercises/. Change to your clone of the course and try again.")


def _sources(named: list[str]) -> list[tuple[Source, list[str] | None]]:
    """The files to run, each with the ids to judge in it (None: all). Raises BadInput, a line for each thing wrong."""
    ids = [name for name in named if name in EXERCISES]
    others = [name for name in named if name not in EXERCISES]
    paths = [Path(name) for name in others if Path(name).suffix or Path(name).exists() or Path(name).name != name]
    problems = [_unknown(name) for name in others if Path(name) not in paths]
    wanted: list[tuple[Path, list[str] | None]] = [(path, ids or None) for path in paths]
    if not paths and not problems:
        folder = course_folder() / "exercises"
        chosen = ids or list(EXERCISES)
        for notebook in dict.fromkeys(EXERCISES[name].notebook for name in chosen):
            here = [name for name in chosen if EXERCISES[name].notebook == notebook]
            wanted.append((_short(folder / f"{notebook}.ipynb"), here))
    sources = []
    for path, chosen_here in wanted:
        try:
            sources.append((read(path), chosen_here))
        except BadInput as error:
            problems.append(str(error))
    if problems:
        raise BadInput("\n".join(problems))
    return sources


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), EXERCISES)
    advice = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(EXERCISES)}."
    return f"There is no exercise {name}. {advice}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print_table(outcomes: list[Outcome]) -> None:
    console = Console()
    width = max(len(outcome.exercise) for outcome in outcomes)
    for path in dict.fromkeys(outcome.path for outcome in outcomes):
        table = Table(title=Text(str(path)), title_justify="left", expand=True)
        table.add_column("exercise", width=max(width, len("exercise")), overflow="fold")
        table.add_column("status", width=len(UNTOUCHED))
        table.add_column("title, and what was found first", ratio=1)
        for outcome in (outcome for outcome in outcomes if outcome.path == path):
            text = Text(EXERCISES[outcome.exercise].title)
            if outcome.status == NOT_YET and outcome.findings:
                text.append("\n" + textwrap.shorten(outcome.findings[0]["what"], 130, placeholder=" ..."))
            table.add_row(outcome.exercise, Text(outcome.status, style=COLOURS[outcome.status]), text)
        console.print(table)
    count = Counter(outcome.status for outcome in outcomes)
    console.print(f"{count[PASSED]} of {len(outcomes)} passed; {count[NOT_YET]} not yet; {count[UNTOUCHED]} untouched.",
                  highlight=False)


def main() -> None:
    """Entry point of the `course` command."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # else what is meant for it would go to stdout
    if sys.stdout is None:
        print("stdout is closed, so nothing could be shown. Send it to a file, or to /dev/null.", file=sys.stderr)
        sys.exit(BAD_INPUT)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark for it
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what runs is stopped as well
    app()
