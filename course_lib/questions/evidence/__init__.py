"""What proves the bank's answers: one small function per claim, run by the tests; a module or two per file of the bank.

A function for a question of kind compute returns the number, in the unit of the question; its arguments are what the
question gives. Every other function returns nothing and asserts. All of it is float64 and elementwise, so the numbers
hold on every processor; production means torch.optim throughout.

Every public function of a module is also here: ``course_lib.questions.evidence.first_step``.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module

FUNCTIONS: dict[str, Callable[..., float | None]] = {}
"""The evidence functions by name."""

for _found in pkgutil.iter_modules(__path__):
    if _found.name.startswith("_"):
        continue
    _module = import_module(f"{__name__}.{_found.name}")
    for _name, _value in inspect.getmembers(_module, inspect.isfunction):
        if _value.__module__ == _module.__name__ and not _name.startswith("_"):
            if _name in FUNCTIONS:
                raise ImportError(
                    f"{_found.name}.py and {FUNCTIONS[_name].__module__} both define {_name}. Rename one."
                )
            FUNCTIONS[_name] = _value
globals().update(FUNCTIONS)
