"""ZeRO-3: the weights are sharded too, gathered for use and let go of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from course_lib.parallel.layout import Unit, blocks_of
from course_lib.parallel.zero2 import Zero2


class Zero3(Zero2):
    """Each rank keeps its slices of everything, 16P/N bytes in mixed precision, and a block's weights while it runs.

    P_os+g+p of Rajbhandari et al. 2020 (arXiv 1910.02054, section 5.3), cut block by block as in FSDP (Zhao et al.
    2023, arXiv 2304.11277). A block's weights are gathered before its forward pass and freed after it, gathered again
    before its backward pass, and freed when the block before it begins its own; gradients are reduce-scattered as in
    ZeRO-2. The weights outside the blocks, and those that blocks share, do the same with the whole model's passes. Sent
    by each rank in a step: 3 (N - 1) / N elements per parameter.

    Ranks must run the same blocks in the same order: ``engine.model(batch)`` is a collective. A weight that is not
    gathered reads as NaN, so the model's ``state_dict`` is of no use: see :meth:`full_weights`. ``torch.autocast``
    keeps cast copies of whole weights until the backward pass.

    Args:
        blocks: the modules of the model that are gathered by themselves, none inside another; by default the elements
            of each outermost ``ModuleList`` and ``Sequential``. Their outputs are tensors, or tuples, lists or dicts.
    """

    stage = 3

    def __init__(
        self, model: nn.Module, *args: Any, blocks: Sequence[nn.Module] | None = None, **settings: Any
    ) -> None:
        self._blocks = blocks_of(model) if blocks is None else list(dict.fromkeys(blocks))
        if not set(self._blocks) <= set(model.modules()):
            raise ValueError("A block is no module of the model. Allowed: modules of it, none inside another.")
        self._weights: dict[Unit, Tensor] = {}
        self._in_backward: set[Unit] = set()
        self._outputs = count()
        self._output: int | None = None  # of the block whose backward pass has begun last
        super().__init__(model, *args, **settings)

    def make_units(self) -> list[Unit]:
        inside = {module for block in self._blocks for module in block.modules()}
        rest = [module for module in self.model.modules() if module not in inside]
        users = Counter(param for block in self._blocks for param in block.parameters())
        outside = {param for module in rest for param in module.parameters(recurse=False)}
        outside |= {param for param, count in users.items() if count > 1}  # any of its blocks may come first
        self._outside = self._gathered_for(self.model, [param for param in self.model.parameters() if param in outside])
        units = list(self._outside)
        for block in self._blocks:
            units += self._gathered_for(block, [param for param in block.parameters() if param not in outside])
        return units[::-1]

    def _gathered_for(self, module: nn.Module, params: Iterable[nn.Parameter]) -> tuple[Unit, ...]:
        """Units of ``params``, which are whole while ``module`` runs; frozen ones have no gradients and go apart."""
        kinds = [[param for param in params if param.requires_grad == trainable] for trainable in (True, False)]
        units = tuple(Unit(kind, self.comm.ranks) for kind in kinds if kind)
        for unit in units:
            self._weights[unit] = unit.slice_of(unit.flat, self.comm.rank).clone()
            self._free(unit)
        module.register_forward_pre_hook(partial(self._before, units))
        module.register_forward_hook(partial(self._after_forward, units))
        return units

    def weights_share(self, unit: Unit) -> Tensor:
        return self._weights[unit]

    def spread_weights(self) -> None:
        """Nothing is sent: the next forward pass gathers the new weights, and must not find old ones."""
        for unit in self.units:
            self._free(unit)

    def held_weights(self) -> list[Tensor]:
        return [*self._weights.values(), *(unit.flat for unit in self.units)]

    @torch.no_grad()
    def full_weights(self) -> dict[str, Tensor]:
        found = {}
        for unit in self.units:
            whole = self.comm.all_gather(self._weights[unit])
            for param, view in zip(unit.params, unit.views(whole), strict=True):
                found[self.name_of(param)] = view.clone()
        return {name: found[name] for name, _ in self.model.named_parameters()}

    def zero_grad(self) -> None:
        super().zero_grad()
        self._let_go()

    def _finish(self) -> None:
        super()._finish()
        self._let_go()

    def _let_go(self) -> None:
        for unit in self._in_backward:
            self._free(unit)
        self._in_backward.clear()
        self._output = None

    def _before(self, units: tuple[Unit, ...], *_) -> None:
        for unit in units:
            self._gather(unit)

    def _after_forward(self, units: tuple[Unit, ...], module: nn.Module, given: Any, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if units and not tensors:
            raise TypeError(f"{type(module).__name__} returned a {type(output).__name__}, in which no tensor can be "
                            "found, so its weights cannot be gathered for the backward pass. Return tensors, or a "
                            "tuple, list or dict of them.")
        for tensor in tensors:
            if tensor.requires_grad:
                # Called before the block's backward pass. Two blocks may have one output: one may return its input.
                number = tensor.__dict__.setdefault("_number_of_output", next(self._outputs))
                tensor.register_hook(partial(self._before_backward, units, number))
        for unit in units:
            if unit not in self._in_backward:  # else activations are recomputed, and the backward pass comes next
                self._free(unit)

    def _before_backward(self, units: tuple[Unit, ...], output: int, *_) -> None:
        # A gradient that will be differentiated itself still needs the weights.
        if output != self._output and not torch.is_grad_enabled():
            for unit in self._in_backward.difference(units, self._outside):
                self._free(unit)
        self._output = output
        self._in_backward.update(units)
        self._before(units)

    @torch.no_grad()
    def _gather(self, unit: Unit) -> None:
        storage = unit.flat.untyped_storage()
        if storage.nbytes() == 0:
            storage.resize_(unit.flat.numel() * unit.flat.element_size())
            self.comm.all_gather(self._weights[unit], out=unit.flat)
            for param, view in zip(unit.params, unit.views(unit.flat), strict=True):
                param.data = view

    def _free(self, unit: Unit) -> None:
        """Give the memory back. What autograd has saved of it is whole again when it is gathered again."""
        unit.flat.untyped_storage().resize_(0)
        for param in unit.params:  # to read memory that is gone would end the process
            param.data = param.new_full((), float("nan")).expand(param.shape)
