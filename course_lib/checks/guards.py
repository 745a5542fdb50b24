"""What a candidate must leave alone while it is probed, and what it must not lean on."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import torch

from course_lib.checks.report import Finding

_ALLOWED = ("Optimizer", "ScratchOptimizer")
_FINISHED = ("torch.optim", "course_lib.optim", "pytorch_optimizer", "bitsandbytes.optim", "lion_pytorch")


def production_class(candidate: type) -> str:
    """The name of the finished optimizer that a class is or builds on; empty if there is none."""
    for base in candidate.__mro__:
        if base.__module__.startswith(_FINISHED) and base.__name__ not in _ALLOWED:
            return f"{base.__module__.split('.')[0]}'s own {base.__name__}"
    return ""


def _finished_optimizers() -> dict[type, str]:
    """The optimizers of the packages that are loaded, each with its full name."""
    found = {}
    for package in _FINISHED:
        for name, value in vars(sys.modules[package]).items() if package in sys.modules else ():
            if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and name not in _ALLOWED:
                found.setdefault(value, f"{package}.{name}")
    return found


class Guards:
    """Watches the global state of torch, NumPy and random; :meth:`changes` reports and puts back what was changed."""

    def __init__(self, watch_production: bool) -> None:
        self._watch_production = watch_production
        self._built: list[str] = []
        self._watched: dict[type, Any] = {}

    def __enter__(self) -> Guards:
        if self._watch_production:
            names = _finished_optimizers()
            self._watched = {cls: vars(cls)["__init__"] for cls in names if "__init__" in vars(cls)}
            for cls, init in self._watched.items():
                cls.__init__ = self._telling(init, names[cls])
        self._spaces = {
            "torch": torch,
            "torch.Tensor": torch.Tensor,
            "torch.nn.functional": torch.nn.functional,
            "torch.optim": torch.optim,
        }
        self._functions = {
            name: {k: v for k, v in vars(space).items() if callable(v)} for name, space in self._spaces.items()
        }
        self._remember()
        return self

    def __exit__(self, *_: Any) -> None:
        self.changes()
        for cls, init in self._watched.items():
            cls.__init__ = init

    def _telling(self, init: Any, name: str) -> Any:
        def told(instance: Any, *args: Any, **kwargs: Any) -> None:
            self._built.append(name)
            init(instance, *args, **kwargs)

        return told

    def _remember(self) -> None:
        self._torch_rng = torch.random.get_rng_state()
        self._numpy_rng = np.random.get_state()
        self._random = random.getstate()
        self._dtype = torch.get_default_dtype()
        self._threads = torch.get_num_threads()

    def changes(self) -> list[Finding]:
        """Findings for what was changed since the last call; everything is as before afterwards."""
        findings = []
        numpy_now = np.random.get_state()
        if (
            not torch.equal(self._torch_rng, torch.random.get_rng_state())
            or random.getstate() != self._random
            or numpy_now[2] != self._numpy_rng[2]
            or not np.array_equal(numpy_now[1], self._numpy_rng[1])
        ):
            findings.append(
                Finding(
                    "random-state",
                    "Your code draws from, or seeds, a global random generator: every later draw in the program changes.",
                    "This rule is deterministic. If you must draw, use a torch.Generator of your own.",
                )
            )
            torch.random.set_rng_state(self._torch_rng)
            np.random.set_state(self._numpy_rng)
            random.setstate(self._random)
        if torch.get_default_dtype() != self._dtype:
            findings.append(
                Finding(
                    "default-dtype",
                    f"Your code sets torch's default dtype to {torch.get_default_dtype()} for the whole program.",
                    "Make tensors with zeros_like(p).",
                )
            )
            torch.set_default_dtype(self._dtype)
        if not torch.is_grad_enabled():
            findings.append(
                Finding(
                    "grad-mode",
                    "Your code leaves gradients switched off for the whole program.",
                    "Use torch.no_grad() as a context manager or a decorator, so that it ends.",
                )
            )
            torch.set_grad_enabled(True)
        if torch.get_num_threads() != self._threads:
            findings.append(
                Finding("threads", "Your code changes the number of torch's threads.", "Leave that to the program.")
            )
            torch.set_num_threads(self._threads)
        for name, space in self._spaces.items():
            for key, value in self._functions[name].items():
                now = vars(space).get(key)
                if now is not value and not str(getattr(now, "__module__", "")).startswith(
                    "torch"
                ):  # torch wraps itself
                    findings.append(
                        Finding(
                            "patches-torch",
                            f"Your code replaces {name}.{key} for the whole program.",
                            "Leave torch as it is.",
                        )
                    )
                    setattr(space, key, value)
        if self._built:
            findings.append(
                Finding(
                    "production-optimizer",
                    f"Your code makes a {self._built[0]} and lets it do the work.",
                    "Write the rule yourself.",
                )
            )
            self._built.clear()
        return findings
