"""The number asked for in the exercises of notebook 15."""

from __future__ import annotations

import math

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

_PARAMETERS, _CARD, _RESERVE = 32e9, 80e9, 13e9
_FREE = _CARD - _RESERVE
_WHOLE = 2 * _PARAMETERS  # bytes of the weights, which stage 2 leaves whole on each GPU


def _up(gpus: float) -> int:
    """The next multiple of 8."""
    return 8 * math.ceil(gpus / 8)


def _needed(sharded: float, free: float = _FREE) -> float:
    """GPUs that share ``sharded`` bytes per parameter, where the weights lie whole on each."""
    return sharded * _PARAMETERS / (free - _WHOLE)


_RIGHT = _up(_needed(16))
_LIST = "Stage 2: 2 bytes are whole on each GPU, and 4 + 12 are divided. What are they?"
_ROUND = "Whole nodes of 8, and the states have to fit."


def _no_count(number: float) -> Finding | None:
    """About a number that no slip leads to, as the answer to ``gpus_needed``."""
    if number <= 0:
        what = f"{number:g} GPUs: what is whole on each takes more than the 67 GB that are free there."
        return Finding("nothing-left", what, "In stage 2 the weights alone are whole: 2 bytes per parameter, 64 GB.")
    if number % 8:
        return Finding("not-a-multiple", f"{number:g} is not a multiple of 8.", _ROUND)
    return None


ANSWERS: dict[str, Answer] = {
    "gpus_needed": Answer(
        _RIGHT,
        1e-9,
        "GPUs",
        (
            Slip(
                _up(_needed(14)),
                "gradients-in-16-bits",
                "That is 2 + 14 / N bytes per parameter: the gradients have two bytes.",
                "Here gradients are float32. How many bytes is one?",
            ),
            Slip(
                _up(_needed(12)),
                "no-master",
                "That is 2 + 12 / N bytes per parameter: the master copy is missing, or the gradients, or one moment.",
                _LIST,
            ),
            Slip(
                _up(_needed(10)),
                "no-master-gradients-in-16-bits",
                "That is 2 + 10 / N bytes per parameter: no master copy (or one moment), and gradients of two bytes.",
                _LIST,
            ),
            Slip(
                _up(_needed(8)),
                "moments-alone",
                "That is 2 + 8 / N bytes per parameter: of what is divided, the two moments (or gradients and master "
                "copy) alone.",
                _LIST,
            ),
            Slip(
                _up(_needed(18)),
                "gradients-or-weights-twice",
                "That is 2 + 18 / N bytes per parameter: the weights are counted whole and divided, or there are "
                "16-bit gradients beside the float32 ones.",
                _LIST,
            ),
            Slip(
                _up(18 * _PARAMETERS / _FREE),
                "stage-3",
                "That is stage 3, 18 / N bytes per parameter: the weights are divided too.",
                "What does stage 2 leave whole on each GPU?",
            ),
            Slip(
                _up(16 * _PARAMETERS / _FREE),
                "weights-forgotten",
                "That is 16 / N bytes per parameter: the weights are forgotten, which lie whole on each GPU; or it is "
                "stage 3 with 16-bit gradients.",
                "What does stage 2 leave whole on each GPU?",
            ),
            Slip(
                math.inf,
                "stage-1",
                "That no number of GPUs suffices is right for stage 1, where 2 + 4 bytes per parameter lie whole on "
                "each; also for float32 weights.",
                "Stage 2 divides the gradients too.",
            ),
            Slip(
                _up(_needed(16, _CARD)),
                "nothing-kept-free",
                "That fills the whole card with model states.",
                "13 GB stay free for activations and what else there is.",
            ),
            Slip(
                _up(_needed(16, _CARD + _RESERVE)),
                "reserve-added",
                "That adds the 13 GB to the card.",
                "They are taken away from the 80 GB.",
            ),
            Slip(
                _up(_needed(16, 80 * 2**30 - _RESERVE)),
                "card-in-gibibytes",
                "That is right for a card of 80 GiB, 80 * 2^30 bytes, of which 13e9 stay free.",
                "Here 1 GB is 1e9 bytes.",
                OTHER_SPECIFICATION,
            ),
            Slip(
                _up(_needed(16, 67 * 2**30)),
                "gibibytes",
                "That is right where a GB is 2^30 bytes.",
                "Here 1 GB is 1e9 bytes.",
                OTHER_SPECIFICATION,
            ),
            Slip(
                _needed(16),
                "not-rounded",
                "That is right before it is rounded.",
                _ROUND,
            ),
            Slip(
                math.ceil(_needed(16)),
                "not-a-multiple-of-8",
                "That many would do, if there were nodes of any size.",
                "The next multiple of 8 is asked for.",
            ),
            Slip(
                _RIGHT - 8,
                "rounded-down",
                "That is a multiple of 8 on which the states do not fit: rounded down, or to the nearest.",
                _ROUND,
            ),
            Slip(
                _RIGHT + 8,
                "one-node-more",
                "They fit; but they also fit on fewer.",
                "The smallest multiple of 8 is asked for.",
            ),
            Slip(
                256,
                "power-of-two",
                "They fit; but 256 is the next power of two.",
                "The smallest multiple of 8 is asked for.",
            ),
            Slip(_RIGHT // 8, "nodes", "That is the number of nodes.", "The number of GPUs is asked for."),
        ),
        _no_count,
    ),
}
