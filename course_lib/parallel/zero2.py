"""ZeRO-2: the gradients are sharded too."""

from __future__ import annotations

from course_lib.parallel.base import Reducing
from course_lib.parallel.layout import Unit


class Zero2(Reducing):
    """Each rank keeps the mean gradient of its own slices only: 2P + 14P/N bytes in mixed precision.

    P_os+g of Rajbhandari et al. 2020 (arXiv 1910.02054, section 5.2). A unit's gradients are reduce-scattered as soon
    as the backward pass has made them, and freed. No rank ever holds all gradients, only those of units that are not
    complete and its slices of the rest. Sent by each rank in a step: 2 (N - 1) / N elements per parameter, as before;
    with micro-batches, the gradients' half for each of them.
    """

    stage = 2

    def reduce(self, unit: Unit) -> None:
        whole = unit.flattened([param.grad for param in unit.params])
        for param in unit.params:
            param.grad = None
        mean = self.comm.reduce_scatter(whole).div_(self.comm.ranks)
        self.shares[unit] = self.shares[unit].add_(mean) if unit in self.shares else mean

    def spread_weights(self) -> None:
        for unit in self.units:
            self.comm.all_gather(self.weights_share(unit), out=unit.flat)
