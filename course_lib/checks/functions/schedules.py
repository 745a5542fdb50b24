"""The judges of notebook 07's exercises: two schedules, parameter groups, rates by layer."""

from __future__ import annotations

from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.layer_rates import LAYER_RATES
from course_lib.checks.functions.parameter_groups import judge_parameter_groups
from course_lib.checks.functions.warmup_cosine import WARMUP_COSINE
from course_lib.checks.functions.warmup_stable_decay import WARMUP_STABLE_DECAY

JUDGES: dict[str, Judge] = {
    "warmup_cosine": WARMUP_COSINE,
    "warmup_stable_decay": WARMUP_STABLE_DECAY,
    "parameter_groups": judge_parameter_groups,
    "layer_rates": LAYER_RATES,
}
