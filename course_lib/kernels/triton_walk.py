"""What the Triton optimizers share: one kernel that walks over many tensors, and its host side.

An optimizer of this family is a *rule*, a short function that loads, computes and stores one block of elements
(:mod:`~course_lib.kernels.triton_adamw`, :mod:`~course_lib.kernels.triton_lion`,
:mod:`~course_lib.kernels.triton_sgd`). All else is here: :func:`walk`, the kernel that finds the block and calls the
rule, and :class:`TritonWalk`, which prepares the tensors, tells the kernel where they are, and refuses what it
cannot do. What changes from one optimizer to the next is the rule and the bytes that it moves per float32 parameter:

========================  ==================  ===============  =====
optimizer                 read                written          bytes
========================  ==================  ===============  =====
AdamW                     p, g, m, v          p, m, v             28
Lion                      p, g, m             p, m                20
SGD with momentum         p, g, buffer        p, buffer           20
SGD                       p, g                p                   12
========================  ==================  ===============  =====

With bfloat16 parameters and gradients, and state that stays float32, these are 22, 14, 14 and 6.

The kernels are compiled for CUDA. Without a CUDA device, or with ``TRITON_INTERPRET=1`` in the environment, the same
source runs on CPU tensors through Triton's interpreter: slow, for tests. Importing this module needs no Triton; only
constructing an optimizer does.

Sources: Tillet et al. 2019 (MAPL, "Triton: an intermediate language and compiler for tiled neural network
computations"); the table of addresses is the idea of Apex's and torch's multi_tensor_apply, and of Triton's tutorial
on grouped matrix products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from course_lib.optim.base import ScratchOptimizer

try:
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction
except ImportError:
    triton = tl = None

BLOCK = 1024
"""Elements a program updates on a GPU: 8 a thread, which are two loads of 16 bytes for each float32 tensor."""

INTERPRETED_BLOCK = 16384
"""Elements a program updates in the interpreter, where programs run in turn, each at a high fixed cost."""

WARPS = 4
"""Groups of 32 threads in a program."""

ALIGNMENT = 16
"""Bytes that one load or store of a thread moves at most; only from an address that is a multiple of it."""

WALKABLE = (torch.float32, torch.bfloat16)
"""What parameters and gradients may be."""

PLANS_KEPT = 32
"""Tables of addresses that an optimizer keeps, the oldest of which makes way."""


if triton is None:

    def kernel(function: Callable, interpreted: Callable | None = None) -> Callable:
        """Leave ``function`` as it is: without Triton it is there to be read."""
        return function

else:

    def _name(specialization: Any) -> str:
        """What a profile calls the kernel: ``walk_adamw`` and not ``walk`` for all."""
        return f"walk_{specialization.constants['RULE'].__name__}"

    class Kernel(JITFunction):
        """A Triton function that can be compiled, interpreted, and called by others of its kind in both ways.

        ``triton.jit`` fixes one of the two for the whole process when it decorates. Here each launch chooses.
        ``interpreted`` stands in for a function that the interpreter gets wrong.
        """

        def __init__(self, function: Callable, interpreted: Callable | None = None) -> None:
            super().__init__(function, repr=_name)
            self.interpreted = InterpretedFunction(interpreted or function)

        def __call__(self, *args: Any) -> Any:
            # Only the interpreter gets here: the compiler inlines what a kernel calls. InterpretedFunction's own
            # __call__ would replace triton.language's functions once more, and not put them back.
            return self.interpreted.rewrite()(*args)

    def kernel(function: Callable, interpreted: Callable | None = None) -> Kernel:
        """Decorate a Triton function: see :class:`Kernel`."""
        return Kernel(function, interpreted)


@kernel
def walk(
    table, owner, factor_at, factor, hyper,
    RULE: tl.constexpr, P: tl.constexpr, G: tl.constexpr,
    POINTERS: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):
    """Kernel: program i finds the tensor that owns block i, and applies ``RULE`` to this block of it.

    Args:
        table: int64, a row per tensor: POINTERS addresses, its number of elements, the first block that is its own.
        owner: int32, the row of ``table`` that each block belongs to.
        factor_at: address of a float32 that every gradient is multiplied by too, or None.
        factor: float32 that every gradient is multiplied by.
        hyper: float32 hyper-parameters, as the rule takes them.
        P, G: element types of parameters and gradients.
        ALIGNED: whether every address is a multiple of 16 bytes.
    """
    block = tl.program_id(0)
    row = table + tl.load(owner + block) * (POINTERS + 2)
    size = tl.load(row + POINTERS)
    start = (block - tl.load(row + POINTERS + 1)) * BLOCK  # int64, as the table is: 2**31 elements are not the end
    offsets = start + tl.arange(0, BLOCK)
    if factor_at is not None:
        factor = factor * tl.load(factor_at)
    # A mask whose end is unknown keeps the compiler from loading 16 bytes at once, so only a last block has one.
    if start + BLOCK <= size:
        RULE(row, offsets, None, factor, hyper, P, G, ALIGNED)
    else:
        RULE(row, offsets, offsets < size, factor, hyper, P, G, ALIGNED)


@kernel
def column(row, COLUMN: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """The address in one column of a row of the table, as a pointer to elements of ``TYPE``."""
    address = tl.load(row + COLUMN).to(tl.pointer_type(TYPE))
    if ALIGNED:
        # Four elements, so that bfloat16 and float32 are split among the threads alike and none changes hands.
        address = tl.multiple_of(address, 4 * TYPE.primitive_bitwidth // 8)
    return address


def _rounded_by_hand(x, TYPE):
    if TYPE == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, nearest.to(tl.float32, bitcast=True), x)
    return x.to(TYPE)


def _rounded(x, TYPE: tl.constexpr):
    """The float32 ``x`` as the nearest of ``TYPE``, ties to even."""
    return x.to(TYPE)


# On the GPU one instruction. Triton's interpreter cuts the last 16 bits off where it should round.
rounded = kernel(_rounded, interpreted=_rounded_by_hand)


def unavailable(device: torch.device | str | None = None) -> str | None:
    """Why the Triton optimizers cannot run on ``device``, as a sentence for a menu; None where they can.

    Args:
        device: where the parameters live; by default CUDA if there is one, else the CPU.
    """
    if triton is None:
        return "Triton is not installed. On Linux: pip install 'course_lib[kernels]'."
    cuda = torch.cuda.is_available()
    kind = torch.device(device if device is not None else "cuda" if cuda else "cpu").type
    interpret = triton.knobs.runtime.interpret
    if kind == "cuda" and not cuda:
        return "There is no CUDA device here; on the CPU Triton's kernels run under its interpreter, slow, for tests."
    if kind == "cuda" and interpret:
        return "TRITON_INTERPRET=1 chooses Triton's interpreter, which runs on the CPU: unset it to use the GPU."
    if kind == "cpu" and cuda and not interpret:
        return (
            "Triton runs on CUDA, or on the CPU under its interpreter, slow, for tests: move the parameters to the "
            "GPU, or set TRITON_INTERPRET=1 before Python starts."
        )
    if kind not in ("cuda", "cpu"):
        return f"Triton runs on CUDA, or on the CPU under its interpreter, slow, for tests; not on {kind}."
    return None


@dataclass(frozen=True)
class Table:
    """Where the tensors of one launch are, on their device: the first two arguments of :func:`walk`."""

    rows: Tensor
    owner: Tensor
    block: int

    @property
    def pointers(self) -> int:
        """How many addresses a row holds."""
        return self.rows.shape[1] - 2

    @property
    def programs(self) -> int:
        """How many blocks there are, and so programs to launch."""
        return self.owner.numel()


def tabulate(addresses: list[tuple[int, ...]], sizes: list[int], block: int, device: torch.device) -> Table:
    """Number the blocks of several tensors through, and note where each tensor is.

    The map costs 4 bytes a block: at 1024 elements a block 0.004 bytes a parameter.

    Args:
        addresses: a tuple per tensor: where its parameter, its gradient and each of its states begin.
        sizes: elements of each tensor, >= 1.
        block: elements a program updates.
        device: where the table goes; without waiting for the device.
    """
    counts = [-(-size // block) for size in sizes]
    rows, first = [], 0
    for pointers, size, count in zip(addresses, sizes, counts, strict=True):
        rows.append((*pointers, size, first))
        first += count
    rows, counts = (_send(torch.tensor(numbers, dtype=torch.int64), device) for numbers in (rows, counts))
    return Table(rows, torch.repeat_interleave(counts, output_size=first).to(torch.int32), block)


class Launch(NamedTuple):
    """One launch: what its tensors have in common, and where they are."""

    param: torch.dtype
    grad: torch.dtype
    aligned: bool
    table: Table


class Copied(NamedTuple):
    """A parameter of which something had to be laid out anew, and what the kernel updates and reads instead."""

    param: Tensor
    updated: Tensor
    grad: Tensor


class Plan(NamedTuple):
    """What a step does with a set of parameters; good for the next step too, if nothing was copied."""

    launches: list[Launch]
    copied: list[Copied]


class TritonWalk(ScratchOptimizer):
    """The host side of a Triton optimizer, to be mixed in before the course's class: ``class X(TritonWalk, AdamW)``.

    A subclass says what it keeps of a parameter (:meth:`remembered`), which rule applies (:meth:`rule`), what sets
    the numbers of one parameter apart from another's (:meth:`phase`), and the numbers themselves (:meth:`hyper`).

    Parameters and gradients are float32 or bfloat16, all on one device; state is float32 whatever the parameter.
    A step is one launch for all tensors of a group that share dtypes, alignment and phase. Any strides are handled.
    A parameter whose memory has gaps is copied out and back, and a gradient laid out otherwise than its
    parameter is copied: correct, but more bytes than the table above says.

    A step under CUDA graph capture is refused: the step count lives on the host, and a replay would repeat one step.

    Raises:
        ModuleNotFoundError: Triton is not installed.
        RuntimeError: Triton cannot run where the parameters are (:func:`unavailable`).
        TypeError: a parameter or a gradient is neither float32 nor bfloat16.
        ValueError: the parameters are on several devices, or one overlaps itself in memory (an expanded tensor).
    """

    _checked: torch.device | None = None  # where the parameters were found, and Triton able to run
    _asked: float | Tensor | None = None
    _factor: tuple[float, Tensor | None] = (1.0, None)

    def remembered(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the state tensors, in the order of the table's columns."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it remembers")

    def rule(self, group: dict[str, Any]) -> Callable:
        """The Triton function that updates one block."""
        raise NotImplementedError(f"{type(self).__name__} does not name its rule")

    def phase(self, param: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Hashable:
        """What the hyper-parameters of one parameter depend on besides its group; None where they are the same.

        Asked before the state is read, so a rule whose state begins late may make it here.
        """
        return None

    def hyper(self, group: dict[str, Any], phase: Hashable) -> tuple[float, ...]:
        """The numbers that the rule takes, worked out in float64."""
        raise NotImplementedError(f"{type(self).__name__} does not give its hyper-parameters")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as in torch.optim; refuse one that the kernel cannot walk."""
        super().add_param_group(param_group)
        try:
            self._require_params()
        except Exception:
            self.param_groups.pop()
            raise

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        return {name: float32_zeros(param) for name in self.remembered(group)}

    @torch.no_grad()
    def step(
        self, closure: Callable[[], Any] | None = None, *, grad_factor: float | Tensor | None = None
    ) -> Any:
        """Update every parameter that has a gradient; return what ``closure`` returned, else None.

        Args:
            closure: recomputes the loss, as in torch.optim.
            grad_factor: every gradient is multiplied by it in registers, with no pass of its own: 1 / loss scale, a
                clipping factor, or their product. A tensor of no dimensions stays on its device, and nothing waits
                for it. The gradients themselves are left as they are.

        Raises:
            RuntimeError: a gradient is sparse or complex, or a CUDA graph is being captured.
            TypeError: a dtype is not supported, or ``grad_factor`` is no number.
            ValueError: ``grad_factor`` is a tensor with dimensions or on another device than the parameters, or a
                number larger than a float can be.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._asked = grad_factor
        # Not super().step: torch puts its hooks around the step of each class that was ever constructed, so those
        # of a plain AdamW would run a second time.
        self.require_ready()
        self.update_groups()
        return loss

    def require_ready(self) -> None:
        """Raise unless the kernel can walk over all parameters and gradients; nothing was changed so far."""
        self._require_params()
        on_cuda = self._checked is not None and self._checked.type == "cuda"
        if on_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{type(self).__name__}.step cannot be captured in a CUDA graph: it counts steps on the host, and a "
                "replay would repeat one step. Capture torch.optim's with capturable=True."
            )
        for group in self.param_groups:
            for param in group["params"]:
                grad = param.grad
                if grad is not None and (grad.dtype not in WALKABLE or grad.layout is not torch.strided):
                    self._require_dense_real(param)
                    self._require_dtype("gradient", grad)
        self._factor = self._require_factor(self._asked)

    def update_all(self, entries: list[tuple[Tensor, Tensor, dict[str, Any]]], group: dict[str, Any]) -> None:
        names = self.remembered(group)
        phases: dict[Hashable, list[tuple[Tensor, Tensor, dict[str, Any]]]] = {}
        for entry in entries:
            phases.setdefault(self.phase(entry[0], entry[2], group), []).append(entry)
        for phase, members in phases.items():
            plan = self._plan(members, names)
            for launch in plan.launches:
                self._launch(group, phase, launch)
            for param, updated, _ in plan.copied:
                if updated is not param:
                    param.copy_(updated)
        # The kernels wrote behind torch's back: a backward pass through the old values must fail, not use the new.
        torch.autograd.graph.increment_version([param for param, _, _ in entries])

    def _plan(self, entries: list[tuple[Tensor, Tensor, dict[str, Any]]], names: tuple[str, ...]) -> Plan:
        """What to launch for these parameters.

        A plan is made anew only where an address, a size, a dtype or a layout is not what it was; the last few are
        kept, as gradients often come back to addresses that they had before. Asking is all that most steps do here,
        a microsecond or two for each tensor, and a fast kernel waits for it.
        """
        key = tuple([
            (
                param.data_ptr(), grad.data_ptr(), param.numel(), param.dtype, grad.dtype,
                None if param.is_contiguous() and grad.is_contiguous() else (param.stride(), grad.stride()),
                *[state[name].data_ptr() for name in names],
            )
            for param, grad, state in entries
        ])
        plans = self.__dict__.setdefault("_plans", {})  # a copy of the optimizer starts without
        if key in plans:
            return plans[key]
        plan = self._make_plan(entries, names)
        if not plan.copied:
            if len(plans) == PLANS_KEPT:
                del plans[next(iter(plans))]
            plans[key] = plan
        return plan

    def _make_plan(self, entries: list[tuple[Tensor, Tensor, dict[str, Any]]], names: tuple[str, ...]) -> Plan:
        sets: dict[tuple, tuple[list[tuple[int, ...]], list[int]]] = {}
        copied: list[Copied] = []
        for param, grad, state in entries:
            if param.numel() == 0:
                continue
            own = [param, grad, *self._states(param, state, names)]
            tensors = _alike(own)
            if any(used is not given for used, given in zip(tensors, own, strict=True)):
                state.update(zip(names, tensors[2:], strict=True))
                copied.append(Copied(param, *tensors[:2]))
            addresses = tuple(tensor.data_ptr() for tensor in tensors)
            if 0 in addresses:
                raise RuntimeError(
                    f"{type(self).__name__} needs the memory of every tensor: the parameter {_describe(param)}, its "
                    f"gradient or its state is a {type(param).__name__} without. Pass plain tensors, such as the "
                    "local part of a distributed one."
                )
            aligned = not any(address % ALIGNMENT for address in addresses)
            rows, sizes = sets.setdefault((param.dtype, grad.dtype, aligned), ([], []))
            rows.append(addresses)
            sizes.append(param.numel())
        block = INTERPRETED_BLOCK if self._checked.type == "cpu" else BLOCK
        launches = [
            Launch(*common, tabulate(rows, sizes, block, self._checked)) for common, (rows, sizes) in sets.items()
        ]
        return Plan(launches, copied)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class, of the course's or of torch.optim's; state becomes float32, exactly.

        torch's own loading rounds state to the parameter's dtype: bfloat16 moments would keep 8 bits.
        The state is copied, so that two optimizers never share one.

        Raises:
            ValueError or TypeError: as torch.optim's, or a hyper-parameter in ``state_dict`` is out of its range.
        """
        loaded: dict[str, Any] = {}

        def note(_: torch.optim.Optimizer, given: dict[str, Any]) -> None:
            for group in given["param_groups"]:
                self.validate(self.defaults | group)
            loaded.update(given)

        # As hooks, after the user's own that may replace the dict, and before those that look at the result.
        hooks = [
            self.register_load_state_dict_pre_hook(note),
            self.register_load_state_dict_post_hook(lambda _: self._restore(loaded), prepend=True),
        ]
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _restore(self, loaded: dict[str, Any]) -> None:
        for group, given in zip(self.param_groups, loaded["param_groups"], strict=True):
            for param, number in zip(group["params"], given["params"], strict=True):
                for name, value in loaded["state"].get(number, {}).items():
                    if name != "step" and isinstance(value, Tensor) and value.shape == param.shape:
                        self.state[param][name] = float32_zeros(param).copy_(value)

    def _states(self, param: Tensor, state: dict[str, Any], names: tuple[str, ...]) -> list[Tensor]:
        """The state tensors of ``param``, which were checked to be what the kernel takes them for."""
        tensors = [state[name] for name in names]
        for name, tensor in zip(names, tensors, strict=True):
            if tensor.dtype is not torch.float32 or tensor.device != param.device or tensor.shape != param.shape:
                raise RuntimeError(
                    f"Invalid state {name!r}: {_describe(tensor)}, for a parameter {_describe(param)}. Allowed: "
                    "torch.float32 of the parameter's shape and device. Load it with load_state_dict, after the "
                    "parameters were moved."
                )
        return tensors

    def _launch(self, group: dict[str, Any], phase: Hashable, launch: Launch) -> None:
        param, grad, aligned, table = launch
        scale, scale_at = self._factor
        interpreted = self._checked.type == "cpu"
        start = walk.interpreted if interpreted else walk
        with contextlib.nullcontext() if interpreted else torch.cuda.device(self._checked):
            start[(table.programs,)](
                table.rows, table.owner, scale_at, -scale if group["maximize"] else scale, self.hyper(group, phase),
                RULE=self.rule(group), P=_element(param), G=_element(grad), POINTERS=table.pointers,
                ALIGNED=aligned, BLOCK=table.block, num_warps=WARPS,
            )

    def _require_params(self) -> None:
        """Raise unless every parameter is one that the kernel can update."""
        params = [param for group in self.param_groups for param in group["params"]]
        if not params:
            return
        device = params[0].device
        for param in params:
            if param.dtype not in WALKABLE:
                self._require_dtype("parameter", param)
            if param.device != device:
                raise ValueError(
                    f"Invalid parameters: they are on {device} and on {param.device}. Allowed: one device; make an "
                    "optimizer for each."
                )
            if not param.is_contiguous():
                _require_no_overlap(param)
        if self._checked != device:
            reason = unavailable(device)
            if reason is not None:
                raise (ModuleNotFoundError if triton is None else RuntimeError)(f"{type(self).__name__}: {reason}")
            self._checked = device

    def _require_dtype(self, role: str, tensor: Tensor) -> None:
        if tensor.dtype not in WALKABLE:
            raise TypeError(
                f"Invalid {role} of {type(self).__name__}: {tensor.dtype}, of shape {tuple(tensor.shape)}. "
                f"Allowed: torch.float32 or torch.bfloat16; use course_lib.optim.{_course_class(self)} for others."
            )

    def _require_factor(self, factor: float | Tensor | None) -> tuple[float, Tensor | None]:
        """``grad_factor`` as a number, and a float32 tensor on the device where it is one."""
        if factor is None:
            return 1.0, None
        if isinstance(factor, Tensor) and factor.is_floating_point():
            if factor.dim() != 0 or factor.device != self._checked:
                raise ValueError(
                    f"Invalid grad_factor: a tensor {_describe(factor)}. Allowed: a float, or a tensor of no "
                    f"dimensions on {self._checked}, where the parameters are."
                )
            return 1.0, factor.detach().to(torch.float32)
        if isinstance(factor, bool) or not isinstance(factor, Real):
            raise TypeError(
                f"Invalid grad_factor: {factor!r} is a {type(factor).__name__}. Allowed: a float, or a "
                "floating-point tensor of no dimensions."
            )
        try:
            return float(factor), None
        except OverflowError:
            raise ValueError(
                "Invalid grad_factor: a number too large for a float, which ends at 1.8e308. Allowed: a float, or a "
                "floating-point tensor of no dimensions."
            ) from None


