"""The judges of notebook 09's exercises: a noise scale, a step of LAMB, the rules for a larger batch."""

from __future__ import annotations

from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.lamb_step import LAMB_STEP
from course_lib.checks.functions.noise_scale import NOISE_SCALE
from course_lib.checks.functions.scale_rule import SCALE_RULE

JUDGES: dict[str, Judge] = {
    "noise_scale": NOISE_SCALE,
    "lamb_step": LAMB_STEP,
    "scale_rule": SCALE_RULE,
}
