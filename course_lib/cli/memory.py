"""`course memory`: how much memory training a model takes on each GPU, as a table and a bar, or as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from course_lib.memory.advise import Change
    from course_lib.memory.models import Architecture
    from course_lib.memory.predict import Prediction

BAD_INPUT = 2  # exit code
GB = 10**9
LETTERS = {"parameters": "P", "gradients": "G", "optimizer": "O", "activations": "A", "other": "+"}
STYLES = {"P": "black on cyan", "G": "black on yellow", "O": "black on magenta", "A": "black on green",
          "+": "black on white", ".": "dim"}
SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
NARROW = 64  # columns of a terminal
MOST_LINES = 5  # of what a part of the table is made of
FEWEST, MOST = 1_000, 10**15  # parameters

_WHAT = "What is trained"
_HOW = "How"
_WHERE = "On what"


def memory(
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", rich_help_panel=_WHAT, show_default=False,
                     help="A model known here (llama-3-8b), or the config.json of a Hugging Face checkpoint."),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(metavar="COUNT", rich_help_panel=_WHAT, show_default=False,
                     help="Instead of a model: how many parameters, as 7e9 or 7B. Without activations."),
    ] = None,
    batch: Annotated[int, typer.Option(rich_help_panel=_WHAT, help="Sequences at once on a GPU.")] = 1,
    seq: Annotated[
        int | None,
        typer.Option(rich_help_panel=_WHAT, help="Tokens of a sequence; without it the model's context.",
                     show_default=False),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=_HOW, help="As adamw, lion, muon.")
    ] = "adamw",
    precision: Annotated[
        str, typer.Option(metavar="RECIPE", rich_help_panel=_HOW, help="As fp32, mixed-bf16, bf16.")
    ] = "mixed-bf16",
    grads: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", rich_help_panel=_HOW, show_default=False,
                     help="Format of the gradients, where the recipe's is not wanted: bf16, fp16 or fp32."),
    ] = None,
    accumulate: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", rich_help_panel=_HOW, show_default=False,
                     help="fp32: gradients are summed in a second buffer, beside the 16-bit ones."),
    ] = None,
    recompute: Annotated[
        str, typer.Option(metavar="HOW", rich_help_panel=_HOW, help="Activations: none, selective, full.")
    ] = "none",
    attention: Annotated[str, typer.Option(metavar="KIND", rich_help_panel=_HOW, help="flash or eager.")] = "flash",
    step: Annotated[
        str, typer.Option(metavar="KIND", rich_help_panel=_HOW, help="The optimizer's: fused, foreach, for-loop.")
    ] = "fused",
    zero: Annotated[int, typer.Option(metavar="STAGE", rich_help_panel=_WHERE, help="ZeRO: 0, 1, 2 or 3.")] = 0,
    gpus: Annotated[int, typer.Option(rich_help_panel=_WHERE, help="GPUs in all.")] = 1,
    tensor: Annotated[int, typer.Option(rich_help_panel=_WHERE, help="GPUs that share each layer.")] = 1,
    pipeline: Annotated[int, typer.Option(rich_help_panel=_WHERE, help="GPUs that each hold some layers.")] = 1,
    buckets: Annotated[
        int, typer.Option(metavar="BYTES", rich_help_panel=_WHERE, help="Buffers for exchanging gradients.")
    ] = 0,
    card: Annotated[
        str | None,
        typer.Option(metavar="SIZE|NAME", rich_help_panel=_WHERE, show_default=False,
                     help="Does it fit, and what to change? 80GB, 80GiB, h100."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document: bytes on each GPU.")
    ] = False,
) -> None:
    """Show how much memory training takes on each GPU, and what of it is what.

    For example: course memory --model llama-3-8b --zero 1 --gpus 64 --seq 8192 --recompute selective --card 80GB

    Exit code: 0, or 2 if an argument is wrong. Whether it fits the card does not change it.
    """
    from course_lib.memory import advise, cards, predict  # torch comes with them, and no other command waits for it

    setup = {
        "optimizer": optimizer, "precision": precision, "grads": grads, "accumulate": accumulate, "zero": zero,
        "gpus": gpus, "tensor": tensor, "pipeline": pipeline, "batch": batch, "sequence": seq, "recompute": recompute,
        "attention": attention, "step": step, "buckets": buckets,
    }
    try:
        trained = _trained(model, params)
        prediction = predict.predict(trained, **setup)
        limit = None if card is None else cards.card_bytes(card)
        advice = [] if limit is None else advise.advise(trained, limit, **setup)
        largest = 0 if limit is None else advise.largest_model(limit, **setup)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        document: dict[str, Any] = prediction.to_dict()
        if limit is not None:
            document["card"] = {
                "bytes": limit, "context": predict.CUDA_CONTEXT, "fits": advise.spare(prediction, limit) >= 0,
                "largest_model": largest,
                "advice": [{"change": change, "total": after.total, "cost": cost} for change, after, cost in advice],
            }
        print(json.dumps(document, indent=2))
        return
    console = Console(highlight=False)
    console.print(Text(_title(trained, setup)))
    console.print(_table(prediction, console.width))
    console.print(_bar(prediction, console.width - 2, limit))
    console.print(Text(f"A checkpoint that resumes exactly: {_gb(prediction.checkpoint)} GB."))
    for note in prediction.notes:
        console.print(Text(note))
    if limit is not None:
        console.print(Text(f"A card of {_gb(limit)} GB, {_gb(predict.CUDA_CONTEXT)} GB of it for the CUDA context. "
                           f"{advise.verdict(prediction, limit)}"))
        console.print(Text(f"The largest model whose states alone fit, trained so: {largest:,} parameters."))
        if advice:
            console.print(_advice(advice))


def _trained(model: str | None, params: str | None) -> Architecture | int:
    from course_lib.memory import models

    if (model is None) == (params is None):
        raise ValueError("Name what is trained: either --model llama-3-8b or --params 7e9.")
    if params is not None:
        return _count(params)
    if model in models.MODELS or not model.strip():
        return models.find(model)  # also where a file has this name
    a_path = Path(model).suffix == ".json" or Path(model).name != model or os.path.exists(model)
    return models.from_config(model) if a_path else models.find(model)


def _count(text: str) -> int:
    """7e9, 7B and 7,000,000,000 are the same number."""
    plain = re.sub(r"[,_\s]", "", text.lower())
    found = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)([kmbt]?)", plain)
    if found is None:
        raise ValueError(f"Invalid params: {text!r}. Write a number as 7e9, 7B or 350M.")
    count = float(found[1]) * SUFFIXES[found[2]]
    if not FEWEST <= count <= MOST:
        meant = f" Did you mean {text.strip()}B?" if 0 < count < FEWEST and not found[2] else ""
        raise ValueError(f"Invalid params: {text!r}. Allowed: 1000 to 1e15 parameters.{meant}")
    return round(count)


def _title(trained: Architecture | int, setup: dict[str, Any]) -> str:
    count = trained if isinstance(trained, int) else trained.parameters
    what = f"{count:,} parameters" if isinstance(trained, int) else f"{trained.name}, {count:,} parameters"
    where = f"{setup['gpus']:,} GPUs" if setup["gpus"] > 1 else "1 GPU"
    sharded = f", ZeRO-{setup['zero']}" if setup["zero"] else ""
    return f"{what}: {setup['optimizer']}, {setup['precision']}{sharded}, {where}"


def _table(prediction: Prediction, width: int) -> Table:
    """The parts, and under each the largest of what it is made of; in a narrow terminal without the exact bytes."""
    table = Table(title=f"On each GPU, at the peak ({prediction.moment})", title_justify="left")
    table.add_column("", width=1)
    table.add_column("part", overflow="fold", min_width=max(map(len, LETTERS)))
    exact = width >= NARROW
    for heading in ("bytes",) * exact + ("GB", "share"):
        table.add_column(heading, justify="right", overflow="fold")

    def row(letter: Text | str, what: Text | Padding | str, size: int, *rest: str, style: str = "") -> None:
        table.add_row(letter, what, *[Text(f"{size:,}", style=style)] * exact, *rest)

    for (part, letter), lines in zip(LETTERS.items(), _lines(prediction), strict=True):
        size = getattr(prediction, part)
        share = f"{size / prediction.total:.1%}"
        row(Text(letter, style=STYLES[letter]), part, size, _gb(size), share)
        for line, found in lines if len(lines) > 1 else []:
            row("", Padding(Text(line, style="dim"), (0, 0, 0, 2)), found, "" if exact else _gb(found), style="dim")
    table.add_section()
    row("", "total", prediction.total, _gb(prediction.total))
    return table


def _lines(prediction: Prediction) -> list[list[tuple[str, int]]]:
    """For each part what it is made of, the largest first; what is more than ``MOST_LINES`` in one line."""
    found = []
    for part in LETTERS:
        own = sorted(prediction.details[part].items(), key=lambda line: -line[1])
        if len(own) > MOST_LINES:
            rest = own[MOST_LINES - 1:]
            own = [*own[:MOST_LINES - 1], (f"{len(rest)} others", sum(size for _, size in rest))]
        found.append(own)
    return found


def _gb(size: int) -> str:
    """In 1e9 bytes: two digits after the point, for less than 10 MB four."""
    return f"{size / GB:,.{2 if size >= GB // 100 or not size else 4}f}"


def _bar(prediction: Prediction, width: int, limit: int | None) -> Text:
    """One line in which each part has its share; with a card its free memory too, and a mark where it ends."""
    sizes = {LETTERS[part]: size for part, size in prediction.to_dict().items() if part in LETTERS}
    if limit is not None:
        sizes["."] = max(0, limit - prediction.total)
    line = Text()
    for letter, cells in _cells(sizes, width).items():
        line.append(letter * cells, style=STYLES[letter])
    if limit is not None:
        end = min(width, max(1, round(limit / max(limit, prediction.total) * width)))
        label = f"card {_gb(limit)} GB ^"
        line.append("\n" + (label.rjust(end) if len(label) <= end else " " * (end - 1) + "^ " + label[:-2]))
    return line


def _cells(sizes: dict[str, int], width: int) -> dict[str, int]:
    """Whole cells in proportion to ``sizes``, ``width`` together; what is there at all gets one."""
    together = sum(sizes.values())
    cells = {key: max(1, size * width // together) if size else 0 for key, size in sizes.items()}
    largest = max(sizes, key=lambda key: sizes[key])
    cells[largest] += width - sum(cells.values())
    return cells


def _advice(advice: list[Change]) -> Table:
    table = Table(title="What to change, the cheapest first", title_justify="left", expand=True)
    table.add_column("change", ratio=3, overflow="fold")
    table.add_column("then GB", justify="right", overflow="fold")
    table.add_column("what it costs", ratio=4, overflow="fold")
    for change, after, cost in advice:
        table.add_row(Text(change), _gb(after.total), Text(cost))
    return table
