"""AdamW's own lines made fast without a kernel of one's own: torch.compile, and one flat buffer for many tensors."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import compress, groupby
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from course_lib.kernels.buffers import LINE, memory_order, offsets, zeros
from course_lib.optim import AdamW

Rule = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]


def adamw_rule(param: Tensor, grad: Tensor, m: Tensor, v: Tensor, numbers: Tensor) -> None:
    """One step of AdamW in place: the course's own lines, for tensors of one dimension.

    Args:
        param, grad, m, v: equally long. 16-bit ones are computed with in float32, and rounded when they are stored.
        numbers: from :func:`numbers_of`.
    """
    shrink, beta1, keep1, beta2, keep2, step_size, inverse_root, eps = numbers.unbind()
    wide = torch.promote_types(param.dtype, torch.float32)
    g = grad.to(wide)
    m_new = beta1 * m.to(wide) + keep1 * g
    v_new = beta2 * v.to(wide) + keep2 * g * g
    param.copy_(shrink * param.to(wide) - step_size * m_new / (v_new.sqrt() * inverse_root + eps))
    m.copy_(m_new)
    v.copy_(v_new)


def numbers_of(group: dict[str, Any], step: int, dtype: torch.dtype) -> Tensor:
    """What :func:`adamw_rule` needs of a group at its step ``step`` (1, 2, ...), of shape (8,) and on the CPU.

    A tensor, because torch.compile guards on Python numbers: a step count that is kept on an object is compiled in at
    each of its first values. Both bias corrections are in it, that of v as a factor of sqrt(v), and so is the sign of
    ``maximize``.
    """
    beta1, beta2 = group["betas"]
    sign = -1 if group["maximize"] else 1
    numbers = (
        1 - group["lr"] * group["weight_decay"], beta1, sign * (1 - beta1), beta2, 1 - beta2,
        group["lr"] / (1 - beta1**step), 1 / math.sqrt(1 - beta2**step), group["eps"],
    )  # fmt: skip
    return torch.tensor(numbers, dtype=torch.promote_types(dtype, torch.float32))


def unavailable(device: torch.device | str = "cpu") -> str | None:
    """Why torch.compile cannot make a kernel for ``device`` here, in a sentence; None if it can."""
    if torch.device(device).type == "cpu":
        from torch._inductor import cpp_builder, exc  # seconds; only who compiles waits for them

        try:
            cpp_builder.get_cpp_compiler()
        except (exc.InvalidCxxCompiler, RuntimeError):
            return ("torch.compile needs a C++ compiler on a CPU, and none was found. Install one: g++ on Linux "
                    "(apt-get install g++), xcode-select --install on macOS, Visual Studio's build tools on Windows.")
    elif torch.device(device).type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            return "torch.compile needs Triton (Linux: pip install triton) and a GPU of compute capability 7.0 or more."
    return None


@functools.cache
def compiled_rule(device_type: str = "cpu") -> Rule:
    """:func:`adamw_rule` as one kernel for tensors of any length; the first call for each dtype compiles for seconds.

    Give it ``tensor.data``: torch.compile makes another kernel for a view, with guards on what it is a view of.

    Raises:
        RuntimeError: nothing can be compiled for such a device here; the message says what is missing.
    """
    if reason := unavailable(device_type):
        raise RuntimeError(reason)
    return torch.compile(adamw_rule, dynamic=True)


class CompiledAdamW(AdamW):
    """:class:`course_lib.optim.AdamW` with its lines compiled into one kernel: 28 bytes a float32 parameter, not 80.

    Arguments, state and errors are AdamW's. A tensor whose elements do not lie side by side in memory, or whose
    gradient lies in another order, goes AdamW's way.

    Raises:
        ValueError: amsgrad is asked for, for which there is no kernel.
        RuntimeError: a step is taken where nothing can be compiled.
    """

    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        if group["amsgrad"]:
            raise ValueError(f"Invalid amsgrad: True. Allowed: False; {type(self).__name__} has no kernel for it.")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim's, whose own checkpoints it takes too.

        Raises:
            ValueError: a group has amsgrad, or a hyper-parameter out of its range.
        """
        for group in state_dict["param_groups"]:
            self.validate(self.defaults | group)
        super().load_state_dict(state_dict)

    def require_ready(self) -> None:
        for group in self.param_groups:
            for param in group["params"][:1]:
                compiled_rule(param.device.type)

    def update_all(self, entries: list[tuple[Tensor, Tensor, dict[str, Any]]], group: dict[str, Any]) -> None:
        made: dict[Any, Tensor] = {}
        for param, grad, state in entries:
            tensors = (param, grad, state["exp_avg"], state["exp_avg_sq"])
            views = [memory_order(tensor.data) for tensor in tensors]
            alike = len({tensor.stride() for tensor in tensors}) == 1 and all(view is not None for view in views)
            if not alike or param.numel() == 1:  # for which torch.compile would make a second kernel
                super().update_all([(param, grad, state)], group)
            elif param.numel():
                key = state["step"], param.dtype
                numbers = made.get(key)
                if numbers is None:
                    numbers = made[key] = numbers_of(group, *key)
                compiled_rule(param.device.type)(*[view.data for view in views], numbers)
                increment_version(param)  # .data hides the change from autograd


