"""The exercise `zero_plan`: which collective runs in which phase of a step, in each stage of ZeRO.

A plan is recognised among those that known faults make out of the right one, up to three faults in a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import combinations, permutations
from typing import Any, NamedTuple

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Progress, guarded
from course_lib.checks.report import MISTAKE, OTHER_SPECIFICATION, Finding

PHASES = ("forward", "backward", "step")
NAMES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast")
STAGES = range(4)

Plan = tuple[tuple[str, ...], ...]  # the collectives of each phase
Plans = dict[int, Plan]
Change = Callable[[Plan], Plan]

_REDUCE, _SCATTER, _GATHER, _BROADCAST = ((name,) for name in NAMES)
RIGHT: Plans = {
    0: ((), _REDUCE, ()),
    1: ((), (), _SCATTER + _GATHER),
    2: ((), _SCATTER, _GATHER),
    3: (_GATHER, _GATHER + _SCATTER, ()),
}


class Fault(NamedTuple):
    """What goes wrong in a stage: ``change`` makes it of a plan. ``what`` completes "In stage 1: ..."."""

    code: str
    stages: tuple[int, ...]
    what: str
    hint: str
    change: Change
    kind: str = MISTAKE


class Whole(NamedTuple):
    """A fault in all stages together. ``what`` completes "Your plans have ..."."""

    code: str
    what: str
    hint: str
    plans: tuple[Plans, ...]


def _is(forward: tuple[str, ...], backward: tuple[str, ...], step: tuple[str, ...]) -> Change:
    return lambda plan: (forward, backward, step)


def _renamed(old: str, new: str, phases: tuple[str, ...] = PHASES) -> Change:
    return lambda plan: tuple(
        tuple(new if name == old and phase in phases else name for name in names)
        for phase, names in zip(PHASES, plan, strict=True)
    )


def _without(name: str, phases: tuple[str, ...] = PHASES) -> Change:
    return lambda plan: tuple(
        tuple(each for each in names if each != name or phase not in phases)
        for phase, names in zip(PHASES, plan, strict=True)
    )


def _added(phase: str, name: str, first: bool = False) -> Change:
    def change(plan: Plan) -> Plan:
        names = plan[PHASES.index(phase)]
        if name in names:
            return plan
        return _put(plan, phase, (name, *names) if first else (*names, name))

    return change


def _moved(names: tuple[str, ...], target: str, first: bool = False) -> Change:
    """The first of ``names`` that the plan has, in another phase."""

    def change(plan: Plan) -> Plan:
        name = next((each for each in names if any(each in phase for phase in plan)), None)
        return plan if name is None else _added(target, name, first)(_without(name)(plan))

    return change


def _turned(phase: str) -> Change:
    return lambda plan: _put(plan, phase, plan[PHASES.index(phase)][::-1])


def _put(plan: Plan, phase: str, names: tuple[str, ...]) -> Plan:
    return tuple(names if each == phase else old for each, old in zip(PHASES, plan, strict=True))


_OWNER = "Who needs the mean gradient of a slice: every rank, or the one that updates it?"
_MEAN = "Each rank has seen its own batch. Which collective makes one mean gradient of all of them?"
_WHOLE = "What of the weights does each rank hold in this stage, between two steps?"
_SLICES = "After the step each rank has a new slice of the weights. What does the next forward pass need?"
_SENDERS = "How many ranks have something that the others need?"
_FAULTS = (
    Fault(
        "zero-redundancy-optimizer",
        (1,),
        "the gradients are all-reduced in the backward pass, and new weights are broadcast by their owners. So does "
        "torch's ZeroRedundancyOptimizer beside DDP. It sends 3 S (N - 1) / N bytes of a unit of S instead of 2.",
        _OWNER,
        _is((), _REDUCE, _BROADCAST),
        OTHER_SPECIFICATION,
    ),
    Fault(
        "all-reduce-for-scatter",
        (1,),
        "the gradients are all-reduced in the backward pass. Of the whole mean a rank uses its own slice only: "
        "that sends S (N - 1) / N bytes more than needed for a unit of S bytes.",
        _OWNER,
        _is((), _REDUCE, _GATHER),
    ),
    Fault(
        "all-reduce-for-scatter",
        (1, 2, 3),
        "the gradients are all-reduced. Of the whole mean a rank uses its own slice only: that sends S (N - 1) / N "
        "bytes more than needed for a unit of S bytes.",
        _OWNER,
        _renamed("reduce_scatter", "all_reduce"),
    ),
    Fault(
        "all-reduce-in-two",
        (0,),
        "a reduce_scatter and an all_gather of the gradients. A ring all_reduce is these two, one after the other.",
        "Here every rank needs the whole mean gradient: one name says that.",
        _is((), _SCATTER + _GATHER, ()),
        OTHER_SPECIFICATION,
    ),
    Fault(
        "scatter-in-stage-0",
        (0,),
        "after a reduce_scatter each rank has the mean gradient of one slice, but it updates all of its weights.",
        "In plain data parallelism, how much of the model does each rank update?",
        _renamed("all_reduce", "reduce_scatter"),
    ),
    Fault(
        "gather-for-reduce",
        (0,),
        "an all_gather hands each rank the gradients of all others, N times the bytes, and adds nothing up.",
        _MEAN,
        _renamed("all_reduce", "all_gather"),
    ),
    Fault(
        "gather-for-reduce",
        (1, 2, 3),
        "an all_gather of gradients adds nothing up.",
        _MEAN,
        _renamed("reduce_scatter", "all_gather"),
    ),
    Fault(
        "broadcast-for-reduce",
        (0, 1, 2, 3),
        "a broadcast replaces the gradients by those of one rank: the other batches are lost.",
        _MEAN,
        lambda plan: _renamed("reduce_scatter", "broadcast")(_renamed("all_reduce", "broadcast")(plan)),
    ),
    Fault(
        "gradients-not-reduced",
        (0, 1, 2, 3),
        "no collective brings the gradients together: each rank goes on with those of its own batch.",
        _MEAN,
        lambda plan: _without("reduce_scatter")(_without("all_reduce")(plan)),
    ),
    Fault(
        "gradients-at-step",
        (0,),
        "the gradients wait for the step. Nothing is sent while the backward pass runs.",
        "A unit's gradient is there long before the backward pass ends. When can it be sent?",
        _moved(("all_reduce", "reduce_scatter"), "step", first=True),
    ),
    Fault(
        "gradients-at-step",
        (2, 3),
        "the gradients wait for the step. Until then each rank holds them whole, which this stage is to save.",
        "A unit's gradient is there long before the backward pass ends. When can it be sent and let go?",
        _moved(("reduce_scatter", "all_reduce"), "step", first=True),
    ),
    Fault(
        "scatter-in-backward",
        (1,),
        "the gradients are scattered during the backward pass: that is stage 2.",
        "In stage 1 the gradients stay whole on each rank until the step.",
        _moved(("reduce_scatter", "all_reduce"), "backward"),
    ),
    Fault(
        "gather-missing",
        (1, 2),
        "nobody gets the slices that others have updated: from this step on no rank has a whole new model.",
        _SLICES,
        _without("all_gather", ("step",)),
    ),
    Fault(
        "gather-in-next-forward",
        (1, 2),
        "the new weights are gathered in the next forward pass, as Megatron-LM does to overlap the two.",
        "Here the weights are whole on each rank when the step is over.",
        _moved(("all_gather",), "forward"),
        OTHER_SPECIFICATION,
    ),
    Fault(
        "gather-before-scatter",
        (1,),
        "the weights are gathered before the gradients are scattered: before anything is updated.",
        "In which order come the mean gradient, the update, and the new weights for all?",
        _turned("step"),
    ),
    Fault(
        "gather-in-stage-0",
        (0,),
        "an all_gather of weights at the step, though each rank has updated all of them.",
        _WHOLE,
        _added("step", "all_gather"),
    ),
    Fault(
        "weights-gathered",
        (0, 1, 2),
        "an all_gather of weights in the forward pass, though they lie whole on each rank.",
        _WHOLE,
        _added("forward", "all_gather"),
    ),
    Fault(
        "weights-gathered",
        (0, 1, 2),
        "an all_gather of weights in the backward pass, though they lie whole on each rank.",
        _WHOLE,
        _added("backward", "all_gather", first=True),
    ),
    Fault(
        "gradients-gathered",
        (2,),
        "an all_gather after the reduce_scatter in the backward pass makes the gradients whole again on each rank.",
        _OWNER,
        _added("backward", "all_gather"),
    ),
    Fault(
        "weights-broadcast",
        (0, 1, 2),
        "a broadcast of weights in the forward pass, though all ranks have the same ones since the step before.",
        _WHOLE,
        _added("forward", "broadcast"),
    ),
    Fault(
        "broadcast-at-step",
        (0,),
        "a broadcast of weights at the step, though each rank has made the same update.",
        _WHOLE,
        _added("step", "broadcast"),
    ),
    Fault(
        "weights-averaged",
        (0, 1, 2, 3),
        "an all_reduce at the step besides. From the same weights and the same mean gradient come the same new "
        "weights.",
        "What is still different from rank to rank when the step begins?",
        _added("step", "all_reduce"),
    ),
    *(
        Fault(
            "broadcast-for-gather",
            stages,
            "a broadcast sends what one rank holds. Here each of the N ranks holds a slice that all others lack.",
            _SENDERS,
            _renamed("all_gather", "broadcast", phases),
        )
        for stages, phases in (((1, 2, 3), PHASES), ((3,), ("forward",)), ((3,), ("backward",)))
    ),
    Fault(
        "reduce-for-gather",
        (1, 2, 3),
        "an all_reduce in the place of an all_gather adds up slices that belong side by side.",
        "Are the slices to be added, or put together?",
        _renamed("all_gather", "all_reduce"),
    ),
    Fault(
        "no-second-gather",
        (3,),
        "the weights are not gathered again for the backward pass: they stay whole from the forward pass on. So "
        "does FSDP2 with reshard_after_forward=False, which sends S (N - 1) / N bytes less and holds more.",
        "Here each unit is let go when its forward pass is over. What does its backward pass compute with?",
        _without("all_gather", ("backward",)),
        OTHER_SPECIFICATION,
    ),
    Fault(
        "forward-not-gathered",
        (3,),
        "the forward pass has only the rank's own slice of the weights.",
        _WHOLE,
        _without("all_gather", ("forward",)),
    ),
    Fault(
        "gather-after-step",
        (3,),
        "an all_gather after the step. The next forward pass gathers each unit when it needs it.",
        "Between two steps a rank holds its slice and no more. Who would hold what is gathered here?",
        _added("step", "all_gather"),
    ),
    Fault(
        "scatter-before-gather",
        (3,),
        "in the backward pass the gradients are scattered before the weights are gathered that they come from.",
        "What does the backward pass of a unit need before it can run, and what is there when it has run?",
        _turned("backward"),
    ),
)


def _everywhere(change: Change) -> Plans:
    return {stage: change(plan) for stage, plan in RIGHT.items()}


def _stages(*order: int) -> Plans:
    return {stage: RIGHT[other] for stage, other in enumerate(order)}


def _exchanged(one: str, other: str) -> Change:
    swap = {one: other, other: one}
    return lambda plan: tuple(tuple(swap.get(name, name) for name in names) for names in plan)


_FIRST = "Stage 1 divides what the optimizer keeps, stage 2 the gradients too, stage 3 the weights too."
_WHOLES = (
    Whole(
        "stages-reversed",
        "stages 1 and 3 exchanged: the weights are divided first, the optimizer's state last",
        _FIRST,
        (_stages(0, 3, 2, 1),),
    ),
    Whole(
        "stage-ahead",
        "every stage one too early: stage 0 does what stage 1 is to do, and so on",
        "Stage 0 is plain data parallelism.",
        (_stages(1, 2, 3, 3),),
    ),
    Whole(
        "stage-behind",
        "every stage one too late: stage 1 does what stage 0 is to do, and so on",
        _FIRST,
        (_stages(0, 0, 1, 2),),
    ),
    Whole("stages-1-and-2-exchanged", "stages 1 and 2 exchanged", _FIRST, (_stages(0, 2, 1, 3),)),
    Whole("stages-2-and-3-exchanged", "stages 2 and 3 exchanged", _FIRST, (_stages(0, 1, 3, 2),)),
    Whole(
        "phases-exchanged",
        "the right collectives under exchanged names of phases",
        "In which phase is there a gradient to send, and in which a new weight?",
        tuple(
            _everywhere(lambda plan, order=order: tuple(plan[i] for i in order))
            for order in permutations(range(3))
            if order != (0, 1, 2)
        ),
    ),
    Whole(
        "scatter-and-gather-exchanged",
        "reduce_scatter and all_gather exchanged",
        "Which of the two adds up? Gradients are added up, weights are put together.",
        (_everywhere(_exchanged("reduce_scatter", "all_gather")),),
    ),
    Whole(
        "order-turned-round",
        "the right collectives in each phase, but the last one first",
        "In the order in which they run: what needs the result of what?",
        (_everywhere(lambda plan: tuple(names[::-1] for names in plan)),),
    ),
)


@cache
def _faulty(stage: int) -> dict[Plan, tuple[Fault, ...]]:
    """Each plan that at most three faults make of the stage's right one, with the fewest that do."""
    faults = [fault for fault in _FAULTS if stage in fault.stages]
    known: dict[Plan, tuple[Fault, ...]] = {}
    for count in (1, 2, 3):
        for chosen in combinations(faults, count):
            plan = RIGHT[stage]
            for fault in chosen:
                plan = fault.change(plan)
            if plan != RIGHT[stage]:
                known.setdefault(plan, chosen)
    return known


