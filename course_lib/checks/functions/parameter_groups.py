"""The exercise `parameter_groups`: what is decayed and what is not, every trained tensor once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.checks.candidate import Stopped, watched
from course_lib.checks.functions.common import Progress, guarded
from course_lib.checks.functions.grouped_models import Case, Parameters, cases, parameters
from course_lib.checks.report import OTHER_SPECIFICATION, Finding

_Read = tuple[list[Tensor], Any]  # a group's tensors, and its weight decay

_DECAYED_WRONGLY = {
    "embedding": (
        "embedding-decayed",
        "of an embedding, and yet in the decayed group",
        "Which modules look rows up in a table? Go over `model.modules()`: a name proves nothing.",
    ),
    "tied": (
        "tied-decayed",
        "shared by an embedding and the head, and yet in the decayed group",
        "`named_parameters()` gives a shared tensor once, under its first name. Collect the embeddings' tensors first, "
        "and ask of each tensor whether it is one of them.",
    ),
    "norm": (
        "norm-decayed",
        "the gain or shift of a norm, which has a matrix here, and yet in the decayed group",
        "A norm over several dimensions has weights of as many. Subclasses are norms, too: `isinstance`.",
    ),
    "vector": (
        "vector-decayed",
        "of fewer than two dimensions, and yet in the decayed group",
        "Which shapes do biases and gains have? Names mislead.",
    ),
}


def judge_parameter_groups(candidate: Any, progress: Progress) -> list[Finding]:
    """The findings about ``candidate``: it is called with several models, up to the first that it groups wrongly."""
    return guarded(candidate, lambda: _judged(candidate, progress))


def _judged(candidate: Callable[..., Any], progress: Progress) -> list[Finding]:
    for case in cases():
        progress(f"grouping the parameters of {case.said}")
        known, before = parameters(case.model), _looks(case.model)
        with watched(f"it is called with {case.said}"):
            result = candidate(case.model, case.weight_decay)
            result = result if isinstance(result, (dict, Tensor, nn.Module, Iterator)) else _listed(result)
        if findings := list(_faults(case, known, result)) + _changed(case, before):
            return findings
    return []


def _listed(result: Any) -> Any:
    """A list of what can be listed, groups with lists of their tensors."""
    groups = list(result) if hasattr(result, "__iter__") and not isinstance(result, str) else result
    if isinstance(groups, list) and all(isinstance(group, dict) for group in groups):
        return [
            {key: list(value) if key == "params" and _may_be_listed(value) else value for key, value in group.items()}
            for group in groups
        ]
    return groups


def _may_be_listed(params: Any) -> bool:
    """Tuples and the like stand for lists; a tensor is one parameter, and an iterator is empty when it has been read."""
    return hasattr(params, "__iter__") and not isinstance(params, (set, frozenset, str, Tensor, Iterator))


def _looks(model: nn.Module) -> dict[str, Any]:
    """What no grouping may change."""
    tensors = list(model.parameters())
    return {
        "the dtype of its parameters": [p.dtype for p in tensors],
        "the gradients of its parameters": [None if p.grad is None else p.grad.tolist() for p in tensors],
        "the attributes of its parameters": [sorted(vars(p)) for p in tensors],
        "the attributes of its modules": [sorted(vars(module)) for module in model.modules()],
        "its buffers": [(name, id(buffer)) for name, buffer in model.named_buffers()],
        "the values of its parameters": [p.detach().clone() for p in tensors],
        "requires_grad": [p.requires_grad for p in tensors],
        "train() or eval()": [module.training for module in model.modules()],
        "its parameters": [(name, id(p)) for name, p in model.named_parameters(remove_duplicate=False)],
    }


def _changed(case: Case, before: dict[str, Any]) -> list[Finding]:
    for what, now in _looks(case.model).items():
        was = before[what]
        same = len(now) == len(was) and all(
            torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(now, was, strict=True)
        )
        if not same:
            return [Finding("model-changed", f"The function changes the model: {what}.", "Only read, and sort.")]
    return []


def _faults(case: Case, known: Parameters, result: Any) -> Iterator[Finding]:
    try:
        (first, decay), (second, none) = _read(case, known, result)
    except Stopped as stop:
        yield stop.finding
        return
    counted = [id(p) for p in first + second]
    if twice := _named(known, (i for i in dict.fromkeys(counted) if counted.count(i) > 1)):
        yield Finding(
            "twice",
            f"{case.said.capitalize()}: {twice}: in the groups more than once. Torch refuses that, or warns of it.",
            "One tensor can have two names, and a module two places.",
        )
    trained = [id(p) for p in known.trained]
    if frozen := _named(known, (i for i in dict.fromkeys(counted) if i not in trained)):
        yield Finding(
            "frozen",
            f"{case.said.capitalize()}: {frozen}: frozen, and yet in a group.",
            "Each tensor says itself whether it is trained: `requires_grad`. A layer may hold one that is and one not.",
        )
    if lost := _named(known, (i for i in trained if i not in counted)):
        yield Finding(
            "lost",
            f"{case.said.capitalize()}: {lost}: in no group, so never trained.",
            "Start from the model's parameters, not from a list of layers: not every one is a `weight` or a `bias`.",
        )
    yield from _decays(case, decay, none)
    if (decay, none) == (0, case.weight_decay) != (0, 0):  # told above; what is in the groups may still be right
        first, second = second, first
    misplaced = list(_misplaced(case, known, {id(p) for p in first}, {id(p) for p in second}))
    yield from misplaced
    if not misplaced and not twice and not frozen and not lost and not _in_order(known, first, second):
        yield Finding(
            "order",
            f"{case.said.capitalize()}: the tensors of a group are not in the order of `named_parameters()`.",
            "A checkpoint of an optimizer knows its tensors by their place. Go over the parameters once, and append.",
        )


def _read(case: Case, known: Parameters, result: Any) -> list[_Read]:
    """The two groups, or Stopped with a finding that says why they cannot be read."""
    if isinstance(result, Iterator):
        what = f"The function returns an iterator (of type {type(result).__name__}): read once, it is empty."
        raise Stopped(Finding("iterator", what, "Put the two groups into a list.", OTHER_SPECIFICATION))
    if not isinstance(result, list) or not all(isinstance(group, dict) for group in result):
        kind = "None" if result is None else f"something of type {type(result).__name__}"
        kind = "a list of other things than dicts" if isinstance(result, list) else kind
        hint = (
            "Does every path through the function end in a return?" if result is None else "As torch.optim takes them."
        )
        raise Stopped(Finding("wrong-result", f"The function returns {kind} instead of a list of two groups.", hint))
    if len(result) != 2:
        raise Stopped(
            Finding(
                "not-two-groups",
                f"With {case.said}, the number of groups that come back is {len(result)} instead of two.",
                "Always two: those that decay and those that do not. Either may be empty.",
            )
        )
    groups = []
    for group in result:
        if "params" not in group:
            raise Stopped(
                Finding(
                    "no-params", f"A group has the keys {', '.join(map(repr, group))}.", "torch looks for 'params'."
                )
            )
        groups.append((_tensors(known, group["params"]), group.get("weight_decay")))
    return groups


def _tensors(known: Parameters, params: Any) -> list[Tensor]:
    if isinstance(params, (set, frozenset)):
        what = "A group's 'params' is a set, which torch refuses: it has no order."
        raise Stopped(
            Finding("set", what, "A list. To ask whether a tensor is among others, keep a set of their `id`.")
        )
    if isinstance(params, Iterator):
        what = f"A group's 'params' is an iterator (of type {type(params).__name__}): read once, it is empty."
        raise Stopped(Finding("iterator", what, "Put the tensors into a list.", OTHER_SPECIFICATION))
    tensors = params if isinstance(params, list) else [params]
    if any(isinstance(p, tuple) and len(p) == 2 and isinstance(p[1], Tensor) for p in tensors):
        what = "A group's 'params' holds pairs of a name and a tensor. torch takes them, but a list of tensors is asked for."
        raise Stopped(Finding("named-pairs", what, "Leave the names out.", OTHER_SPECIFICATION))
    if other := next((p for p in tensors if not isinstance(p, Tensor)), None):
        what = f"A group's 'params' holds something of type {type(other).__name__}."
        raise Stopped(
            Finding("not-tensors", what, "torch wants the tensors: no names, no modules, no lists in the list.")
        )
    if any(id(p) not in known.names for p in tensors):
        what = "A group holds tensors that are not the model's own: copies of them, which nobody reads."
        raise Stopped(
            Finding("copies", what, "Put the parameters themselves in: no `clone()`, no `detach()`, no `.data`.")
        )
    return tensors


def _decays(case: Case, decay: Any, none: Any) -> Iterator[Finding]:
    if decay is None or none is None:
        which = " and ".join(place for place, value in (("first", decay), ("second", none)) if value is None)
        yield Finding(
            "decay-unset",
            f"The {which} group has no 'weight_decay' of its own: it takes the optimizer's default, 0.01 in AdamW.",
            "Say 0.0 where you mean it.",
        )
    elif (decay, none) == (0, case.weight_decay) != (0, 0):
        what = "The groups come in the other order: the one that decays is the first."
        yield Finding("groups-exchanged", what, "Code that reads `groups[0]` relies on the order.")
    elif (decay, none) != (case.weight_decay, 0):
        what = f"Called with weight_decay={case.weight_decay}, the groups have {decay!r} and {none!r}."
        yield Finding("decay-values", what, f"{case.weight_decay} for the first, 0.0 for the second.")


def _misplaced(case: Case, known: Parameters, first: set[int], second: set[int]) -> Iterator[Finding]:
    wrong = [id(p) for p in known.trained if id(p) in (first if id(p) in known.why_not else second)]
    if len(wrong) == len(known.trained) > 1:
        what = f"With {case.said}, every tensor is in the other's group."
        yield Finding("contents-exchanged", what, "Which shapes are to shrink: matrices, or gains and biases?")
        return
    reasons = {i: known.why_not.get(i, "matrix") for i in wrong}
    embeddings = [i for i, why in known.why_not.items() if why == "embedding"]
    if all(len(known.names[i]) > 1 for i in wrong if i in embeddings):  # those that have the table alone are right
        reasons |= {i: "tied" for i in wrong if i in embeddings}
    for reason, (code, what, hint) in _DECAYED_WRONGLY.items():
        if found := _named(known, (i for i, why in reasons.items() if why == reason)):
            yield Finding(code, f"{case.said.capitalize()}: {found}: {what}.", hint)
    if found := _named(known, (i for i, why in reasons.items() if why == "matrix")):
        yield Finding(
            "matrix-not-decayed",
            f"{case.said.capitalize()}: {found}: two dimensions or more, no embedding, no norm, and yet not decayed.",
            "Whatever it is called and whatever holds it: by its dimensions, and by the kind of the module alone.",
        )


def _in_order(known: Parameters, first: list[Tensor], second: list[Tensor]) -> bool:
    places = {id(p): place for place, p in enumerate(known.trained)}
    return all([places[id(p)] for p in group] == sorted(places[id(p)] for p in group) for group in (first, second))


def _named(known: Parameters, ids: Iterator[int]) -> str:
    """Names of tensors in words, at most four; empty if there are none."""
    names = [" = ".join(known.names[i][:2]) for i in ids]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
