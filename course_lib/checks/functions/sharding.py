"""The judges of notebook 15's exercises: who sends what, who owns what, and steps that are sharded."""

from __future__ import annotations

from course_lib.checks.functions.clip_sharded import judge_clip_sharded
from course_lib.checks.functions.common import Judge
from course_lib.checks.functions.owners_by_bytes import judge_owners_by_bytes
from course_lib.checks.functions.ring_all_reduce import judge_ring_all_reduce
from course_lib.checks.functions.ring_seconds import RING_SECONDS
from course_lib.checks.functions.zero1_step import judge_zero1_step
from course_lib.checks.functions.zero_bug import judge_zero_bug
from course_lib.checks.functions.zero_plan import judge_zero_plan

JUDGES: dict[str, Judge] = {
    "zero_plan": judge_zero_plan,
    "owners_by_bytes": judge_owners_by_bytes,
    "ring_all_reduce": judge_ring_all_reduce,
    "ring_seconds": RING_SECONDS,
    "clip_sharded": judge_clip_sharded,
    "zero1_step": judge_zero1_step,
    "zero_bug": judge_zero_bug,
}
