"""The least time that work can take on a machine: its launches, its bytes or its arithmetic, whichever takes longest.

The roofline model (Williams, Waterman & Patterson 2009, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures", doi 10.1145/1498765.1498785), with the time of launching kernels beside it. Plain numbers:
bytes, seconds, FLOP (floating-point operations; an addition, a product, a division and a root are one each).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from course_lib.memory.arguments import real

REGIMES = ("launch", "bandwidth", "compute")
"""What can take the longest: launching kernels, moving bytes, computing."""


@dataclass(frozen=True)
class Machine:
    """A processor or GPU as the roofline sees it.

    Attributes:
        name: as one writes it.
        bandwidth: of its memory, bytes a second, read and written bytes together.
        flops: FLOP a second by the dtype of the arithmetic, dense: "float32" is that of single elements (no tensor
            cores), "tf32", "bfloat16" and "float16" that of matrix products with such inputs.
        source: an address of the vendor, or how it was measured.
        measured: whether it was measured, else it is what a vendor says.

    Raises:
        ValueError: a number is not finite and > 0, or there is no peak at all.
    """

    name: str
    bandwidth: float
    flops: Mapping[str, float]
    source: str
    measured: bool = False

    def __post_init__(self) -> None:
        real("bandwidth", self.bandwidth, above=True)
        if not self.flops:
            raise ValueError("Invalid flops: no peak. Allowed: FLOP/s by dtype, as {'float32': 67e12}.")
        for dtype, rate in self.flops.items():
            real(f"flops[{dtype!r}]", rate, above=True)
        object.__setattr__(self, "flops", MappingProxyType(dict(self.flops)))

    def peak(self, dtype: str) -> float:
        """FLOP a second with this dtype.

        Raises:
            ValueError: none is known for it.
        """
        if dtype not in self.flops:
            raise ValueError(f"Invalid dtype: {dtype!r}. Allowed for {self.name}: {', '.join(self.flops)}.")
        return self.flops[dtype]

    def ridge(self, dtype: str = "float32") -> float:
        """FLOP a byte at which moving and computing take equally long; with fewer the bytes take longer."""
        return self.peak(dtype) / self.bandwidth


_TENSOR = ("bfloat16", "float16")
_HOPPER = {"float32": 67e12, "tf32": 494e12} | dict.fromkeys(_TENSOR, 989e12)
_NVIDIA = "https://www.nvidia.com/en-us/data-center/"

DATASHEETS: Mapping[str, Machine] = MappingProxyType({
    "t4": Machine("T4", 320e9, {"float32": 8.1e12, "float16": 65e12}, f"{_NVIDIA}tesla-t4/"),
    "l4": Machine("L4", 300e9, {"float32": 30.3e12, "tf32": 60e12} | dict.fromkeys(_TENSOR, 121e12), f"{_NVIDIA}l4/"),
    "a100-80": Machine(
        "A100 80 GB SXM", 2.039e12, {"float32": 19.5e12, "tf32": 156e12} | dict.fromkeys(_TENSOR, 312e12),
        "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
        "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    ),
    "h100": Machine("H100 SXM", 3.35e12, _HOPPER, f"{_NVIDIA}h100/"),
    "h200": Machine("H200 SXM", 4.8e12, _HOPPER, f"{_NVIDIA}h200/"),
    "b200": Machine(
        "B200", 8e12, {"float32": 80e12} | dict.fromkeys(_TENSOR, 2.25e15),
        "https://resources.nvidia.com/en-us-blackwell-architecture",
    ),
})  # fmt: skip
"""What NVIDIA says of its cards: bandwidth, and dense peaks. Where a page gives the rate with sparsity, half of it.

