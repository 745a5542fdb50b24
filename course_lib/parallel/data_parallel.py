"""Data parallelism: every rank holds everything, and gradients are averaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from course_lib.parallel.base import Reducing
from course_lib.parallel.clip import clip_shares_
from course_lib.parallel.layout import Piece, Unit, by_size


class DataParallel(Reducing):
    """One model, one optimizer and all of the state on every rank: 16P bytes each in mixed precision.

    A unit's gradients are laid end to end and all-reduced as soon as the backward pass has made them (Li et al. 2020,
    arXiv 2006.15704). Every rank then takes the same step. Sent by each rank in a step: 2 (N - 1) / N elements per
    parameter.
    """

    stage = 0

    def make_units(self) -> list[Unit]:
        trainable = [param for param in self.model.parameters() if param.requires_grad]
        return [Unit(params, 1) for params in by_size(trainable, self.unit_bytes)]

    def pieces(self, unit: Unit) -> list[Piece]:
        return unit.pieces(0)  # the whole

    def weights_share(self, unit: Unit) -> Tensor:
        return unit.flat

    def reduce(self, unit: Unit) -> None:
        if not self._synchronise:
            return
        mean = self.comm.all_reduce(unit.flattened([param.grad for param in unit.params])).div_(self.comm.ranks)
        for param, view in zip(unit.params, unit.views(mean), strict=True):
            param.grad = view
        self.shares[unit] = mean

    _synchronise = True

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it, backward passes add up this rank's gradients; the first one after it reduces the sum."""
        self._synchronise = False
        try:
            yield
        finally:
            self._synchronise = True

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """As the base's, without a collective: every rank has the whole gradient."""
        return clip_shares_(self.shares.values() or [torch.zeros(())], max_norm, None)

    def _updated(self, unit: Unit, piece: Piece, master: Tensor | None) -> Tensor:
        return super()._updated(unit, piece, master).view(piece.param.shape)  # a rule for matrices sees matrices
