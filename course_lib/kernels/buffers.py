"""One buffer for many tensors, and memory for it that the processor finds quickly."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

HUGE_PAGE = 2**21
"""Bytes of a huge page on x86-64, and on ARM with ordinary pages of 4 KiB."""

LINE = 64
"""Bytes of a cache line: tensors in a buffer begin at multiples of it, so that no two share one."""

GAP = 65 * LINE
"""Bytes between buffers. Without them equal elements of buffers of 2^28 bytes would lie 2^28 apart, and so in the same
few places of every cache, from which they drive each other out: a step of AdamW took 1.7 times fused's time instead of
0.9 (measured on two cores, buffers of 2^26 float32)."""


def zeros(
    numel: int, count: int = 1, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """``count`` tensors of ``numel`` zeros, one-dimensional; on Linux and a CPU on huge pages, if they fill one.

    A processor looks up where each page of memory lies. With pages of 4 KiB a pass over an array does that once in
    1,024 float32 elements, and a prefetcher stops at each page's end; with 2 MiB once in 524,288. The kernel is asked
    (madvise) and may refuse; then the pages are ordinary ones. Memory is given back with the last tensor.

    Args:
        numel: elements of each, >= 0.
        dtype, device: of the tensors.

    Raises:
        MemoryError: there is too little.
    """
    stride = -(-numel * dtype.itemsize // LINE) * LINE + GAP
    size = count * stride
    if torch.device(device).type != "cpu" or size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return [torch.zeros(numel, dtype=dtype, device=device) for _ in range(count)]
    # Private, as shared memory has a setting of its own. One page more, so that the tensors begin where a page does.
    try:
        pages = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"Out of memory: {size:,} bytes for a buffer are not to be had ({error.strerror}).") from None
    try:
        pages.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # a kernel that was built without them
    start = -torch.frombuffer(pages, dtype=torch.uint8).data_ptr() % HUGE_PAGE
    return [torch.frombuffer(pages, dtype=dtype, count=numel, offset=start + i * stride) for i in range(count)]


def offsets(sizes: Sequence[int], align: int) -> tuple[list[int], int]:
    """Where each tensor begins in a buffer for all of them, at multiples of ``align``, and how long the buffer is.

    Args:
        sizes: elements of each tensor, in order; 0 is one.
        align: elements, >= 1.
    """
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // align) * align
    return starts, end


def memory_order(tensor: Tensor) -> Tensor | None:
    """All elements of ``tensor`` as one dimension, in the order in which they lie in memory: a view, never a copy.

    None where they do not lie side by side (a slice with gaps, an expanded tensor), for which there is no such view.
    """
    if tensor.is_contiguous():
        return tensor.view(-1)
    kept = [(stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
    expected = 1
    for stride, size in sorted(kept):
        if stride != expected:
            return None
        expected *= size
    return tensor.as_strided((tensor.numel(),), (1,))
