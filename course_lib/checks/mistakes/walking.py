"""Mistakes in the walk over groups and parameters, which every optimizer shares."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from course_lib.checks.mistakes.engine import known


def _first_group(c: SimpleNamespace, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The hyper-parameters, those in ``names`` taken from the first group for every element."""
    return {name: np.full_like(value, value[c.group == 0][0]) if name in names else value for name, value in c.h.items()}


def _constructor(c: SimpleNamespace, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The hyper-parameters, those in ``names`` as the constructor got them: the walk's last group has them."""
    last = c.group == c.group.max()
    return {name: np.full_like(value, value[last][0]) if name in names else value for name, value in c.h.items()}


def _before_missing(c: SimpleNamespace, within_group: bool) -> np.ndarray:
    """Where a loop that stops at the first missing gradient has still been."""
    missing = np.flatnonzero(~c.has)
    active = c.has.copy()
    for group in np.unique(c.group) if within_group else [None]:
        inside = missing if group is None else missing[c.group[missing] == group]
        if inside.size:
            behind = np.arange(active.size) > inside[0]
            active &= ~(behind if group is None else behind & (c.group == group))
    return active


def _count_per_tensor(c: SimpleNamespace, per_group: bool) -> np.ndarray:
    """The step count as each tensor finds it when every tensor handled before it has advanced it by one."""
    tensors = range(c.tensor.max() + 1)
    handled = np.asarray([c.has[c.tensor == tensor][0] for tensor in tensors])
    owner = np.asarray([c.group[c.tensor == tensor][0] * per_group for tensor in tensors])
    order = np.asarray([np.sum(handled[: k + 1] & (owner[: k + 1] == owner[k])) for k in tensors])
    count = np.asarray([np.sum(handled & (owner == group)) for group in owner])
    before = getattr(c, "handled_so_far", np.zeros(c.t.shape))
    c.handled_so_far = before + count[c.tensor]
    return before + order[c.tensor]


def _with_last_gradient(c: SimpleNamespace) -> np.ndarray:
    """Put the last gradient in place of a missing one; true where there has been one."""
    seen = getattr(c, "seen", np.zeros_like(c.has))
    c.g = c.last_seen = np.where(c.has, c.g, getattr(c, "last_seen", c.g))
    c.seen = seen | c.has
    return c.seen


def _seen_before(c: SimpleNamespace) -> np.ndarray:
    """Where there is a gradient, and was one before."""
    before = getattr(c, "seen", np.zeros_like(c.has))
    c.seen = before | c.has
    return c.has & before


def _last_of_group(c: SimpleNamespace) -> np.ndarray:
    last = [np.max(c.tensor[c.group == group]) for group in range(c.group.max() + 1)]
    several = [len(np.unique(c.tensor[c.group == group])) > 1 for group in range(c.group.max() + 1)]
    return (c.tensor == np.asarray(last)[c.group]) & np.asarray(several)[c.group]


def _whole_group(c: SimpleNamespace) -> np.ndarray:
    return np.asarray([c.has[c.group == group].all() for group in range(c.group.max() + 1)])[c.group]


def walking(hyper_names: tuple[str, ...], counts_steps: bool) -> tuple:
    """The shared mistakes for an optimizer with these hyper-parameters (flat names, ``lr`` first)."""
    mistakes = [
        known("lr-frozen", "a learning rate read once, when the optimizer was made: the schedule has no effect",
              "Where does a scheduler write the new learning rate, and when do you read it?", h=lambda c: c.h0),
        known("first-group-only", "the first group's hyper-parameters used for every group",
              "Which `group` does each parameter belong to when its hyper-parameters are read?",
              h=lambda c: _first_group(c, hyper_names)),
        known("group-lr-ignored", "the first group's learning rate used for every group",
              "Read lr from the group at hand.", h=lambda c: _first_group(c, ("lr",))),
        known("last-group-only", "the hyper-parameters of the constructor, which are the last group's here, used for every group",
              "Which `group` does each parameter belong to when its hyper-parameters are read?", h=lambda c: _constructor(c, hyper_names)),
        known("skips-zero-entries", "elements left alone, moments and all, where their gradient is zero: SparseAdam's rule",
              "A gradient of zero is a gradient. Which lines of the rule act all the same?", active=lambda c: c.has & (c.g != 0)),
        known("returns-after-first-group", "a walk that ends after the first group", "How far is `return` indented?", active=lambda c: c.has & (c.group == 0)),
        known("last-parameter-forgotten", "a walk that leaves out the last parameter of each group", "How far does your index run?",
              active=lambda c: c.has & ~_last_of_group(c)),
        known("scalars-skipped", "parameters with a single element left out", "A scalar is a parameter too.", active=lambda c: c.has & (c.dims > 0)),
        known("missing-reuses-last", "a missing gradient replaced by the last one there was", "Which variable still holds the gradient of the step before?",
              active=_with_last_gradient),
        known("missing-skips-group", "a whole group left out as soon as one of its gradients is missing", "What belongs to a parameter, and what to its group?",
              active=_whole_group),
        known("missing-is-zero", "a missing gradient treated as a gradient of zeros: state and parameter go on moving",
              "What should happen to a parameter that took no part in this backward pass?",
              active=lambda c: np.ones_like(c.has)),
        known("returns-at-missing", "a walk that ends at the first missing gradient (`return`): later parameters are not updated",
              "`continue`, `break` and `return` do three different things.", active=lambda c: _before_missing(c, False)),
        known("breaks-at-missing", "a loop over the group that ends at the first missing gradient (`break`)",
              "`continue` and `break` do two different things.", active=lambda c: _before_missing(c, True)),
        known("first-gradient-dropped", "a first gradient that is passed over: it makes the state, and neither enters it nor moves the parameter",
              "What does the rule do at the first step?", active=_seen_before),
        known("skips-zero-gradient", "a parameter skipped whenever its whole gradient is zero",
              "A gradient of zeros is a gradient. Which lines of the rule act all the same?",
              active=lambda c: c.has & (c.total(np.abs(c.g)) > 0)),
    ]
    betas = tuple(name for name in hyper_names if name.startswith(("beta", "alpha", "rho", "momentum", "dampening")))
    parts = {"lr": ("lr",), "decay": ("weight_decay",)}
    if betas:
        parts["betas"] = betas
    if "eps" in hyper_names:
        parts["eps"] = ("eps",)
    if betas and "eps" in hyper_names:
        parts["betas-and-eps"] = (*betas, "eps")
    for part, names in parts.items():
        said = " and ".join(sorted({name.rstrip("01") for name in names}))
        hint = "Read it from the group at hand, at every step."
        if part != "lr":
            mistakes.append(known(f"group-{part}-ignored", f"the first group's {said} used for every group", hint,
                                  h=lambda c, names=names: _first_group(c, names)))
        mistakes.append(known(f"constructor-{part}", f"the {said} that the constructor got, used for every group", hint,
                              h=lambda c, names=names: _constructor(c, names)))
    if counts_steps:
        mistakes += [
            known("step-count-shared", "one step count for all parameters, which also advances where the gradient is missing",
                  "How many gradients has *this* parameter seen?", t=lambda c: np.full_like(c.t, c.step)),
            known("step-count-per-group", "a step count of the whole optimizer that advances once for every group",
                  "Print the count after one step() on two groups.",
                  t=lambda c: (c.step - 1) * (c.group.max() + 1) + c.group + 1.0),
            known("step-count-per-tensor", "a step count of the group that advances once for every tensor instead of once per step",
                  "Print the count after one step() on a model with three tensors.", t=lambda c: _count_per_tensor(c, True)),
            known("step-count-per-tensor-global", "a step count of the whole optimizer that advances once for every tensor",
                  "Print the count after one step() on a model with three tensors.", t=lambda c: _count_per_tensor(c, False)),
        ]
    return tuple(mistakes)
