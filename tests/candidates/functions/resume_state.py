"""Answers to the exercise `resume_state`."""

from __future__ import annotations

import copy
import io
import pickle

import torch


def _all(model, optimizer, scheduler, scaler, generator):
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict(),
        "generator": generator.get_state(),
    }


def _with(**changes):
    """All of it, deep; then some entries made anew by ``changes``, which are given the five objects by name; None: left out."""

    def resume_state(model, optimizer, scheduler, scaler, generator):
        objects = {
            "model": model,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "scaler": scaler,
            "generator": generator,
        }
        state = copy.deepcopy(_all(**objects))
        for key, change in changes.items():
            del state[key]
            if change is not None:
                state[key] = change(objects)
        return state

    return resume_state


# ------------------------------------------------------------------------------------------------------- right


def _deep(model, optimizer, scheduler, scaler, generator):
    return copy.deepcopy(_all(model, optimizer, scheduler, scaler, generator))


def _through_a_file(model, optimizer, scheduler, scaler, generator):
    file = io.BytesIO()
    torch.save(_all(model, optimizer, scheduler, scaler, generator), file)
    file.seek(0)
    return torch.load(file)


def _pickled(*objects):
    return pickle.loads(pickle.dumps(_all(*objects)))


def _cloned(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _cloned(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_cloned, value))
    return value


def _by_hand(m, o, lr_schedule, s, g):
    state = {"model": {name: tensor.detach().clone() for name, tensor in m.state_dict().items()}}
    state["optimizer"] = _cloned(o.state_dict())
    state["scheduler"] = dict(lr_schedule.state_dict())
    state["scaler"] = s.state_dict()
    state["generator"] = g.get_state()
    return state | {"step": 7, "global": torch.get_rng_state()}


def _of_copies(model, optimizer, scheduler, scaler, generator):
    model, optimizer = copy.deepcopy((model, optimizer))
    return _all(model, optimizer, scheduler, scaler, generator)


