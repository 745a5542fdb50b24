"""A stand-in for ``triton.language`` in NumPy: kernels are written and tested where there is no GPU and no Triton.

    from course_lib.kernels import stub as tl

    def double(x_ptr, n, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offsets, mask=offsets < n)
        tl.store(x_ptr + offsets, 2 * x, mask=offsets < n)

    record = tl.run(double, tl.cdiv(len(x), 4), x, len(x), BLOCK=4)

With ``import triton.language as tl`` and ``@triton.jit`` the same text is a kernel for a GPU. What is kept of Triton:
one program for each cell of a grid, in no order that one may count on; blocks whose length is a power of two; types
(a Python float beside a float16 block gives float16, an argument of the kernel is a float32); masks, under which what
is loaded is undefined. What is added: an access outside an array is refused, elements on which two programs meet are
told, and loads and stores are counted. What is left out: speed, bfloat16, unsigned integers, reductions, atomics.

Source: Tillet, Kung, Cox 2019, "Triton: an intermediate language and compiler for tiled neural network computations";
https://triton-lang.org/main/python-api/triton.language.html.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

int1, int8, int16, int32, int64 = map(np.dtype, ("bool", "int8", "int16", "int32", "int64"))
float16, float32, float64 = map(np.dtype, ("float16", "float32", "float64"))
_TYPES = (int1, int8, int16, int32, int64, float16, float32, float64)  # of two operands the later one wins
_KINDS = "bif"  # a Python number of a kind that comes no later takes the block's type

Operator = Callable[["Block", Any], "Block"]

ORDERS = ("forward", "backward", "shuffled")


class constexpr:
    """Marks an argument that is a plain Python value in the kernel: ``BLOCK: tl.constexpr``."""


class OutOfBounds(IndexError):
    """A program reads or writes outside an array.

    Attributes:
        kind: "load" or "store".
        argument: the kernel's name for the array.
        size: its elements.
        elements: the indices outside that were asked for, in the order of the lanes.
    """

    def __init__(self, kind: str, argument: str, size: int, elements: np.ndarray, program: int) -> None:
        self.kind, self.argument, self.size, self.elements = kind, argument, size, elements
        super().__init__(
            f"Program {program} {kind}s element {elements[0]} of `{argument}`, which has {size}, the first being 0. "
            f"Mask it: tl.{kind}(..., mask=offsets < n)."
        )


# ------------------------------------------------------------------------------------------------ what a run leaves


@dataclass(frozen=True, eq=False)
class Access:
    """One load or store of one program.

    Attributes:
        kind: "load" or "store".
        argument: the kernel's name for the array.
        program: the number of the program, counted along axis 0 first.
        elements: indices into the flat array, without the masked lanes.
        bytes: what these elements take.
    """

    kind: str
    argument: str
    program: int
    elements: np.ndarray
    bytes: int


@dataclass(frozen=True)
class Race:
    """An element that one program writes and another one writes or reads, so that the order of programs decides.

    ``other`` says what the second of the programs does: "loads" or "stores". If both are the same program, one of its
    stores has two lanes for the element: a GPU spreads a block's lanes over several warps.
    """

    argument: str
    element: int
    programs: tuple[int, int]
    other: str = "stores"

    def __str__(self) -> str:
        place = f"{self.element} of `{self.argument}`"
        first, second = self.programs
        if first == second:
            return (
                f"Two lanes of program {first} store element {place}: a GPU runs the lanes of a block in several "
                "warps, in any order."
            )
        return (
            f"Program {first} stores element {place}, and program {second} {self.other} it: a GPU runs them in any "
            "order, or at the same time."
        )


@dataclass(frozen=True)
class Record:
    """What a run did: the accesses in the order in which they were made, and for each array at most one race.

    ``constants`` are the arguments that the kernel was given as plain Python values, by name.
    """

    programs: int
    accesses: tuple[Access, ...]
    races: tuple[Race, ...]
    constants: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str, argument: str | None = None) -> list[Access]:
        """The accesses of a kind, "load" or "store", of one array or of all."""
        return [a for a in self.accesses if a.kind == kind and argument in (None, a.argument)]

    @property
    def loads(self) -> int:
        """How often a program loads a block."""
        return len(self.of("load"))

    @property
    def stores(self) -> int:
        """How often a program stores a block."""
        return len(self.of("store"))

    @property
    def bytes_read(self) -> int:
        """Bytes of all loads, without the masked lanes."""
        return sum(access.bytes for access in self.of("load"))

    @property
    def bytes_written(self) -> int:
        """Bytes of all stores, without the masked lanes."""
        return sum(access.bytes for access in self.of("store"))


# --------------------------------------------------------------------------------------------------- running kernels


class _Launch:
    """A kernel that is being run: which program it is, and what the programs have done so far."""

    def __init__(self, grid: tuple[int, ...], exact: bool) -> None:
        self.grid, self.exact = grid, exact
        self.constants: dict[str, Any] = {}
        self.program = 0
        self.accesses: list[Access] = []
        self.races: list[Race] = []

    def wide(self, dtype: np.dtype) -> np.dtype:
        return float64 if self.exact and dtype.kind == "f" else dtype

    def record(self) -> Record:
        found = {race.argument: race for race in self.races}
        for name in dict.fromkeys(access.argument for access in self.accesses if access.kind == "store"):
            if race := self._race(name):
                found.setdefault(name, race)
        return Record(int(np.prod(self.grid)), tuple(self.accesses), tuple(found.values()), self.constants)

    def _race(self, name: str) -> Race | None:
        accesses = [access for access in self.accesses if access.argument == name]
        size = 1 + max((int(a.elements.max(initial=-1)) for a in accesses), default=-1)
        writer = np.full(size, -1)
        for access in sorted(accesses, key=lambda access: access.kind == "load"):  # the writers of all elements first
            before = writer[access.elements]
            met = (before >= 0) & (before != access.program)
            if met.any():
                lane = int(met.argmax())
                pair = (int(before[lane]), access.program)
                return Race(name, int(access.elements[lane]), pair, f"{access.kind}s")
            if access.kind == "store":
                writer[access.elements] = access.program
        return None


_launch: _Launch | None = None
_watching: list[list[Record]] = []


def run(
    kernel: Callable[..., Any],
    grid: int | tuple[int, ...],
    *arguments: Any,
    order: str = "forward",
    exact: bool = False,
    **constants: Any,
) -> Record:
    """Run all programs of ``kernel`` one after the other: ``kernel[grid](*arguments, **constants)`` in Triton.

    Args:
        kernel: a function that uses this module as ``tl``.
        grid: the number of programs, or up to three numbers.
        *arguments: NumPy arrays, which become pointers to their first element and are written in place; numbers,
            which become an int32 (int64 where it takes that) or a float32; anything else comes as it is. So do
            arguments that the kernel annotates with ``tl.constexpr``.
        order: in which order the programs run: ``"forward"``, ``"backward"`` or ``"shuffled"``.
        exact: every float16 and float32 that is made in the kernel has 64 bits, arguments included: what still
            differs from a formula is no rounding, if the arrays are float64.
        **constants: Python values, such as ``BLOCK=1024``; an array given by name becomes a pointer as well.

    Returns:
        The accesses, and the races. That arrays share memory is not seen.

    Raises:
        OutOfBounds: a program reads or writes outside an array.
        TypeError, ValueError: arguments that do not fit, or what Triton would not compile.
    """
    global _launch
    if _launch is not None:
        raise TypeError("A kernel cannot run another kernel: call tl.run outside of it.")
    if order not in ORDERS:
        raise ValueError(f"Invalid order: {order!r}. Allowed: {', '.join(map(repr, ORDERS))}.")
    shape = tuple(map(operator.index, grid if isinstance(grid, (tuple, list)) else (grid,)))
    if not 1 <= len(shape) <= 3 or min(shape) < 0:
        raise ValueError(f"Invalid grid: {grid!r}. Allowed: one to three numbers of programs, none below 0.")
    signature = inspect.signature(kernel)
    bound = signature.bind(*arguments, **constants).arguments
    _launch = launch = _Launch(shape, exact)
    try:
        launch.constants = {
            name: value
            for name, value in bound.items()
            if _is_constant(signature.parameters[name]) or (name in constants and not isinstance(value, np.ndarray))
        }
        values = {
            name: value if name in launch.constants else _argument(name, value) for name, value in bound.items()
        }
        numbers = range(int(np.prod(shape)))
        if order == "backward":
            numbers = numbers[::-1]
        elif order == "shuffled":
            numbers = np.random.default_rng(0).permutation(len(numbers)).tolist()
        with np.errstate(all="ignore"):
            for launch.program in numbers:
                kernel(**values)
    finally:
        _launch = None
    record = launch.record()
    for records in _watching:
        records.append(record)
    return record


@contextmanager
def watch() -> Iterator[list[Record]]:
    """A list to which every :func:`run` inside the block adds its record."""
    records: list[Record] = []
    _watching.append(records)
    try:
        yield records
    finally:
        _watching.remove(records)


def _is_constant(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return annotation is constexpr or (isinstance(annotation, str) and annotation.endswith("constexpr"))


def _argument(name: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype not in _TYPES:
            raise TypeError(f"Invalid array {name}: {value.dtype}. Allowed: {', '.join(map(str, _TYPES))}.")
        if not value.flags.c_contiguous:
            raise ValueError(
                f"Invalid array {name}: it is not contiguous, and a pointer counts through memory. Pass a contiguous "
                "copy (np.ascontiguousarray), and copy the result back if the kernel writes into it."
            )
        return Pointer(name, value.reshape(-1), np.zeros((), np.int64))
    return Block(_number(value)) if _is_number(value) else value


def _running(what: str) -> _Launch:
    if _launch is None:
        raise TypeError(f"tl.{what} was called outside of a kernel. Run the kernel: tl.run(kernel, grid, ...).")
    return _launch


# ------------------------------------------------------------------------------------------------ pointers and blocks


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_))


def _number(value: Any) -> np.ndarray:
    """A Python number as an array without axes, in the type that Triton gives it."""
    if isinstance(value, (bool, np.bool_)):
        return np.array(value, int1)
    if isinstance(value, (int, np.integer)):
        return np.array(value, int32 if -(2**31) <= value < 2**31 else int64)
    return np.array(value, float64 if _launch is not None and _launch.exact else float32)


def _common(a: Any, b: Any, divides: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Both operands as arrays of the type in which Triton computes."""
    for value in (a, b):
        if not isinstance(value, Block) and not _is_number(value):
            raise TypeError(f"A block and something of type {type(value).__name__} do not go together in a kernel.")
    x, y = (value.value if isinstance(value, Block) else _number(value) for value in (a, b))
    dtype = max(x.dtype, y.dtype, key=_TYPES.index)
    if isinstance(a, Block) != isinstance(b, Block):
        block, number = (x, y) if isinstance(a, Block) else (y, x)
        if _KINDS.index(number.dtype.kind) <= _KINDS.index(block.dtype.kind):
            dtype = block.dtype
    if divides and dtype in (int1, int8, int16, int32, int64, float16):
        dtype = _launch.wide(float32) if _launch else float32
    raw = (value.value if isinstance(value, Block) else np.asarray(value) for value in (a, b))
    return tuple(value.astype(dtype) for value in raw)


