"""What tensors really hold while a model trains: every storage, from the operation that made it to its end.

A :class:`torch.utils._python_dispatch.TorchDispatchMode` sees each operation below autograd, so also those of the
backward pass and of the optimizer. What it cannot see is memory that a kernel takes and gives back inside one
operation: the tiles of a flash attention, a matrix multiplication's workspace. On CUDA :attr:`Timeline.cuda_peak` has
it. The allocator's rounding (to 512 bytes on CUDA) and its fragmentation are left out too: these are bytes asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.memory.storages import count_storages
from course_lib.memory.timeline import CATEGORIES, Holding, Timeline

__all__ = ["CATEGORIES", "Holding", "Timeline", "fake", "measure", "model_state", "step_extra"]


def fake() -> FakeTensorMode:
    """A context in which tensors have shapes, dtypes and bytes and no data: a model of any size costs nothing.

    Build the model in it, in its final dtype (``model.to(dtype)`` fails there), and its optimizer and batches, and
    call :func:`measure` in it. Values are unknown, so code that branches on them raises.
    """
    return FakeTensorMode()


class _Recorder(TorchDispatchMode):
    """Notes every storage that an operation returns, and the moment its last reference goes."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__()
        self.timeline = timeline
        self._alive: dict[int, tuple[int, weakref.finalize]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.add(tensor, str(func))
        return out

    def add(self, tensor: Tensor, made_by: str) -> None:
        if tensor.layout is not torch.strided:
            return
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._alive or not nbytes:
            return
        index = len(self.timeline._holdings)
        self.timeline._holdings.append(Holding(nbytes, made_by, tuple(tensor.shape), tensor.dtype))
        self.timeline._events.append((index, 1))
        # The Python object of a storage lives as long as the storage, whoever else holds it.
        end = weakref.finalize(storage, self._drop, key)
        end.atexit = False
        self._alive[key] = (index, end)

    def _drop(self, key: int) -> None:
        index, _ = self._alive.pop(key)
        self.timeline._events.append((index, -1))

    def let_go(self, tensors: Iterable[Tensor]) -> None:
        """Count the tensors no longer, though the caller still has them."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key in self._alive:
                self._alive[key][1].detach()
                self._drop(key)

    def name(self, tensors: Iterable[Tensor], category: str) -> None:
        """Say what these tensors have been since they were made."""
        for tensor in tensors:
            entry = self._alive.get(tensor.untyped_storage()._cdata)
            if entry is not None:
                self.timeline._holdings[entry[0]].category = category

    def name_the_rest(self, category: str) -> None:
        """Say what everything alive that has no name yet has been since it was made."""
        for index, _ in self._alive.values():
            if self.timeline._holdings[index].category == "temporaries":
                self.timeline._holdings[index].category = category

    def close(self) -> None:
        for _, end in self._alive.values():
            end.detach()
        self._alive.clear()


def measure(
    model: nn.Module,
    optimizer: Any,
    loss_fn: Callable[[nn.Module, Any], Tensor],
    batches: Iterable[Any],
    *,
    accumulate: int = 1,
    keep_gradients: bool = False,
) -> Timeline:
    """Train ``model`` for real over ``batches``, one optimizer step for every ``accumulate`` of them, and watch.

    A parameter is what the model holds, buffers included; a gradient what ``.grad`` holds after a backward pass (or a
    float32 buffer beside it); optimizer state what the optimizer refers to after its step, master weights included. An
    activation is what else is alive when the forward pass is over, because the backward pass needs it, the batch
    itself included. A name counts from the moment the storage was made. The rest are temporaries, also a block's
    activations that recomputation makes again.

    Args:
        model: on any device, or made under :func:`fake`.
        optimizer: a ``torch.optim.Optimizer`` over the model's parameters, or ``precision.master.MasterWeights``.
        loss_fn: ``loss_fn(model, batch)`` returns the loss, a tensor of one element.
        batches: tensors, or tuples, lists or dicts of them. A batch counts from its forward to the end of its backward.
        accumulate: batches per optimizer step, >= 1. Losses are added up as they are: bytes do not depend on the mean.
        keep_gradients: zero gradients in place between steps (``set_to_none=False``) and keep their memory.

    Raises:
        ValueError: there is no batch, or ``accumulate`` is out of range.
    """
    if isinstance(accumulate, bool) or not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"Invalid accumulate: {accumulate!r}. Allowed: a whole number >= 1.")
    timeline = Timeline()
    recorder = _Recorder(timeline)
    for tensors, category in (
        (_parameters(model), "parameters"),
        (_gradients(model, optimizer), "gradients"),
        (_optimizer_state(optimizer), "optimizer"),
    ):
        for tensor in tensors:
            if tensor.untyped_storage()._cdata not in recorder._alive:
                recorder.add(tensor, "before")
                recorder.name([tensor], category)
    timeline._before = len(timeline._events)
    device = next(model.parameters()).device
    # Under fake tensors a model can be "on CUDA" where there is none.
    cuda = device.type == "cuda" and not isinstance(next(model.parameters()).data, FakeTensor)
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)

    def begin(step: int, phase: str) -> None:
        timeline.phases.append((step, phase, len(timeline._events) - timeline._before + 1))

    remaining = iter(batches)
    try:
        with recorder:
            step = 0
            while group := list(islice(remaining, accumulate)):
                for batch in group:
                    begin(step, "forward")
                    inputs = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
                    for tensor in inputs:
                        recorder.add(tensor, "before")
                    loss = loss_fn(model, batch)
                    recorder.name_the_rest("activations")
                    begin(step, "backward")
                    loss.backward()
                    del loss
                    recorder.name(_gradients(model, optimizer), "gradients")
                    recorder.let_go(inputs)
                begin(step, "step")
                optimizer.step()
                recorder.name(_optimizer_state(optimizer), "optimizer")
                begin(step, "zero_grad")
                _zero(model, optimizer, keep_gradients)
                step += 1
    finally:
        recorder.close()
    if not step:
        raise ValueError("Invalid batches: there is none. A generator can be read only once: make a new one.")
    if cuda:
        torch.cuda.synchronize(device)
        timeline.cuda_allocated = torch.cuda.memory_allocated(device)
        timeline.cuda_peak = torch.cuda.max_memory_allocated(device)
    return timeline


def step_extra(optimizer: torch.optim.Optimizer) -> int:
    """Take a step, and return the bytes that it held at the most beyond what was there before: its temporaries.

    State that a first step makes counts too, so call it after one. A compiled step cannot be seen into: on CUDA
    compare ``torch.cuda.max_memory_allocated``.
    """
    timeline = Timeline()
    recorder = _Recorder(timeline)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    grads = [param.grad for param in params if param.grad is not None]
    for tensor in [*params, *grads, *_optimizer_state(optimizer)]:
        recorder.add(tensor, "before")
    timeline._before = len(timeline._events)
    try:
        with recorder:
            optimizer.step()
    finally:
        recorder.close()
    total = timeline.total()
    return int(total.max() - total[0])


def model_state(model: nn.Module, optimizer: Any) -> dict[str, int]:
    """Bytes that the model and its optimizer hold at this moment, each storage once.

    Returns:
        ``{"parameters", "gradients", "optimizer"}``: parameters and buffers; what ``.grad`` holds and float32 gradient
        buffers; the optimizer's state with everything in it (step counts too), and master weights.
    """
    return count_storages({
        "parameters": _parameters(model),
        "gradients": _gradients(model, optimizer),
        "optimizer": _optimizer_state(optimizer),
    })


def _zero(model: nn.Module, optimizer: Any, keep: bool) -> None:
    # MasterWeights zeroes its own float32 buffers, and keeps them in any case.
    if not keep or getattr(optimizer, "main_grads", ()):
        optimizer.zero_grad()
        return
    for param in model.parameters():
        if param.grad is not None:
            param.grad.zero_()


def _parameters(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _gradients(model: nn.Module, optimizer: Any) -> Iterator[Tensor]:
    for param in (*model.parameters(), *getattr(optimizer, "masters", ())):
        if param.grad is not None:
            yield param.grad
    yield from getattr(optimizer, "main_grads", ())


def _optimizer_state(optimizer: Any) -> Iterator[Tensor]:
    yield from getattr(optimizer, "masters", ())
    inner = getattr(optimizer, "optimizer", None)
    if inner is not None:
        yield from _optimizer_state(inner)
    yield from _tensors(dict(getattr(optimizer, "state", {})))
    for group in getattr(optimizer, "param_groups", ()):
        yield from _tensors({name: value for name, value in group.items() if name != "params"})


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists and tuples, the keys of dicts left out."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)