class FlatAdamW(CompiledAdamW):
    """AdamW over flat buffers: a step is one call of one kernel, however many tensors there are.

    Parameters of a group that share dtype and device move into one buffer and become views of it; so do their
    gradients and moments. On a CPU the buffers lie on huge pages where there are such
    (:mod:`course_lib.kernels.buffers`). What is computed is AdamW's step; arguments, state dict and errors are AdamW's.

    It is fast while gradients stay where they are, so :meth:`zero_grad` fills those that there are with zeros, as
    torch's does with ``set_to_none=False``. A gradient that lies elsewhere (after ``model.zero_grad()``, or assigned)
    is copied in. A missing one (None) leaves its parameter alone and cuts the one call into several.

    Parameters, gradients and state that are exchanged later are seen, and taken in. Views of a parameter's memory that
    were made before the optimizer was do not see its updates. ``torch.save`` of one layer saves the whole buffer, as of
    any view: save ``tensor.clone()``.

    Args:
        compile: False runs the same lines over the same buffers as they are.
        watch: look before each step whether everything is where it was; with a thousand tensors that takes longer than
            the kernel. False trusts that between :meth:`zero_grad`, which looks, and :meth:`step` nobody exchanges
            memory, gradients, groups or state, and that no backward pass follows through a graph from before the step,
            which autograd could not refuse. A plain training loop does none of it.

    Raises:
        ValueError: amsgrad is asked for, parameters share memory with one another or with other processes, or one has
            no floating-point dtype.
        MemoryError: there is no room for the buffers.
        RuntimeError: a step is taken where nothing can be compiled.
    """

    def __init__(self, params: Any, *args: Any, compile: bool = True, watch: bool = True, **hyper: Any) -> None:
        self._compile, self._watch = compile, watch
        self._buckets: dict[int, tuple[tuple[Tensor, ...], list[_Bucket]]] = {}
        super().__init__(params, *args, **hyper)
        for group in self.param_groups:
            self._buckets_of(group)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_compile": self._compile, "_watch": self._watch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # a copy, a pickle or a state dict; what it holds lies in no buffer yet
        self._buckets = {}

    def require_ready(self) -> None:
        if self._compile:
            super().require_ready()

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Fill gradients with zeros, in the buffer from now on; with ``set_to_none`` drop them, torch's default."""
        for group in self.param_groups:
            for bucket in self._buckets_of(group):
                bucket.zero_grad(set_to_none)

    def update_groups(self) -> None:
        for group in self.param_groups:
            for bucket in self._buckets_of(group, look=self._watch):
                rule = compiled_rule(bucket.param.device.type) if self._compile else adamw_rule
                if bucket.trusted and not self._watch:
                    bucket.step_all(rule, group)
                else:
                    bucket.step(rule, group, self._require_dense_real)
                    # What changed are the buffers, of which autograd knows nothing.
                    increment_version([param for param in bucket.params if param.grad is not None])

    @torch.no_grad()
    def _buckets_of(self, group: dict[str, Any], look: bool = True) -> list[_Bucket]:
        """The buffers of a group, made anew where something no longer lies in them."""
        params, buckets = self._buckets.get(id(group), ((), []))
        if look or not buckets:
            same = len(params) == len(group["params"]) and all(map(is_, params, group["params"]))
            if not same or not all(bucket.intact(self.state) for bucket in buckets):
                alike: dict[Any, list[Tensor]] = {}
                for param in group["params"]:
                    alike.setdefault((param.dtype, param.device), []).append(param)
                buckets = [_Bucket(params, self.state) for params in alike.values()]
                self._buckets[id(group)] = (tuple(group["params"]), buckets)
        return buckets


