"""ZeRO-2: the gradients are sharded too."""

from __future__ import annotations

from course_lib.parallel.base import Reducing
from course_lib.parallel.zero1 import Zero1


class Zero2(Reducing, Zero1):
    """Each rank keeps the mean gradient of its own slices only: 2P + 14P/N bytes in mixed precision.

    P_os+g of Rajbhandari et al. 2020 (arXiv 1910.02054, section 5.2). A unit's gradients are reduced as in
    ZeRO-1, but as soon as the backward pass has made them. No rank ever holds all gradients, only those of units that
    are not complete and its slices of the rest. Sent by each rank in a step: 2 (N - 1) / N elements per parameter, as
    before; with micro-batches, the gradients' half for each of them.
    """

    stage = 2
