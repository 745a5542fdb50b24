"""Given a card: the largest model that fits it, and what to change, in order of cost, until a model does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from course_lib.memory.architecture import Architecture
from course_lib.memory.arguments import whole
from course_lib.memory.cards import LARGEST, SMALLEST
from course_lib.memory.changes import EXACT, ROUNDED, Rung, micro_batches
from course_lib.memory.lora import lora
from course_lib.memory.model_states import LARGEST_MODEL
from course_lib.memory.predict import CHUNKED_LOSS, CUDA_CONTEXT, Prediction, predict_setup
from course_lib.memory.setup import Setup

MOST_GPUS = 2**16
TIGHT = 0.05  # of the card; the allocator's fragmentation can take as much


class Change(NamedTuple):
    """A change, the prediction after it and those before it, and what it costs, in words."""

    change: str
    prediction: Prediction
    cost: str


def spare(prediction: Prediction, card: int) -> int:
    """Bytes of the card that are left, the CUDA context counted; negative if they do not suffice."""
    return card - prediction.total - CUDA_CONTEXT


def verdict(prediction: Prediction, card: int) -> str:
    """Whether it fits the card, in a sentence."""
    left = spare(prediction, card)
    if left < 0:
        return f"Does not fit: {_gb(-left)} too much."
    if left < TIGHT * card:
        return f"Fits, with {_gb(left)} to spare: so little that the allocator's fragmentation may use it up."
    return f"Fits, with {_gb(left)} to spare."


def largest_model(card: int, *, context: int = CUDA_CONTEXT, **setup: Any) -> int:
    """The most parameters whose model states fit a card; activations come on top.

    Args:
        card: bytes of memory, as ``cards.card_bytes`` reads them.
        context: bytes that the CUDA context takes; 0 for the arithmetic of an exercise.
        **setup: the choices of :func:`course_lib.memory.predict.predict`.

    Raises:
        ValueError: a choice is out of range, or not one parameter fits.
    """
    card, chosen = _card(card), Setup(**setup)
    room = card - whole("context", context, 0, LARGEST, "bytes")
    if predict_setup(1, chosen).total > room:
        raise ValueError(f"Not one parameter fits: {_gb(card)} less {_gb(context)} of context leaves {_gb(room)}, and "
                         f"buffers take {_gb(chosen.buckets)}.")
    fits, beyond = 1, LARGEST_MODEL
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if predict_setup(middle, chosen).total <= room:
            fits = middle
        else:
            beyond = middle
    return fits


def advise(model: Architecture | float, card: int, **setup: Any) -> list[Change]:
    """What to change so that training fits the card, cheapest first, each on top of those before it.

    They leave 5% of the card free, if that can be had. Changes that cost something and turn out not to be needed are
    left out again, the dearest first. Where the GPUs at hand suffice only with other numerics (8-bit state, no master
    weights, another optimizer) or not at all, ways around it follow, each to be read alone ("or instead"): more GPUs
    with the optimizer as asked, and LoRA where nothing else fits.

    Args:
        model: an architecture, or a number of parameters.
        card: bytes of memory of one GPU.
        **setup: the choices of :func:`course_lib.memory.predict.predict`, as they are now.

    Returns:
        The changes; none if it fits as it is. If the GPUs at hand do not suffice, the first one says so plainly.

    Raises:
        ValueError: a choice is out of range or unknown.
    """
    card, asked = _card(card), Setup(**setup)
    if _fits(model, asked, card):
        return []
    path, suffices = _climb(model, asked, card, (*EXACT, *ROUNDED))
    found = [Change(rung.change(before, after), predict_setup(model, after), rung.cost)
             for rung, before, after in path]
    if suffices and all(rung in EXACT for rung, _, _ in path if not rung.repeats):
        return found
    if not suffices:
        last = found[-1].prediction if found else predict_setup(model, asked)
        tried = ", ".join(change.change for change in found) or "no change known here helps"
        loss = "".join(f". {note[:-1]}" for note in last.notes if CHUNKED_LOSS in note)
        found = [Change(f"not on {_gpus(asked.gpus)} of {_gb(card)}", last,
                        f"with all that helps ({tried}), {_gb(-spare(last, card))} are missing{loss}")]
    return found + _more_gpus(model, asked, card) + ([] if suffices else _adapters(model, asked, card))


Path = list[tuple[Rung, Setup, Setup]]  # changes, each with the choices before and after it


def _climb(model: Architecture | float, asked: Setup, card: int, rungs: tuple[Rung, ...]) -> tuple[Path, bool]:
    """The changes with which it fits, and True; or all that help, and False."""
    taken: list[Rung] = []
    for goal in (card - int(TIGHT * card), card):
        taken = []
        for rung in rungs:
            before = _apply(asked, taken)
            if _total(model, _apply(before, [rung])) < _total(model, before):
                taken.append(rung)
            if _fits(model, _apply(asked, taken), goal):
                return _path(asked, _pruned(model, asked, goal, taken)), True
    lowest = _total(model, _apply(asked, taken))
    for rung in list(taken):  # a dearer change can make a cheaper one useless
        fewer = [other for other in taken if other is not rung]
        if _total(model, _apply(asked, fewer)) <= lowest:
            taken = fewer
    return _path(asked, taken), False


def _pruned(model: Architecture | float, asked: Setup, goal: int, taken: list[Rung]) -> list[Rung]:
    """``taken`` without what is not needed, the dearest first, and with micro-batches as large as fit."""
    for rung in reversed([rung for rung in taken[:-1] if not rung.free]):
        fewer = [other for other in taken if other is not rung]
        if _fits(model, _apply(asked, fewer), goal):
            taken = fewer
    for batch in range(asked.batch // 2, 1, -1):
        larger = [micro_batches(batch) if rung.repeats else rung for rung in taken]
        if asked.batch % batch == 0 and larger != taken and _fits(model, _apply(asked, larger), goal):
            return larger
    return taken


def _apply(setup: Setup, rungs: Iterable[Rung]) -> Setup:
    for rung in rungs:
        setup = rung.apply(setup) or setup
    return setup


def _path(setup: Setup, rungs: Iterable[Rung]) -> Path:
    path = []
    for rung in rungs:
        after = rung.apply(setup)
        if after is not None:
            path.append((rung, setup, after))
            setup = after
    return path


def _more_gpus(model: Architecture | float, asked: Setup, card: int) -> list[Change]:
    """The fewest GPUs, doubling them, that suffice with the optimizer and its state as asked."""
    gpus = asked.gpus
    while (gpus := 2 * gpus) <= MOST_GPUS:
        path, suffices = _climb(model, replace(asked, gpus=gpus), card, EXACT)
        if suffices and path:
            words = ", ".join(rung.change(before, after) for rung, before, after in path)
            costs = "; ".join(rung.cost for rung, _, _ in path)
            return [Change(f"or instead, the optimizer as asked, on {_gpus(gpus)}: {words}",
                           predict_setup(model, path[-1][2]), f"{gpus // asked.gpus} times the GPUs; {costs}")]
    lean = _apply(replace(asked, gpus=gpus // 2), EXACT)
    return [Change(f"nor on {_gpus(gpus // 2)}", predict_setup(model, lean),
                   "what does not shrink with more ranks is too much: shorter sequences or tensor parallelism are "
                   "left")]


def _adapters(model: Architecture | float, asked: Setup, card: int) -> list[Change]:
    """LoRA where it fits, else LoRA over 4-bit weights; nothing for a bare number of parameters."""
    if not isinstance(model, Architecture):
        return []
    lean = _apply(asked, EXACT)
    for bits, name, source in ((16, "LoRA of rank 16", "2106.09685"),
                               (4, "QLoRA, which is LoRA of rank 16 over 4-bit weights", "2305.14314")):
        prediction = lora(model, lean, bits)
        if spare(prediction, card) >= 0:
            return [Change(f"or instead, other training: {name}", prediction,
                           f"it adapts a trained model and does not pre-train one ({source}); counted with "
                           f"micro-batches of {lean.batch} and {lean.recompute} recomputation")]
    return [Change("nor with QLoRA on one GPU", prediction, f"{_gb(-spare(prediction, card))} are missing")]


def _fits(model: Architecture | float, setup: Setup, card: int) -> bool:
    return spare(predict_setup(model, setup), card) >= 0


def _total(model: Architecture | float, setup: Setup) -> int:
    return predict_setup(model, setup).total


def _card(card: int) -> int:
    return whole("card", card, SMALLEST, LARGEST, "bytes (80 GB are 80e9)")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _gpus(count: int) -> str:
    return f"{count:,} GPU{'s' if count > 1 else ''}"
