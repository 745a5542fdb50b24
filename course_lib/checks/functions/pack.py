"""The exercise `pack`: where tensors lie in one flat buffer, each on a boundary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from course_lib.checks.candidate import Stopped
from course_lib.checks.functions.common import Edge, Known, Numeric, as_array
from course_lib.checks.report import Finding

Layout = tuple[list[float] | None, float | None]  # offsets and total; None for what a mistake does not claim
Up = Callable[[float, int], float]


def _up(size: float, align: int) -> float:
    """The next multiple of ``align``."""
    return -(-size // align) * align


def _packed(
    place: Up = _up,
    total: Callable[[list[float], list[int], int], float] | None = None,
    start: Callable[[int], int] = lambda align: 0,
    room: Callable[[int, int], float] = lambda size, align: size,
) -> Callable[..., Layout]:
    """One tensor behind the other; ``place`` rounds where a tensor ends, ``room`` says what it takes."""

    def run(sizes: Sequence[int], align: int) -> Layout:
        offsets, end = [], float(start(align))
        for size in sizes:
            offsets.append(end)
            end = place(end + room(size, align), align)
        return offsets, end if total is None else total(offsets, list(sizes), align)

    return run


def _end(offsets: list[float], sizes: list[int]) -> float:
    return offsets[-1] + sizes[-1] if sizes else 0


def _only(offsets: bool, of: Callable[..., Layout]) -> Callable[..., Layout]:
    """One of the two parts is claimed: the other one is right."""
    return lambda sizes, align: (of(sizes, align)[0], None) if offsets else (None, of(sizes, align)[1])


def _from_right(change: Callable[[list[float], float, list[int], int], Layout]) -> Callable[..., Layout]:
    return lambda sizes, align: change(*_right(sizes, align), list(sizes), align)


def _ends(offsets: list[float], total: float, sizes: list[int], align: int) -> Layout:
    return [offset + size for offset, size in zip(offsets, sizes, strict=True)], None


def _empty_at_zero(offsets: list[float], total: float, sizes: list[int], align: int) -> Layout:
    return [offset if size else 0 for offset, size in zip(offsets, sizes, strict=True)], None


def _empty_left_out(offsets: list[float], total: float, sizes: list[int], align: int) -> Layout:
    return [offset for offset, size in zip(offsets, sizes, strict=True) if size], None


def _each_alone(sizes: Sequence[int], align: int) -> Layout:
    """The padded size of the tensor before, not the sum of all."""
    return [0, *(_up(size, align) for size in sizes[:-1])], _up(sizes[-1], align)


def _sorted(sizes: Sequence[int], align: int) -> Layout:
    """Laid out from the largest tensor, and told in that order."""
    return _right(sorted(sizes, reverse=True), align)


def _sorted_places(sizes: Sequence[int], align: int) -> Layout:
    """Laid out from the largest tensor, and told in the order of ``sizes``."""
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    offsets, total = _right([sizes[i] for i in order], align)
    return [offsets[order.index(i)] for i in range(len(sizes))], total


def _backwards(sizes: Sequence[int], align: int) -> Layout:
    offsets, total = _right(list(sizes)[::-1], align)
    return offsets[::-1], total


def _bits(size: float, align: int) -> float:
    """Right where ``align`` is a power of two."""
    return float((int(size) + align - 1) & ~(align - 1))


_right = _packed()
_UP = "The smallest multiple of align that is not below x: `(x + align - 1) // align * align`."
_NEXT = "The next tensor begins where this one ends, rounded up."
_TOTAL = "The buffer ends on a boundary as well: round the end of the last tensor up."
_UNIT = "Elements are asked for."
_ORDER = "Tensors lie in the order of `sizes`."
_EMPTY = "A tensor without elements takes no room: the next one begins where it does."
MISTAKES = (
    Known("not-aligned", "tensors that lie one directly behind the other", "Where must each begin?",
          _packed(lambda end, align: end)),
    Known("only-total-aligned", "tensors one directly behind the other, with padding at the end of the buffer alone",
          "Where must each begin?", _packed(lambda end, align: end, lambda o, s, align: _up(sum(s), align))),
    Known("total-not-aligned", "a buffer that ends with its last tensor", _TOTAL,
          _only(False, _packed(total=lambda offsets, sizes, align: _end(offsets, sizes)))),
    Known("total-of-sizes", "the sum of the sizes, without the gaps", _TOTAL,
          _only(False, _packed(total=lambda offsets, sizes, align: sum(sizes)))),
    Known("total-of-sizes-aligned", "the sum of the sizes, rounded up: without the gaps between tensors", _TOTAL,
          _only(False, _packed(total=lambda offsets, sizes, align: _up(sum(sizes), align)))),
    Known("last-offset", "the place where the last tensor begins", "Where does it end?",
          _only(False, _packed(total=lambda offsets, sizes, align: offsets[-1] if offsets else 0))),
    Known("gaps-alone", "the padding alone", "The tensors take room, too.",
          _only(False, _from_right(lambda o, total, sizes, align: (o, total - sum(sizes))))),
    Known("pads-full", "a whole gap even behind a tensor that ends on a boundary", _UP,
          _packed(lambda end, align: (end // align + 1) * align, room=lambda size, align: size)),
    Known("rounded-down", "ends that are rounded down, so that tensors overlap", _UP,
          _packed(lambda end, align: end // align * align, room=lambda size, align: size)),
    Known("rounded-to-nearest", "ends that are rounded to the nearest boundary", _UP,
          _packed(lambda end, align: round(end / align) * align)),
    Known("pads-with-remainder", "gaps of `size % align`: that is what is over, not what is missing", _UP,
          _packed(lambda end, align: end, room=lambda size, align: size + size % align)),
    Known("align-added", "a gap of `align` elements behind each tensor", _UP,
          _packed(lambda end, align: end, room=lambda size, align: size + align)),
    Known("power-of-two", "bits that are masked out, which is right where `align` is a power of two",
          "The exercise allows any align from 1 on.", _packed(_bits)),
    Known("ends", "the boundaries behind the tensors", "Where does each tensor begin?",
          _only(True, _from_right(lambda offsets, total, sizes, align: ([*offsets[1:], total], None)))),
    Known("plain-ends", "the ends of the tensors", "Where does each tensor begin?",
          _only(True, _from_right(_ends))),
    Known("one-offset-more", "one offset more: the end is among them", "As many offsets as tensors.",
          _only(True, _from_right(lambda offsets, total, sizes, align: ([*offsets, total], None)))),
    Known("first-missing", "all offsets but the first", "The first tensor begins at 0.",
          _only(True, _from_right(lambda offsets, total, sizes, align: (offsets[1:], None)))),
    Known("starts-late", "a first tensor that begins at `align`", "The first tensor begins at 0.",
          _packed(start=lambda align: align)),
    Known("slots", "numbers of boundaries: the elements are divided by `align`", _UNIT,
          _from_right(lambda offsets, total, s, align: ([offset / align for offset in offsets], total / align))),
    Known("bytes", "bytes of float32", _UNIT,
          _from_right(lambda offsets, total, s, align: ([4 * offset for offset in offsets], 4 * total))),
    Known("padded-sizes", "the padded sizes of the tensors", _NEXT,
          _only(True, lambda sizes, align: ([_up(size, align) for size in sizes], None))),
    Known("not-added-up", "where a tensor would begin if there were only the one before it", _NEXT, _each_alone),
    Known("largest-everywhere", "as much room for each tensor as for the largest", "Each takes its own size.",
          lambda sizes, align: _packed(room=lambda size, align: max(sizes))(sizes, align)),
    Known("sorted", "a layout from the largest tensor on, in that order", _ORDER, _sorted),
    Known("sorted-places", "a layout from the largest tensor on", _ORDER, _sorted_places),
    Known("backwards", "a layout from the last tensor on", _ORDER, _backwards),
    Known("empty-takes-room", "room for one element where a tensor has none", _EMPTY,
          _packed(room=lambda size, align: max(size, 1))),
    Known("empty-at-zero", "tensors without elements at 0", _EMPTY,
          _only(True, _from_right(_empty_at_zero))),
    Known("empty-left-out", "offsets of the tensors that have elements", "As many offsets as tensors.",
          _only(True, _from_right(_empty_left_out))),
)  # fmt: skip


def _case(align: int, *sizes: int) -> dict[str, Any]:
    return {"sizes": list(sizes), "align": align}


def _drawn(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [_case(int(rng.integers(2, 20)), *map(int, rng.integers(0, 90, int(rng.integers(3, 9)))))]


class _Layouts(Numeric):
    """Tells of two parts in the wrong order, and of places that are right but no ints."""

    def _judged(self, candidate: Callable[..., Any]) -> list[Finding]:
        notes = []

        def called(**case: Any) -> Any:
            result = candidate(**case)
            if isinstance(result, (tuple, list)) and len(result) == 2:
                offsets, total = result
                if _axes(offsets) == 0 and _axes(total) == 1:
                    what = "The two are swapped: the first thing returned is one number, the second a list."
                    raise Stopped(Finding("swapped", what, "Return the offsets first, and then the total."))
                notes.extend(_about_kinds(offsets, total))
            return result

        return super()._judged(called) or notes[:1]


def _axes(value: Any) -> int | None:
    """0 for a number, 1 for a list of them; None for anything else."""
    try:
        return as_array(value).ndim
    except (TypeError, ValueError, RuntimeError):
        return 1 if isinstance(value, (list, tuple)) and not value else None


def _about_kinds(offsets: Any, total: Any) -> list[Finding]:
    if _axes(total) == 1:
        return [Finding("wrong-result", f"`total` is {total!r}, a list or an array.", "Return the number alone.")]
    for name, value in (("offsets", offsets), ("total", total)):
        values = value if isinstance(value, (list, tuple)) else [value]
        if any("float" in str(getattr(x, "dtype", type(x).__name__)) and as_array(x).size for x in values):
            what = f"`{name}` holds floats: a place in a buffer is an index."
            return [Finding("floats", what, "`//` divides ints into ints; `/` makes floats, also of ints.")]
    return []


PACK = _Layouts(
    _right,
    [
        _case(8, 5, 16, 0, 3, 24, 9),
        _case(12, 30, 7, 0, 25, 12, 6, 31),
        _case(128, 768 * 768, 768, 1000, 0, 50257),
        _case(4, 3, 0, 5, 9, 2),
    ],
    MISTAKES,
    "a list of offsets, and the total",
    ("offsets", "total"),
    edges=[
        Edge(_case(1, 5, 3, 0, 2)),
        Edge(_case(64, 64)),
        Edge(_case(64, 1)),
        Edge(_case(16, 0, 0)),
        Edge(_case(16)),
    ],
    drawn=_drawn,
)