def judge_zero_plan(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: its plans for stages 0 to 3, those of all stages together first."""
    progress("asking for the plan of each stage")
    return guarded(candidate, lambda: list(_judged({stage: _plan(candidate, stage) for stage in STAGES})))


def _judged(plans: Plans) -> Iterator[Finding]:
    if plans == RIGHT:
        return
    for whole in _WHOLES:
        if plans in whole.plans:
            yield Finding(whole.code, f"Your plans have {whole.what}.", whole.hint)
            return
    if len(set(plans.values())) == 1:
        what = "Every stage has the same plan, whatever `stage` is."
        yield Finding("stage-ignored", what, "What is divided in each stage, and who then needs what from whom?")
        return
    told: dict[tuple[str, str], tuple[Fault, list[int]]] = {}
    unknown = []
    for stage, plan in plans.items():
        if plan == RIGHT[stage]:
            continue
        faults = _faulty(stage).get(plan, ())
        if not faults or (len(faults) > 1 and plan in RIGHT.values()):
            unknown.append(stage)
            continue
        for fault in faults:
            told.setdefault((fault.code, fault.what), (fault, []))[1].append(stage)
    for fault, stages in told.values():
        yield Finding(fault.code, f"In {_listed(stages)}: {fault.what}", fault.hint, fault.kind)
    for stage in unknown:
        yield _unnamed(stage, plans[stage])


def _unnamed(stage: int, plan: Plan) -> Finding:
    if plan in RIGHT.values():
        other = next(other for other in STAGES if RIGHT[other] == plan)
        return Finding("another-stage", f"In stage {stage}: this is the plan of stage {other}.", _FIRST)
    wrong = [i for i, phase in enumerate(PHASES) if plan[i] != RIGHT[stage][i]]
    said = " and ".join(f"{list(plan[i])} in `{PHASES[i]}`" for i in wrong)
    what = f"In stage {stage}, {said} {'is' if len(wrong) == 1 else 'are'} not what is asked for."
    hints = {
        "forward": _WHOLE,
        "backward": "Which weights must be there before the backward pass runs, and who needs the gradients after it?",
        "step": "What does a rank need before it updates its part, and what do the others need of it after that?",
    }
    return Finding("wrong-plan", what, hints[PHASES[wrong[-1]]])


def _listed(stages: list[int]) -> str:
    if len(stages) == 1:
        return f"stage {stages[0]}"
    return f"stages {', '.join(map(str, stages[:-1]))} and {stages[-1]}"


def _plan(candidate: Callable[..., Any], stage: int) -> Plan:
    """The candidate's plan for a stage, or Stopped with a finding that says why it cannot be read."""
    with watched(f"it is called with stage={stage}"):
        result = candidate(stage)
    if not isinstance(result, Mapping):
        kind = "None" if result is None else f"something of type {type(result).__name__}"
        keys = f"Its keys are {', '.join(map(repr, PHASES))}."
        hint = "Does every path through the function end in a return?" if result is None else keys
        what = f"With stage={stage}, the function returns {kind} instead of a dict."
        raise Stopped(Finding("wrong-result", what, hint))
    if missing := [phase for phase in PHASES if phase not in result]:
        what = f"With stage={stage}, there is no key {' and no key '.join(map(repr, missing))}."
        hint = "All three phases, each time: an empty list where nothing is sent."
        raise Stopped(Finding("phase-missing", what, hint))
    if unknown := [key for key in result if key not in PHASES]:
        what = f"With stage={stage}, there is a key {unknown[0]!r}."
        raise Stopped(Finding("unknown-phase", what, f"The keys are {', '.join(map(repr, PHASES))}."))
    return tuple(_collectives(result[phase], stage, phase) for phase in PHASES)


def _collectives(value: Any, stage: int, phase: str) -> tuple[str, ...]:
    where = f"With stage={stage}, what stands under {phase!r}"
    if isinstance(value, (str, Mapping, set, frozenset)) or not hasattr(value, "__iter__"):
        said = repr(value) if isinstance(value, str) or value is None else f"of type {type(value).__name__}"
        hint = "A list of names, also for one (`['all_gather']`), and an empty one for none."
        raise Stopped(Finding("not-a-list", f"{where} is {said}, not a list.", hint))
    with watched(f"what it returns for stage={stage} is read"):
        names = tuple(value)
    if unknown := [name for name in names if name not in NAMES]:
        what = f"{where} has {unknown[0]!r} in it."
        raise Stopped(Finding("unknown-collective", what, f"The names are {', '.join(map(repr, NAMES))}."))
    return tuple(map(str, names))
