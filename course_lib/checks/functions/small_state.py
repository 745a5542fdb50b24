"""The judges of notebook 13's exercises: a factored moment, blocks of codes, bytes of state."""

from __future__ import annotations

from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.factored_moment import FACTORED
from course_lib.checks.functions.quantise_blocks import judge_quantise_blocks
from course_lib.checks.functions.small_state_gb import SMALL_STATE

JUDGES: dict[str, Judge] = {
    "factored_moment": FACTORED,
    "quantise_blocks": judge_quantise_blocks,
    "small_state_gb": SMALL_STATE,
}
