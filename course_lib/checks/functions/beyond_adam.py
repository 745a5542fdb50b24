"""The judges of notebook 14's exercises: Newton-Schulz, Muon's factor, schedule-free SGD."""

from __future__ import annotations

from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.muon_scale import judge_muon_scale
from course_lib.checks.functions.newton_schulz import judge_newton_schulz
from course_lib.checks.functions.schedule_free_walk import judge_schedule_free_walk

JUDGES: dict[str, Judge] = {
    "newton_schulz": judge_newton_schulz,
    "muon_scale": judge_muon_scale,
    "schedule_free_walk": judge_schedule_free_walk,
}