Keys are those of ``course_lib.memory.cards``. The T4's tensor cores know no bfloat16. B200: as in an HGX B200.
"""


@dataclass(frozen=True)
class Work:
    """What has to be done, however well it is done.

    Attributes:
        bytes: read and written in the machine's memory.
        flops: floating-point operations.
        launches: kernels.
        dtype: of the arithmetic, a key of :attr:`Machine.flops`.
    """

    bytes: float
    flops: float
    launches: float = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("bytes", "flops", "launches"):
            real(name, getattr(self, name))

    @property
    def intensity(self) -> float:
        """FLOP a byte; infinite where nothing is moved, NaN where there is nothing to do at all."""
        if self.bytes:
            return self.flops / self.bytes
        return math.inf if self.flops else math.nan

    def __add__(self, other: Work) -> Work:
        """Both, one after the other, as one piece of work. Raises ValueError if their dtypes differ."""
        if not isinstance(other, Work):
            return NotImplemented
        if self.dtype != other.dtype:
            raise ValueError(f"Invalid dtypes: {self.dtype} and {other.dtype}. Allowed: one; each has its own peak.")
        return Work(self.bytes + other.bytes, self.flops + other.flops, self.launches + other.launches, self.dtype)


@dataclass(frozen=True)
class Bound:
    """The least seconds that work can take, and what takes so long: one of ``REGIMES``."""

    seconds: float
    regime: str


FLOPS: Mapping[str, Mapping[str, int]] = MappingProxyType({
    "sgd": {"weight": 2},  # lr * g, subtracted
    "momentum": {"buffer": 2, "weight": 2},  # mu * b + g
    "nesterov": {"buffer": 2, "look ahead": 2, "weight": 2},
    "adagrad": {"sum of squares": 2, "root, eps": 2, "weight": 3},  # lr * (g / root), subtracted
    "rmsprop": {"v": 4, "root, eps": 2, "weight": 3},  # v: a * v + (1 - a) * g * g
    "adam": {"m": 3, "v": 4, "root, correction, eps": 3, "weight": 3},  # m: m + (1 - b1) * (g - m)
    "amsgrad": {"m": 3, "v": 4, "maximum": 1, "root, correction, eps": 3, "weight": 3},
    "adamw": {"decay": 1, "m": 3, "v": 4, "root, correction, eps": 3, "weight": 3},
    "lion": {"direction": 3, "sign": 1, "decay": 1, "weight": 2, "m": 3},
})
"""FLOP of one parameter's step, by what they are for: the rules of ``course_lib.optim`` with default options."""

_MUON = 12
"""The same for Muon beside Newton-Schulz: buffer 3, look-ahead 3, norm 2, division 1, decay 1, weight 2."""


def product(rows: int, inner: int, columns: int, itemsize: int = 2, dtype: str = "bfloat16") -> Work:
    """One matrix product, (rows, inner) by (inner, columns).

    2 * rows * inner * columns FLOP: a product and a sum for each of inner terms of each result. Bytes: both inputs
    are read and the result is written, once. So for three n x n matrices of 2 bytes the intensity is
    2 n^3 / (3 n^2 * 2) = n / 3.

    Args:
        itemsize: bytes of an element of all three.
        dtype: whose peak counts.
    """
    moved = rows * inner + inner * columns + rows * columns
    return Work(itemsize * moved, 2 * rows * inner * columns, 1, dtype)


def newton_schulz(rows: int, columns: int, steps: int = 5) -> Work:
    """Muon's Newton-Schulz iteration on one matrix, in bfloat16 (:func:`course_lib.optim.muon.newton_schulz`).

    With s the shorter side and l the longer one, a step is three products: A = X X^T, (s, l) by (l, s); b A + c A A,
    (s, s) by (s, s); and that times X, (s, s) by (s, l). Together 4 s^2 l + 2 s^3 FLOP, which is 6 n^3 for a square;
    five steps are 30 n^3. The scaled matrices that are added cost next to nothing and are counted as free.
    """
    short, long = sorted((rows, columns))
    each = product(short, long, short) + product(short, short, short) + product(short, short, long)
    return Work(steps * each.bytes, steps * each.flops, steps * each.launches, each.dtype)


def work(
    optimizer: str,
    shapes: Iterable[Sequence[int]],
    *,
    param: int = 4,
    grad: int | None = None,
    state: float | None = None,
    master: int = 0,
    moved: float | None = None,
    launches: float | None = None,
) -> Work:
    """What one step over such parameters takes at least.

    Bytes are those of :func:`course_lib.kernels.traffic.least_bytes`, FLOP those of ``FLOPS``, in float32 whatever
    the parameter's dtype.

    Muon: matrices take :func:`newton_schulz` besides, and the matrix that goes in and comes out of it is written and
    read once more in bfloat16; tensors of other dimensions go by AdamW, as they do in the course's Muon. All of its
    arithmetic is counted at bfloat16's peak: what belongs to single elements is a few parts in a thousand.

    Args:
        optimizer: one of ``FLOPS``, or "muon".
        shapes: of the parameters.
        param, grad, master: bytes of one element, as ``least_bytes`` takes them.
        state: bytes of all state for each parameter, as it takes them too.
        moved: bytes for each parameter that an implementation really moves, instead of the least; not for Muon.
        launches: kernels of a step; by default the fewest: one, and for Muon 2 + 15 for each matrix.

    Raises:
        ValueError: another optimizer, or a number that is none.
    """
    from course_lib.kernels.traffic import least_bytes

    if optimizer not in FLOPS and optimizer != "muon":
        raise ValueError(f"Invalid optimizer: {optimizer!r}. Allowed: {', '.join(FLOPS)}, muon.")
    sizes = {"param": param, "grad": grad, "state": state, "master": master}
    shapes = [tuple(shape) for shape in shapes]
    if optimizer == "muon":
        if moved is not None:
            raise ValueError(f"Invalid moved: {moved!r}. Allowed for muon: None; its products move what they move.")
        return _muon(shapes, sizes, launches)
    count = sum(map(math.prod, shapes))
    each = least_bytes(optimizer, **sizes).total if moved is None else moved
    return Work(count * each, count * sum(FLOPS[optimizer].values()), 1 if launches is None else launches)


