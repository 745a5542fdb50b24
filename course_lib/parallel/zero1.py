"""ZeRO-1: the optimizer's state is sharded."""

from __future__ import annotations

import torch

from course_lib.parallel.base import Engine
from course_lib.parallel.layout import Unit


class Zero1(Engine):
    """Each rank keeps the optimizer's state of its own slices only: 4P + 12P/N bytes in mixed precision.

    P_os of Rajbhandari et al. 2020 (arXiv 1910.02054, section 5.1). At the step, each unit's gradient is
    reduce-scattered, so that a rank gets the mean for what it owns; it updates that; then the ranks gather the new
    weights from each other. Sent by each rank in a step: 2 (N - 1) / N elements per parameter, as in data parallelism,
    whose all-reduce is the same two halves.
    """

    stage = 1

    @torch.no_grad()
    def reduce_gradients(self) -> None:
        if all(param.grad is None for unit in self.units for param in unit.params):
            return  # no backward pass since the last time
        for unit in self.units:
            self.reduce(unit)

    def reduce(self, unit: Unit) -> None:
        whole = unit.flattened([param.grad for param in unit.params])
        for param in unit.params:
            param.grad = None
        mean = self.comm.reduce_scatter(whole).div_(self.comm.ranks)
        self.shares[unit] = self.shares[unit].add_(mean) if unit in self.shares else mean

    def spread_weights(self) -> None:
        for unit in self.units:
            self.comm.all_gather(self.weights_share(unit), out=unit.flat)
