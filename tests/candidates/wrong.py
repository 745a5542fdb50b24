"""Optimizers whose formula is right and whose conduct is not, for every whole optimizer; each with the code it must earn."""

from __future__ import annotations

import os
import sys

import torch

from candidates.right import OWN, PRODUCTION, TEXTBOOK, PlainLists, _evaluate, _Subclass
from course_lib.checks.specs import SPECS

Named = tuple[type, str]


def conduct(key: str) -> dict[str, Named]:
    """Name -> (class, finding code) of the faulty variants of one optimizer."""
    rule, finished = TEXTBOOK[key], PRODUCTION.get(key, OWN[key])

    class Base(_Subclass):
        KEY = key

        @torch.no_grad()
        def step(self, closure=None):
            loss = _evaluate(closure)
            for group, p, s in self.each():
                self.move(group, p, s)
            return loss

        def move(self, group, p, s):
            p.copy_(self.new(group, p, s, p.grad))

        @staticmethod
        def new(group, p, s, grad):
            s["t"] = s.get("t", 0) + 1
            new, kept = rule(p, grad, s, s["t"], group)
            s.update(kept)
            return new

    class WritesGradient(Base):
        def move(self, group, p, s):
            p.copy_(self.new(group, p, s, p.grad))
            p.grad.mul_(0.5)

    class WritesGradientWithoutDecay(Base):
        """Works on the gradient in place where no weight decay makes a new tensor of it."""

        def move(self, group, p, s):
            p.copy_(self.new(group, p, s, p.grad))
            if group["weight_decay"] == 0:
                p.grad.mul_(0.5)

    class DropsGradient(Base):
        def move(self, group, p, s):
            p.copy_(self.new(group, p, s, p.grad))
            p.grad = None

    class NewStorage(Base):
        def move(self, group, p, s):
            p.data = self.new(group, p, s, p.grad)

    class ReplacesParameter(Base):
        @torch.no_grad()
        def step(self, closure=None):
            loss = _evaluate(closure)
            for group in self.param_groups:
                for index, p in enumerate(group["params"]):
                    if p.grad is not None:
                        group["params"][index] = self.new(group, p, self.state[p], p.grad)
            return loss

    class Freezes(Base):
        def move(self, group, p, s):
            super().move(group, p, s)
            p.requires_grad_(False)

    class NarrowState(Base):
        def move(self, group, p, s):
            new = self.new(group, p, s, p.grad)
            s.update({k: v.float() for k, v in s.items() if isinstance(v, torch.Tensor)})
            p.copy_(new)

    class HalfState(Base):
        def move(self, group, p, s):
            new = self.new(group, p, s, p.grad)
            s.update({k: v.bfloat16().to(p.dtype) for k, v in s.items() if isinstance(v, torch.Tensor)})
            p.copy_(new)

    class NoNoGrad(Base):
        def step(self, closure=None):
            loss = _evaluate(closure)
            for group, p, s in self.each():
                p -= p.detach() - self.new(group, p.detach(), s, p.grad)
            return loss

    class KeepsGraph(Base):
        def step(self, closure=None):
            loss = _evaluate(closure)
            for group, p, s in self.each():
                p.data.copy_(self.new(group, p, s, p.grad + 0 * p))
            return loss

    class NeedsContiguous(Base):
        def move(self, group, p, s):
            p.view(-1).copy_(self.new(group, p.view(-1), s, p.grad.view(-1)))

    class NeedsADimension(Base):
        def move(self, group, p, s):
            p[:] = self.new(group, p, s, p.grad)

    class ClassState(Base):
        memory: dict = {}

        def move(self, group, p, s):
            where = next(i for i, q in enumerate(q for g in self.param_groups for q in g["params"]) if q is p)
            p.copy_(self.new(group, p, self.memory.setdefault(where, {}), p.grad))

    class StateByShape(Base):
        def move(self, group, p, s):
            memory = self.__dict__.setdefault("memory", {})
            p.copy_(self.new(group, p, memory.setdefault(p.shape, {}), p.grad))

    class OneState(Base):
        def move(self, group, p, s):
            s = self.__dict__.setdefault("memory", {})
            if any(isinstance(v, torch.Tensor) and v.shape != p.shape for v in s.values()):
                s.clear()
            p.copy_(self.new(group, p, s, p.grad))

    class HidesState(Base):
        def move(self, group, p, s):
            memory = self.__dict__.setdefault("memory", {})
            p.copy_(self.new(group, p, memory.setdefault(id(p), {}), p.grad))

    class ForgetsHyperParameters(Base):
        def load_state_dict(self, state_dict):
            mine = [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups]
            super().load_state_dict(state_dict)
            for group, hyper in zip(self.param_groups, mine, strict=True):
                group.update(hyper)

    class IgnoresClosure(Base):
        def step(self, closure=None):
            return super().step()

    class ClosureTwice(Base):
        def step(self, closure=None):
            _evaluate(closure)
            return super().step(closure)

    class ClosureWithoutGrad(Base):
        @torch.no_grad()
        def step(self, closure=None):
            loss = closure() if closure is not None else None
            super().step()
            return loss

    class ClosureLate(Base):
        def step(self, closure=None):
            super().step()
            return _evaluate(closure)

    class DropsLoss(Base):
        def step(self, closure=None):
            super().step(closure)

    class UsesUpGenerator(PlainLists):
        """Walks over the parameters once in the constructor and keeps the generator for step."""

        KEY, RULE = key, staticmethod(rule)

        def __init__(self, params, **hyper):
            super().__init__(list(params) if isinstance(params, list) else [], **hyper)

    class NoZeroGrad(PlainLists):
        KEY, RULE = key, staticmethod(rule)
        zero_grad = None

    class ZeroGradDoesNothing(Base):
        def zero_grad(self, set_to_none=True):
            pass

    class SwitchesGradOff(Base):
        def step(self, closure=None):
            loss = super().step(closure)
            torch.set_grad_enabled(False)
            return loss

    class Seeds(Base):
        def step(self, closure=None):
            torch.manual_seed(0)
            return super().step(closure)

    class SetsDefaultDtype(Base):
        def step(self, closure=None):
            torch.set_default_dtype(torch.float64)
            return super().step(closure)

    class PatchesTorch(Base):
        def step(self, closure=None):
            torch.clip = lambda *args: args[0]
            return super().step(closure)

    class Exits(Base):
        def move(self, group, p, s):
            sys.exit(0)

    class EndsProcess(Base):
        def move(self, group, p, s):
            os._exit(0)

    class Raises(Base):
        def move(self, group, p, s):
            raise KeyError("exp_avg")

    class Recurses(Base):
        def move(self, group, p, s):
            self.move(group, p, s)

    class FillsMemory(Base):
        def move(self, group, p, s):
            s["all"] = [torch.ones(10**9) for _ in range(50)]

    class FreezesCorrection(Base):
        """Stops counting after a thousand steps."""

        @staticmethod
        def new(group, p, s, grad):
            s["t"] = s.get("t", 0) + 1
            if s["t"] > 1000:
                return p.clone()
            new, kept = rule(p, grad, s, s["t"], group)
            s.update(kept)
            return new

    class ClampsGradient(Base):
        @staticmethod
        def new(group, p, s, grad):
            return Base.new(group, p, s, grad.clamp(-1000, 1000))

    class OtherDefaults(Base):
        def __init__(self, params, lr=0.5, **hyper):
            super().__init__(params, lr=lr, **hyper)

    class IgnoresMaximize(Base):
        def __init__(self, params, *, maximize=False, **hyper):
            super().__init__(params, **hyper)

    class NoGroups(Base):
        def __init__(self, params, **hyper):
            params = list(params)
            super().__init__(
                [p for g in params for p in g["params"]] if params and isinstance(params[0], dict) else params, **hyper
            )

    class KeepsGradient(Base):
        """The first gradient itself is the first buffer, where no weight decay makes a new tensor of it."""

        @staticmethod
        def new(group, p, s, grad):
            grad = grad if group["weight_decay"] == 0 else grad.add(p, alpha=group["weight_decay"])
            if "b" not in s:
                s["b"] = grad
            else:
                s["b"].mul_(group["momentum"]).add_(grad, alpha=1 - group.get("dampening", 0.0))
            ahead = grad + group["momentum"] * s["b"]
            return p - group["lr"] * (ahead if key == "nesterov" else s["b"])

    class OneTensorForAll(Base):
        @staticmethod
        def new(group, p, s, grad):
            group["memory"] = group.get("memory", 0) + grad
            return Base.new(group, p, s, group["memory"])

    class ForgetsWithoutDecay(Base):
        """Works on the first gradient again and again where there is no weight decay."""

        @staticmethod
        def new(group, p, s, grad):
            first = s.setdefault("first", grad.clone())
            return Base.new(group, p, s, first if group["weight_decay"] == 0 else grad)

    class FloorsSmallGradients(Base):
        @staticmethod
        def new(group, p, s, grad):
            return Base.new(group, p, s, torch.where((grad != 0) & (grad.abs() < 1e-5), 1e-5, grad))

    def freezing(name):
        class Freezes(Base):
            """Reads one hyper-parameter at the first step of each parameter only."""

            @staticmethod
            def new(group, p, s, grad):
                return Base.new({**group, name: s.setdefault(name, group[name])}, p, s, grad)

        Freezes.__name__ = f"Freezes {name}"
        return Freezes, f"{name.replace('_', '-')}-frozen"

    class WrapsProduction(_Subclass):
        KEY = key

        def __init__(self, params, **hyper):
            super().__init__(params, **hyper)
            self.inner = finished(self.param_groups)

        def step(self, closure=None):
            return self.inner.step(closure)

    class BuildsOnProduction(finished):
        pass

    table = [
        (WritesGradient, "gradient-written"),
        (WritesGradientWithoutDecay, "gradient-written"),
        (DropsGradient, "gradient-cleared"),
        (NewStorage, "storage-replaced"),
        (ReplacesParameter, "does-not-move"),
        (Freezes, "not-a-leaf"),
        (NarrowState, "precision"),
        (HalfState, "low-precision"),
        (OneTensorForAll, "state-shared"),
        (ForgetsWithoutDecay, "without-decay"),
        (FloorsSmallGradients, "at-defaults"),
        *(freezing(name) for name in SPECS[key].groups[0] if name != "lr"),
        (NoNoGrad, "needs-no-grad"),
        (KeepsGraph, "graph-kept"),
        (NeedsContiguous, "needs-contiguous"),
        (NeedsADimension, "raises"),
        (ClassState, "instances-share-state"),
        (StateByShape, "state-shared"),
        (OneState, "state-shared"),
        (HidesState, "resume"),
        (ForgetsHyperParameters, "resume-hyper-parameters"),
        (IgnoresClosure, "closure-ignored"),
        (ClosureTwice, "closure-repeated"),
        (ClosureWithoutGrad, "closure-no-grad"),
        (ClosureLate, "closure-late"),
        (DropsLoss, "closure-loss"),
        (UsesUpGenerator, "generator"),
        (NoZeroGrad, "no-zero-grad"),
        (ZeroGradDoesNothing, "zero-grad"),
        (SwitchesGradOff, "grad-mode"),
        (Seeds, "random-state"),
        (SetsDefaultDtype, "default-dtype"),
        (PatchesTorch, "patches-torch"),
        (Exits, "exits"),
        (EndsProcess, "ended-process"),
        (Raises, "raises"),
        (Recurses, "endless"),
        (FillsMemory, "memory"),
        (FreezesCorrection, "long-run"),
        (ClampsGradient, "edge"),
        (OtherDefaults, "defaults"),
        (IgnoresMaximize, "maximize"),
        (NoGroups, "no-param-groups"),
        (WrapsProduction, "production-optimizer"),
        (BuildsOnProduction, "production-optimizer"),
    ]
    if key in ("momentum", "nesterov"):
        table.append((KeepsGradient, "gradient-kept"))
    return {cls.__name__: (cls, code) for cls, code in table}
