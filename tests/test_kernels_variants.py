"""Every way to run a step is the same optimizer on the same numbers."""

import importlib.util

import pytest
import torch

from course_lib.kernels import bench, variants
from course_lib.memory.measure import step_extra
from course_lib.optim import REGISTRY

SHAPES = [(8, 8), (3, 5), (12,), (64, 4)]
# Another algorithm, or a minute of compilation; they are run by hand and by the command.
OTHERS = {"copy", "bitsandbytes-8bit", "torchao-8bit", "torchao-4bit", "torchao-fp8", "torch-compiled"}
RUNNABLE = [(key, name) for key in variants.OPTIMIZERS for name in variants.offered(key)
            if name not in OTHERS and not variants.unavailable(name, key, "cpu")]


@pytest.mark.parametrize(("key", "name"), RUNNABLE)
def test_each_way_takes_the_same_steps(key, name):
    ends = []
    for way in ("naive", name):
        step, optimizer = variants.build(way, key, SHAPES, "cpu")
        for _ in range(3):
            step()
        ends.append([param.detach() for param in optimizer.param_groups[0]["params"]])
    start = bench.parameters(variants.fitting(key, SHAPES), "cpu")
    for mine, theirs, before in zip(*ends, start, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
        assert not torch.equal(mine, before)


def test_with_several_sets_each_call_takes_the_next():
    step, first = variants.build("fused", "adamw", [(4,)], "cpu", sets=3)
    steps = []
    for _ in range(7):
        step()
        steps.append(int(first.state[first.param_groups[0]["params"][0]]["step"]))
    assert steps == [1, 1, 1, 2, 2, 2, 3]


def test_sets_are_as_many_as_overflow_the_cache(monkeypatch):
    monkeypatch.setattr(bench, "cache_bytes", lambda device: 32 * 2**20)
    assert variants.sets_for([(1024, 1024)], "cpu") == 4  # 16 MiB each
    assert variants.sets_for([(8192, 8192)], "cpu") == 1
    assert variants.sets_for([(2,)], "cpu") == 4, "at most"


def test_what_cannot_run_is_said_in_a_sentence(monkeypatch):
    assert variants.unavailable("capturable", "adamw", "cpu") == "capturable: runs on cuda, not on cpu."
    assert "there is none for lion. For lion there are: naive" in variants.unavailable("fused", "lion", "cpu")
    assert "takes float32 and bfloat16" in variants.unavailable("fused", "adamw", "cpu", torch.float16)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert variants.unavailable("torchao-8bit", "adamw", "cpu") == (
        "torchao-8bit: needs the package torchao: pip install 'course_lib[kernels]'")
    assert "pip install 'course_lib[references]'" in variants.unavailable("production", "lion", "cpu")
    assert variants.unavailable("production", "muon", "cpu") is None
    monkeypatch.setattr(variants.compiled, "unavailable", lambda kind: "no compiler.")
    assert variants.unavailable("flat", "adamw", "cpu") == "flat: no compiler."
    with pytest.raises(ValueError, match="flat: no compiler."):
        variants.build("flat", "adamw", SHAPES, "cpu")


def test_muon_takes_the_matrices():
    step, optimizer = variants.build("production", "muon", SHAPES, "cpu")
    step()
    assert [tuple(p.shape) for p in optimizer.param_groups[0]["params"]] == [(8, 8), (3, 5), (64, 4)]
    with pytest.raises(ValueError, match="muon takes matrices only, and among the shapes is none."):
        variants.build("production", "muon", [(5,)], "cpu")


@pytest.mark.parametrize(("name", "nbytes"), [
    ("fused", 0),
    ("for-loop", 2 * 1024 + 48),  # the root of v, the root corrected, and the divisor that the tensor before has left
    ("foreach", 256 + 60 + 48 + 1024),  # the root of v, of all tensors at once
])
def test_temporaries_of_a_step(name, nbytes):
    step, optimizer = variants.build(name, "adamw", SHAPES, "cpu")
    step()
    assert step_extra(optimizer) == nbytes


def test_bfloat16_parameters_are_made_and_stepped():
    step, optimizer = variants.build("fused", "adamw", [(4, 4)], "cpu", torch.bfloat16)
    step()
    (param,) = optimizer.param_groups[0]["params"]
    assert param.dtype == param.grad.dtype == torch.bfloat16


def test_every_optimizer_has_its_naive_way_and_a_copy():
    for key in variants.OPTIMIZERS:
        assert {"naive", "copy"} <= set(variants.offered(key)) and key in REGISTRY
    assert set(variants.DEFAULT) <= set(variants.WAYS)
    with pytest.raises(ValueError, match="Invalid optimizer: 'adam'. Did you mean adamw"):
        variants.offered("adam")