def _binary(operation: Callable[..., Any], divides: bool = False) -> tuple[Operator, Operator]:
    """An operator and its reflection."""

    def forward(self: Block, other: Any) -> Block:
        return Block(operation(*_common(self, other, divides)))

    def reflected(self: Block, other: Any) -> Block:
        return Block(operation(*_common(other, self, divides)))

    return forward, reflected


def _towards_zero(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As in C; Python rounds down."""
    if x.dtype.kind == "f":
        raise TypeError("Triton has no // for floats: divide integers.")
    quotient = np.abs(x) // np.abs(y)
    return np.where((x < 0) == (y < 0), quotient, -quotient)


def _remainder(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.fmod(x, y)  # the sign of x, as in C


class Block:
    """Numbers of one type in a kernel: a block of them, or a single one without axes. Operators make new blocks."""

    __iter__ = None

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value)

    @property
    def dtype(self) -> np.dtype:
        """The type of the elements."""
        return self.value.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.value.shape

    def to(self, dtype: np.dtype) -> Block:
        """The same numbers in another type."""
        return Block(self.value.astype(_launch.wide(np.dtype(dtype)) if _launch else dtype))

    __add__, __radd__ = _binary(np.add)
    __sub__, __rsub__ = _binary(np.subtract)
    __mul__, __rmul__ = _binary(np.multiply)
    __truediv__, __rtruediv__ = _binary(np.divide, divides=True)
    __floordiv__, __rfloordiv__ = _binary(_towards_zero)
    __mod__, __rmod__ = _binary(_remainder)
    __and__, __rand__ = _binary(np.bitwise_and)
    __or__, __ror__ = _binary(np.bitwise_or)
    __lt__, __le__ = _binary(np.less)[0], _binary(np.less_equal)[0]
    __gt__, __ge__ = _binary(np.greater)[0], _binary(np.greater_equal)[0]
    __eq__, __ne__ = _binary(np.equal)[0], _binary(np.not_equal)[0]  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __neg__(self) -> Block:
        return Block(-self.value)

    def __invert__(self) -> Block:
        return Block(~self.value)

    def __pow__(self, other: Any) -> Block:
        raise TypeError("Triton has no **: write x * x for a square, tl.sqrt(x) for a root.")

    def __getitem__(self, key: Any) -> Block:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or part == slice(None) for part in parts):
            raise TypeError("A block cannot be indexed; x[:, None] and x[None, :] add an axis. Load what you need.")
        return Block(self.value[key])

    def __bool__(self) -> bool:
        if self.value.ndim:
            raise TypeError("A block has no single truth: use tl.where, and & and | instead of `and` and `or`.")
        return bool(self.value)

    def __float__(self) -> float:
        raise TypeError("A number in a kernel is no Python float: Python's math does not run there. Use tl.sqrt.")

    def __index__(self) -> int:
        if self.value.ndim or self.value.dtype.kind != "i":
            raise TypeError("Only a single integer can count a loop or be an index, no block.")
        return int(self.value)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("NumPy's functions do not run in a kernel: use those of tl, such as tl.where and tl.sqrt.")

    __array_ufunc__ = __array__

    def __repr__(self) -> str:
        return f"Block({self.value.tolist()}, {self.dtype})"


class Pointer:
    """Where elements of an array lie: ``pointer + offsets`` is a pointer to each of the offsets."""

    __array_ufunc__ = None

    def __init__(self, name: str, array: np.ndarray, offsets: np.ndarray) -> None:
        self._name, self._array, self._offsets = name, array, offsets

    @property
    def dtype(self) -> np.dtype:
        """The type of the elements that it points to."""
        return self._array.dtype

    def __add__(self, offsets: Any) -> Pointer:
        value = _value(offsets, "An offset")
        if value.dtype.kind != "i":
            raise TypeError(f"Invalid offset from `{self._name}`: {value.dtype}. Allowed: integers, one or a block.")
        return Pointer(self._name, self._array, self._offsets + value.astype(np.int64))

    __radd__ = __add__

    def __sub__(self, offsets: Any) -> Pointer:
        return self + (-offsets)

    def __getitem__(self, key: Any) -> Any:
        name = self._name
        raise TypeError(f"`{name}` is a pointer, and has no [ ]: read by tl.load({name} + offsets, mask=...).")

    def __setitem__(self, key: Any, value: Any) -> None:
        name = self._name
        raise TypeError(f"`{name}` is a pointer, and has no [ ]: write by tl.store({name} + offsets, x, mask=...).")

    def __repr__(self) -> str:
        return f"Pointer({self._name} + {self._offsets.tolist()})"


def _value(thing: Any, what: str) -> np.ndarray:
    """A block's, or a number's, value."""
    if isinstance(thing, Block):
        return thing.value
    if _is_number(thing):
        return _number(thing)
    raise TypeError(f"{what} is something of type {type(thing).__name__}. Allowed: a block or a number.")


# ---------------------------------------------------------------------------------------------------------- functions


def program_id(axis: int) -> Block:
    """Which program this is along an axis of the grid."""
    launch = _running("program_id")
    grid = (*launch.grid, 1, 1)[:3]
    return Block(np.array(launch.program // int(np.prod(grid[:axis])) % grid[axis], int32))


def num_programs(axis: int) -> Block:
    """How many programs there are along an axis of the grid."""
    return Block(np.array((*_running("num_programs").grid, 1, 1)[axis], int32))


def arange(start: int, end: int) -> Block:
    """The integers from ``start`` to ``end`` - 1. Both are known when the kernel is compiled: constants."""
    if not all(type(bound) is int for bound in (start, end)):
        raise TypeError("Invalid tl.arange: its bounds are constants, such as 0 and BLOCK (a tl.constexpr).")
    length = end - start
    if length <= 0 or length & (length - 1):
        raise ValueError(f"Invalid tl.arange({start}, {end}): {length} numbers. Allowed: a power of two.")
    return Block(np.arange(start, end, dtype=int32))


def load(
    pointer: Pointer, mask: Any = None, other: Any = None, cache_modifier: str = "", eviction_policy: str = ""
) -> Block:
    """The elements at ``pointer``. Where ``mask`` is False nothing is read: there is ``other``, or anything at all.

    Here "anything" is a NaN, a large integer or True. The last two arguments are Triton's, and change nothing here.
    """
    launch = _running("load")
    if other is not None and mask is None:
        raise ValueError("tl.load has an `other` and no mask: pass mask=offsets < n.")
    where, active = _lanes("load", pointer, mask)
    dtype = pointer.dtype
    anything = {"f": np.nan, "b": True}.get(dtype.kind) or np.iinfo(dtype).max // 3
    values = np.full(where.shape, anything, dtype)
    if other is not None:
        values[...] = _value(other, "`other`")
    values[active] = pointer._array[where[active]]
    _note(launch, "load", pointer, where[active])
    return Block(values)


def store(
    pointer: Pointer, value: Any, mask: Any = None, cache_modifier: str = "", eviction_policy: str = ""
) -> None:
    """Write ``value``, in the array's type, to the elements at ``pointer`` where ``mask`` is True.

    The last two arguments are Triton's, and change nothing here.
    """
    launch = _running("store")
    where, active = _lanes("store", pointer, mask)
    given = _value(value, "What is stored")
    if given.ndim > where.ndim:
        raise ValueError("A block is stored at a single element: add the block of offsets to the pointer.")
    places = where[active]
    pointer._array[places] = np.broadcast_to(given, where.shape).astype(pointer.dtype)[active]
    often = np.unique(places, return_counts=True)
    if (often[1] > 1).any():
        element = int(often[0][often[1] > 1][0])
        launch.races.append(Race(pointer._name, element, (launch.program, launch.program)))
    _note(launch, "store", pointer, places)


def _lanes(kind: str, pointer: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """The index of each lane, and which lanes take part."""
    if not isinstance(pointer, Pointer):
        given = type(pointer).__name__
        raise TypeError(f"tl.{kind} takes a pointer first, such as p_ptr + offsets; this is a {given}.")
    where = pointer._offsets
    active = np.ones(where.shape, bool)
    if mask is not None:
        chosen = _value(mask, "A mask")
        if chosen.dtype != int1:
            raise TypeError(f"Invalid mask: {chosen.dtype}. Allowed: True and False, such as offsets < n.")
        if chosen.ndim > where.ndim:
            raise ValueError("The mask is a block and the pointer is not: add the block of offsets to the pointer.")
        active = np.broadcast_to(chosen, where.shape)
    outside = where[active & ((where < 0) | (where >= len(pointer._array)))]
    if outside.size:
        raise OutOfBounds(kind, pointer._name, len(pointer._array), outside, _running(kind).program)
    return where, active


def _note(launch: _Launch, kind: str, pointer: Pointer, elements: np.ndarray) -> None:
    bytes_moved = elements.size * pointer.dtype.itemsize
    launch.accesses.append(Access(kind, pointer._name, launch.program, elements.reshape(-1), bytes_moved))


def where(condition: Any, x: Any, y: Any) -> Block:
    """``x`` where ``condition`` is True, ``y`` elsewhere; both are worked out everywhere."""
    chosen = _value(condition, "A condition")
    if chosen.dtype != int1:
        raise TypeError(f"Invalid condition of tl.where: {chosen.dtype}. Allowed: True and False, such as x > 0.")
    return Block(np.where(chosen, *_common(x, y)))


def _root(x: np.ndarray) -> np.ndarray:
    if x.dtype not in (float32, float64):
        raise TypeError(f"Invalid argument of tl.sqrt: {x.dtype}. Allowed: float32 and float64, by x.to(tl.float32).")
    return np.sqrt(x)


def sqrt(x: Any) -> Block:
    """The square root of float32 or float64."""
    return Block(_root(_value(x, "The argument of tl.sqrt")))


def abs(x: Any) -> Block:
    """The absolute value."""
    return Block(np.abs(_value(x, "The argument of tl.abs")))


def maximum(x: Any, y: Any) -> Block:
    """The larger of two, element by element; beside a NaN the other one."""
    return Block(np.fmax(*_common(x, y)))


def minimum(x: Any, y: Any) -> Block:
    """The smaller of two, element by element; beside a NaN the other one."""
    return Block(np.fmin(*_common(x, y)))


def zeros(shape: tuple[int, ...] | list[int], dtype: np.dtype) -> Block:
    """A block of zeros."""
    return Block(np.zeros(shape, _running("zeros").wide(np.dtype(dtype))))


def cdiv(x: Any, div: Any) -> Any:
    """How many blocks of ``div`` cover ``x``: the quotient, rounded up. In a kernel and outside of it."""
    return (x + div - 1) // div
