"""Exercises of notebook 11 that ask for a function; one module for each."""

from __future__ import annotations

from course_lib.checks.functions.amp_step import judge_amp_step
from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.four_sums import judge_four_sums
from course_lib.checks.functions.next_scale import judge_next_scale
from course_lib.checks.functions.resume_state import judge_resume_state
from course_lib.checks.functions.stochastic_round import judge_stochastic_round

JUDGES: dict[str, Judge] = {
    "four_sums": judge_four_sums,
    "next_scale": judge_next_scale,
    "amp_step": judge_amp_step,
    "stochastic_round": judge_stochastic_round,
    "resume_state": judge_resume_state,
}