class _Bucket:
    """Parameters of one dtype and device in one buffer, and their gradients and moments in three more."""

    def __init__(self, params: list[Tensor], state: dict[Tensor, dict[str, Any]]) -> None:
        """Takes in what is there: values, gradients, moments and step counts."""
        _require_own_memory(params)
        dtype, device = params[0].dtype, params[0].device
        self.params = params
        self.states = [state[param] for param in params]
        self.starts, length = offsets([param.numel() for param in params], LINE // dtype.itemsize)
        self.starts.append(length)
        self.param, self.grad, self.m, self.v = zeros(length, 4, dtype, device)
        self.whole = [buffer.data for buffer in (self.param, self.grad, self.m, self.v)]
        places = range(len(params))
        self.grads, self.handed_out, ms, vs = (
            [self._view(buffer, i) for i in places] for buffer in (self.grad, self.grad, self.m, self.v)
        )
        for i, param in enumerate(params):
            param.data = self._view(self.param, i).copy_(param)
        self.steps = torch.tensor([float(state.get("step", 0)) for state in self.states])  # as torch.optim keeps them
        self.kept = [dict(exp_avg=m, exp_avg_sq=v, step=t) for m, v, t in zip(ms, vs, self.steps, strict=True)]
        for state, kept in zip(self.states, self.kept, strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:
                    kept[name].copy_(state[name])
            state.update(kept)
        self.addresses = [param.data_ptr() for param in params]
        self.grad_addresses = [grad.data_ptr() for grad in self.grads]
        self.trusted = False  # that every parameter has its gradient in the buffer, and all have one step count

    def intact(self, state: dict[Tensor, dict[str, Any]]) -> bool:
        """Whether parameters and state still lie in the buffers."""
        return list(map(Tensor.data_ptr, self.params)) == self.addresses and all(
            state.get(param) is own and all(own.get(name) is kept[name] for name in kept)
            for param, own, kept in zip(self.params, self.states, self.kept, strict=True)
        )

    def zero_grad(self, set_to_none: bool) -> None:
        self.grad.zero_()
        if list(map(Tensor.data_ptr, self.handed_out)) != self.grad_addresses:  # somebody gave one other memory
            self.handed_out = [self._view(self.grad, i) for i in range(len(self.params))]
        present = [param.grad is not None for param in self.params]
        for param, own in zip(compress(self.params, present), compress(self.handed_out, present), strict=True):
            param.grad = None if set_to_none else own
        self.trusted = not set_to_none and all(present) and self._together()

    def step(self, rule: Rule, group: dict[str, Any], require_dense_real: Callable[[Tensor], None]) -> None:
        grads = [param.grad for param in self.params]
        present = [grad is not None for grad in grads]
        for param in compress(self.params, present):
            require_dense_real(param)
        for place, own, address, grad in zip(self.grads, self.handed_out, self.grad_addresses, grads, strict=True):
            if grad is not None and not (grad is own and grad.data_ptr() == address):
                place.copy_(grad)
        if all(present) and self._together():
            self.step_all(rule, group)
            return
        self.trusted = False
        steps = (self.steps + 1) * torch.tensor(present)
        # Neighbours that have a gradient and the same step count share a call.
        for step, places in groupby(range(len(steps)), [int(step) for step in steps].__getitem__):
            if step:
                run = list(places)
                part = slice(self.starts[run[0]], self.starts[run[-1] + 1])
                self._run(rule, group, [buffer[part].data for buffer in self.whole], step, run)

    def step_all(self, rule: Rule, group: dict[str, Any]) -> None:
        """One call for all; each has a gradient, in the buffer, and the same step count."""
        self._run(rule, group, self.whole, int(self.steps[0]) + 1, slice(None))

    def _run(
        self, rule: Rule, group: dict[str, Any], tensors: list[Tensor], step: int, which: slice | list[int]
    ) -> None:
        if tensors[0].numel():
            rule(*tensors, numbers_of(group, step, self.param.dtype))
        self.steps[which] = step

    def _together(self) -> bool:
        return bool((self.steps == self.steps[0]).all())

    def _view(self, buffer: Tensor, i: int) -> Tensor:
        """The place of parameter ``i``, with its shape, and its order in memory where it has no gaps."""
        param, start = self.params[i], self.starts[i]
        place = buffer[start : start + param.numel()]
        return place.view(param.shape) if memory_order(param) is None else place.as_strided(param.shape, param.stride())


def _require_own_memory(params: list[Tensor]) -> None:
    """Raise ValueError unless each parameter is of a floating-point dtype, and nothing else uses its memory."""
    for param in params:
        if not param.dtype.is_floating_point:
            raise ValueError(f"Invalid dtype of a parameter: {param.dtype}. Allowed: real floating-point ones.")
        if param.device.type == "cpu" and param.is_shared():
            raise ValueError(
                f"Invalid parameter of shape {tuple(param.shape)}: it lies in memory that processes share. Allowed: "
                "memory of its own, as the buffer is another place; use course_lib.optim.AdamW for shared ones."
            )
    end = 0
    for param in sorted((param for param in params if param.numel()), key=Tensor.data_ptr):
        if param.data_ptr() < end:
            raise ValueError(
                f"Invalid parameter of shape {tuple(param.shape)}: it shares memory with another one. Allowed: "
                "memory of its own; give the optimizer one parameter, and use that one in both places."
            )
        reach = sum((size - 1) * stride for size, stride in zip(param.shape, param.stride(), strict=True))
        end = param.data_ptr() + (reach + 1) * param.element_size()