def _muon(shapes: list[tuple[int, ...]], sizes: Mapping[str, float | None], launches: float | None) -> Work:
    from course_lib.kernels.traffic import least_bytes

    matrices = [shape for shape in shapes if len(shape) == 2]
    others = sum(math.prod(shape) for shape in shapes if len(shape) != 2)
    inside = sum(map(math.prod, matrices))
    total = Work(
        inside * (least_bytes("muon", **sizes).total + 2 + 2) + others * least_bytes("adamw", **sizes).total,
        inside * _MUON + others * sum(FLOPS["adamw"].values()), 2 * len(matrices) + (others > 0), "bfloat16",
    )  # fmt: skip
    for shape in matrices:
        total += newton_schulz(*shape)
    return total if launches is None else Work(total.bytes, total.flops, launches, total.dtype)


def bound(work: Work, machine: Machine, launch_seconds: float = 0.0) -> Bound:
    """The longest of launches, bytes / bandwidth and FLOP / peak: no implementation of this work is faster.

    Overlapping all three is what a perfect one does. Kernels that wait for each other take at least the sum of
    their own bounds, which may be more.

    Args:
        launch_seconds: what launching one kernel takes, >= 0; some microseconds on CUDA.

    Raises:
        ValueError: ``launch_seconds`` is none, or the machine has no peak for the work's dtype.
    """
    real("launch_seconds", launch_seconds)
    times = (
        work.launches * launch_seconds,
        work.bytes / machine.bandwidth,
        work.flops / machine.peak(work.dtype) if work.flops else 0.0,
    )
    longest = max(range(len(REGIMES)), key=lambda index: (times[index], index == 1))
    return Bound(times[longest], REGIMES[longest])


def crossing(bytes_per_element: float, machine: Machine, launch_seconds: float, launches: float = 1) -> float:
    """Elements of a tensor for which launching takes as long as moving its bytes; with fewer, launches take longer.

    Args:
        bytes_per_element: that a step moves, > 0.
        launch_seconds: what launching one kernel takes, >= 0.
        launches: kernels for each tensor, >= 0.

    Raises:
        ValueError: a number is out of its range.
    """
    real("bytes_per_element", bytes_per_element, above=True)
    real("launch_seconds", launch_seconds)
    real("launches", launches)
    return launches * launch_seconds * machine.bandwidth / bytes_per_element


def measure_machine(device: object = None) -> Machine:
    """The device at hand: its memory's bandwidth, and the rate of large matrix products. It takes some seconds.

    The bandwidth is that of the faster of a copy and a multiplication in place; each reads a buffer and writes one. On
    a CPU a copy may be the slower one: a line that is written without having been read is read first, which makes 12
    bytes of what counts as 8. Buffers are larger than the caches: 2^28 bytes each on a CPU, 2^30 or an eighth of the
    free memory on a GPU. Products are n x n, n being 1024 on a CPU and 8192 on a GPU, float32 by torch's present
    setting for such products. Medians.

    Args:
        device: as torch names it; by default CUDA if there is one.

    Raises:
        torch.OutOfMemoryError: there is no room for the buffers.
    """
    import torch

    from course_lib.kernels.bench import describe_device, step_times

    device = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    size = min(2**30, torch.cuda.mem_get_info(device)[0] // 8) if cuda else 2**28
    # Filled: pages that were never written to are read from one page of zeros, which is in the cache.
    pair = [torch.full((size // 4,), value, device=device) for value in (1.0, 0.0)]
    ways = {"copy": lambda: pair[0].copy_(pair[1]), "multiply in place": lambda: pair[0].mul_(1.0)}
    times = step_times(ways, 7, 2, device)
    fastest = min(times, key=lambda name: times[name])
    pair.clear()
    side = 8192 if cuda else 1024
    peaks = {}
    for name in ("float32", *_TENSOR) if cuda else ("float32", "bfloat16"):
        left, right = (torch.full((side, side), 0.5, device=device, dtype=getattr(torch, name)) for _ in range(2))
        seconds = step_times({name: lambda a=left, b=right: a @ b}, 3, 1, device)[name]
        peaks[name] = 2 * side**3 / seconds
    return Machine(describe_device(device).partition(",")[0], 2 * size / times[fastest], peaks,
                   f"measured: {fastest}, {size:,} bytes, products of {side} x {side} matrices", measured=True)