def _modes_kept(model, optimizer, scheduler, scaler, generator):
    """Evaluates for a while, and sets every module back to what it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    state = _deep(model, optimizer, scheduler, scaler, generator)
    for module, mode in modes.items():
        module.training = mode
    return state


class _Keeper:
    """Keeps what it has saved, each by itself."""

    def __init__(self):
        self.saved = []

    def __call__(self, *objects):
        self.saved.append(_deep(*objects))
        return self.saved[-1]


def _steps_as_numbers(objects):
    state = copy.deepcopy(objects["optimizer"].state_dict())
    for entries in state["state"].values():
        entries["step"] = int(entries["step"])
    return state


def _through_numpy(objects):
    return {name: torch.from_numpy(t.numpy().copy()) for name, t in objects["model"].state_dict().items()}


# ------------------------------------------------------------------------------------------------------- wrong


def _shallow(*objects):
    return _all(*objects).copy()


def _shallow_below(*objects):
    return {key: value if isinstance(value, torch.Tensor) else dict(value) for key, value in _all(*objects).items()}


def _half(objects):
    return {name: tensor.bfloat16() for name, tensor in objects["model"].state_dict().items()}


def _halves_the_model(model, optimizer, scheduler, scaler, generator):
    return _deep(model.half(), optimizer, scheduler, scaler, generator)


def _evaluates(model, optimizer, scheduler, scaler, generator):
    model.eval()
    return _deep(model, optimizer, scheduler, scaler, generator)


def _draws(model, optimizer, scheduler, scaler, generator):
    state = _deep(model, optimizer, scheduler, scaler, generator)
    state["check"] = torch.rand(1, generator=generator)
    return state


def _steps(model, optimizer, scheduler, scaler, generator):
    scheduler.step()
    return _deep(model, optimizer, scheduler, scaler, generator)


def _seeds(model, optimizer, scheduler, scaler, generator):
    state = _deep(model, optimizer, scheduler, scaler, generator)
    return state | {"generator": generator.manual_seed(0).get_state()}


def _resets_the_scale(model, optimizer, scheduler, scaler, generator):
    scaler.update(2.0**16)
    return _deep(model, optimizer, scheduler, scaler, generator)


def _other_names(*objects):
    state = _deep(*objects)
    state["lr_scheduler"] = state.pop("scheduler")
    return state


def _exchanged(*objects):
    state = _deep(*objects)
    state["scheduler"], state["scaler"] = state["scaler"], state["scheduler"]
    return state


def _bytes(*objects):
    file = io.BytesIO()
    torch.save(_all(*objects), file)
    return file.getvalue()


def _changed(part, change):
    """All of it, deep; ``change`` does something to the state of ``part``."""

    def resume_state(*objects):
        state = _deep(*objects)
        change(state[part])
        return state

    return resume_state


def _each_entry(change):
    return _changed("optimizer", lambda state: [change(entries) for entries in state["state"].values()])


def _rounded(state):
    state.update({name: t.round(decimals=6) for name, t in state.items() if t.is_floating_point()})


def _moments_rounded(entries):
    entries.update({key: t.round(decimals=8) for key, t in entries.items() if t.ndim})


def _counts_live(objects):
    state = objects["optimizer"].state_dict()
    entries = {
        i: {key: value if key == "step" else value.clone() for key, value in each.items()}
        for i, each in state["state"].items()
    }
    return {"state": entries, "param_groups": copy.deepcopy(state["param_groups"])}


def _zeroes(model, optimizer, scheduler, scaler, generator):
    optimizer.zero_grad()
    return _deep(model, optimizer, scheduler, scaler, generator)


def _eval_and_train(model, optimizer, scheduler, scaler, generator):
    model.eval()
    state = _deep(model, optimizer, scheduler, scaler, generator)
    model.train()
    return state


class _OneDict:
    def __init__(self):
        self.state = {}

    def __call__(self, *objects):
        self.state.update(_deep(*objects))
        return self.state


class _OneInner(_OneDict):
    """A new dict each time, and the same one for the weights in it."""

    def __call__(self, *objects):
        state = _deep(*objects)
        self.state.update(state["model"])
        return state | {"model": self.state}


class _Cached(_OneDict):
    def __call__(self, *objects):
        self.state = self.state or _deep(*objects)
        return self.state


class _SchedulerKept(_OneDict):
    def __call__(self, *objects):
        state = _deep(*objects)
        self.state = self.state or state["scheduler"]
        return state | {"scheduler": self.state}


_PARTS = ("model", "optimizer", "scheduler", "scaler", "generator")
_RESUME = {
    "deep": (_deep, ""),
    "through a file": (_through_a_file, ""),
    "pickled": (_pickled, ""),
    "cloned by hand, and more": (_by_hand, ""),
    "states of copies": (_of_copies, ""),
    "modes kept": (_modes_kept, ""),
    "keeps all that it saved": (_Keeper(), ""),
    "steps as numbers": (_with(optimizer=_steps_as_numbers), ""),
    "weights through NumPy": (_with(model=_through_numpy), ""),
    "weights in float64": (_with(model=lambda o: {k: t.double() for k, t in o["model"].state_dict().items()}), ""),
    "gradients zeroed": (_zeroes, "changes-the-run"),
    "eval, then train": (_eval_and_train, "changes-the-run"),
    "one dict for all calls": (_OneDict(), "same-dict"),
    "one dict for all weights": (_OneInner(), "same-dict"),
    "cached": (_Cached(), "cached"),
    "schedule of the first call": (_SchedulerKept(), "second-call"),
    "weights rounded": (_changed("model", _rounded), "model-differs"),
    "moments rounded": (_each_entry(_moments_rounded), "optimizer-differs"),
    "step counts live": (_with(optimizer=_counts_live), "optimizer-aliased"),
    "no step counts": (_each_entry(lambda entries: entries.pop("step")), "optimizer-differs"),
    "one step more": (_each_entry(lambda entries: entries["step"].add_(1)), "optimizer-differs"),
    "lr of the beginning": (
        _changed("optimizer", lambda state: state["param_groups"][0].update(lr=0.05)),
        "optimizer-differs",
    ),
    "live": (_all, "model-aliased"),
    "shallow copy": (_shallow, "model-aliased"),
    "shallow copies of each": (_shallow_below, "model-aliased"),
    "optimizer live": (_with(optimizer=lambda o: o["optimizer"].state_dict()), "optimizer-aliased"),
    "optimizer shallow": (_with(optimizer=lambda o: o["optimizer"].state_dict().copy()), "optimizer-aliased"),
    "model live": (_with(model=lambda o: o["model"].state_dict()), "model-aliased"),
    "model detached": (
        _with(model=lambda o: {name: t.detach() for name, t in o["model"].state_dict().items()}),
        "model-aliased",
    ),
    "model on the CPU": (
        _with(model=lambda o: {name: t.cpu() for name, t in o["model"].state_dict().items()}),
        "model-aliased",
    ),
    **{f"no {part}": (_with(**{part: None}), f"no-{part}") for part in _PARTS},
    "weights only": (
        lambda model, optimizer, scheduler, scaler, generator: copy.deepcopy({"model": model.state_dict()}),
        "no-optimizer",
    ),
    "weights and optimizer": (
        lambda *objects: {k: v for k, v in _deep(*objects).items() if k in ("model", "optimizer")},
        "no-scheduler",
    ),
    "the state dict alone": (lambda model, *rest: copy.deepcopy(model.state_dict()), "no-model"),
    "other names": (_other_names, "no-scheduler"),
    "exchanged": (_exchanged, "parts-exchanged"),
    "no buffers": (
        _with(model=lambda o: {name: p.detach().clone() for name, p in o["model"].named_parameters()}),
        "model-does-not-load",
    ),
    "a list of weights": (
        _with(model=lambda o: [p.detach().clone() for p in o["model"].parameters()]),
        "model-does-not-load",
    ),
    "in bfloat16": (_with(model=_half), "model-differs"),
    "the model itself": (_with(model=lambda o: copy.deepcopy(o["model"])), "model-object"),
    "the optimizer itself": (_with(optimizer=lambda o: o["optimizer"]), "optimizer-object"),
    "the scheduler itself": (_with(scheduler=lambda o: o["scheduler"]), "scheduler-object"),
    "the scaler itself": (_with(scaler=lambda o: o["scaler"]), "scaler-object"),
    "the generator itself": (_with(generator=lambda o: o["generator"]), "generator-object"),
    "method not called": (_with(model=lambda o: o["model"].state_dict), "model-not-called"),
    "optimizer's groups alone": (
        _with(optimizer=lambda o: copy.deepcopy(o["optimizer"].state_dict()["param_groups"])),
        "optimizer-does-not-load",
    ),
    "optimizer without state": (
        _with(optimizer=lambda o: copy.deepcopy(o["optimizer"].state_dict()) | {"state": {}}),
        "optimizer-differs",
    ),
    "last epoch": (_with(scheduler=lambda o: o["scheduler"].last_epoch), "scheduler-number"),
    "last lr": (_with(scheduler=lambda o: o["scheduler"].get_last_lr()[0]), "scheduler-number"),
    "schedule's start": (
        _with(scheduler=lambda o: copy.deepcopy(o["scheduler"].state_dict()) | {"last_epoch": 0, "_last_lr": [0.05]}),
        "scheduler-differs",
    ),
    "last epoch in a dict": (
        _with(scheduler=lambda o: {"last_epoch": o["scheduler"].last_epoch}),
        "scheduler-does-not-load",
    ),
    "scale": (_with(scaler=lambda o: o["scaler"].get_scale()), "scaler-number"),
    "scale in a dict": (_with(scaler=lambda o: {"scale": o["scaler"].get_scale()}), "scaler-does-not-load"),
    "scaler without its count": (
        _with(scaler=lambda o: o["scaler"].state_dict() | {"_growth_tracker": 0}),
        "scaler-differs",
    ),
    "fresh scaler": (_with(scaler=lambda o: torch.amp.GradScaler("cpu").state_dict()), "scaler-differs"),
    "seed": (_with(generator=lambda o: o["generator"].initial_seed()), "generator-seed"),
    "global generator": (_with(generator=lambda o: torch.get_rng_state()), "generator-global"),
    "seeded anew": (
        _with(generator=lambda o: torch.Generator().manual_seed(o["generator"].initial_seed()).get_state()),
        "generator-start",
    ),
    "state as a list": (_with(generator=lambda o: o["generator"].get_state().tolist()), "generator-does-not-load"),
    "halves the model": (_halves_the_model, "changes-the-run"),
    "switches to evaluation": (_evaluates, "changes-the-run"),
    "draws": (_draws, "changes-the-run"),
    "steps the scheduler": (_steps, "changes-the-run"),
    "seeds the generator": (_seeds, "changes-the-run"),
    "resets the scale": (_resets_the_scale, "changes-the-run"),
    "bytes": (_bytes, "wrong-result"),
    "a tuple": (lambda *objects: tuple(_deep(*objects).values()), "wrong-result"),
    "nothing": (lambda *objects: None, "wrong-result"),
    "not written": (lambda *objects: (_ for _ in ()).throw(NotImplementedError), "blank"),
    "four arguments": (lambda model, optimizer, scheduler, scaler: {}, "signature"),
}

FUNCTIONS = {"resume_state": _RESUME}
