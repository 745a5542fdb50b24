"""Who owns what: parameters laid end to end in flat units, each cut into equal slices, one a rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """Elements ``start`` to ``stop`` of a flattened parameter: what one rank owns of it.

    Attributes:
        param: the parameter.
        start, stop: in the parameter, flattened.
        offset: where ``start`` lies in the owner's slice of the unit.
    """

    param: nn.Parameter
    start: int
    stop: int
    offset: int

    def of(self, share: Tensor) -> Tensor:
        """The piece in the owner's slice of anything that is laid out like the unit: a view, (stop - start,)."""
        return share[self.offset : self.offset + self.stop - self.start]


class Unit:
    """Parameters that are communicated together, as one flat tensor.

    The parameters lie end to end, then zeros up to the next multiple of the number of ranks. Slice r of the result
    belongs to rank r, wherever that cuts::

        parameters  | a a a a a | b b b | c c c c c c | 0 0      14 elements, padded to 16 for 4 ranks
        ranks       | 0 0 0 0 | 1 1 1 1 | 2 2 2 2 | 3 3 3 3

    The weights live in ``flat``: each parameter's data is a view of it, so gathering into ``flat`` sets them all.

    Attributes:
        params: the parameters, all of one dtype and device.
        elements: of all of them.
        share: elements of one rank's slice, ceil(elements / ranks).
        flat: (share * ranks,), the weights and the padding.
    """

    def __init__(self, params: Sequence[nn.Parameter], ranks: int) -> None:
        self.params = list(params)
        self.elements = sum(param.numel() for param in self.params)
        self.share = -(-self.elements // ranks)
        self.flat = self.flattened([param.data for param in self.params], self.share * ranks)
        for param, view in zip(self.params, self.views(self.flat), strict=True):
            param.data = view

    def flattened(self, tensors: Sequence[Tensor | None], size: int | None = None) -> Tensor:
        """Tensors shaped like the parameters, end to end in a new padded tensor; None stands for zeros."""
        like = self.params[0]
        flat = torch.zeros(self.flat.numel() if size is None else size, dtype=like.dtype, device=like.device)
        for view, tensor in zip(self.views(flat), tensors, strict=True):
            if tensor is not None:
                view.copy_(tensor)
        return flat

    def views(self, flat: Tensor) -> list[Tensor]:
        """What belongs to each parameter in a tensor laid out like ``flat``, in the parameter's shape."""
        found, start = [], 0
        for param in self.params:
            found.append(flat[start : start + param.numel()].view(param.shape))
            start += param.numel()
        return found

    def slice_of(self, flat: Tensor, rank: int) -> Tensor:
        """Rank ``rank``'s slice of a tensor laid out like ``flat``: a view, (share,)."""
        return flat[rank * self.share : (rank + 1) * self.share]

    def pieces(self, rank: int) -> list[Piece]:
        """What ``rank`` owns of each parameter, in order; parameters of which it owns nothing are left out."""
        first, last = rank * self.share, (rank + 1) * self.share
        found, start = [], 0
        for param in self.params:
            begin, end = max(first, start), min(last, start + param.numel())
            if begin < end:
                found.append(Piece(param, begin - start, end - start, begin - first))
            start += param.numel()
        return found


def by_size(params: Iterable[nn.Parameter], limit: float) -> list[list[nn.Parameter]]:
    """Put parameters together, the last first, until the next one would make more than ``limit`` bytes.

    The backward pass makes the last parameters' gradients first: the first unit can be sent while the others are being
    computed, as in DDP's buckets (Li et al. 2020, arXiv 2006.15704, section 3.2).
    """
    groups: list[list[nn.Parameter]] = []
    held = 0
    for param in reversed(list(params)):
        if not groups or held + param.nbytes > limit:
            groups.append([])
            held = 0
        groups[-1].append(param)
        held += param.nbytes
    return groups


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The modules to gather one after the other: the elements of each outermost ``ModuleList`` or ``Sequential``.

    An element that is itself a list or a dict of modules is never called: its own elements take its place.
    """
    found: list[nn.Module] = []

    def walk(module: nn.Module, listed: bool) -> None:
        for child in module.children():
            if listed and not isinstance(child, nn.ModuleList | nn.ModuleDict):
                found.append(child)
            else:
                walk(child, listed or isinstance(child, nn.ModuleList | nn.Sequential))

    walk(model, isinstance(model, nn.ModuleList | nn.Sequential))
    return [module for module in found if any(True for _ in module.parameters())]