def float32_zeros(param: Tensor) -> Tensor:
    """Zeros of the shape of ``param``, in float32, in the order of its elements in memory, without its gaps."""
    return torch.zeros_like(param, dtype=torch.float32, memory_format=torch.preserve_format)


def _alike(tensors: list[Tensor]) -> list[Tensor]:
    """The parameter and what belongs to it, all without gaps and in one order; copied only where they are not."""
    if all(tensor.is_contiguous() for tensor in tensors):
        return tensors
    param = tensors[0]
    # preserve_format keeps the strides of exactly those tensors that have no gap and no overlap.
    if torch.empty_like(param, device="meta").stride() != param.stride():
        param = torch.empty_like(param).copy_(param)
    return [param] + [
        tensor if tensor.stride() == param.stride() else torch.empty_like(param, dtype=tensor.dtype).copy_(tensor)
        for tensor in tensors[1:]
    ]


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _element(dtype: torch.dtype) -> Any:
    return tl.float32 if dtype is torch.float32 else tl.bfloat16


def _require_no_overlap(param: Tensor) -> None:
    if any(step == 0 and length > 1 for step, length in zip(param.stride(), param.shape, strict=True)):
        raise ValueError(
            f"Invalid parameter {_describe(param)}: several of its elements share one place in memory (strides "
            f"{param.stride()}). Allowed: each its own; pass param.clone()."
        )


def _describe(tensor: Tensor) -> str:
    return f"of shape {tuple(tensor.shape)}, {tensor.dtype}, on {tensor.device}"


def _course_class(optimizer: ScratchOptimizer) -> str:
    return next(
        base.__name__ for base in type(optimizer).__mro__ if base.__module__.startswith("course_lib.optim.")
    )
