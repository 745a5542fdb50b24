"""course_lib.kernels.trace: counts by hand arithmetic, times that add up, and a stderr that stays clean."""

from __future__ import annotations

import os
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType

from course_lib.kernels import bench, compiled, trace
from course_lib.kernels.trace import Profile, Row, kind_of, profile_step, rows_of
from course_lib.optim import AdamW

SHAPES = [(64, 3), (7,), (1000,), (5, 2, 2)]


def steps(shapes, **hyper):
    return bench.step_variants(shapes, "cpu", own=AdamW, lr=1e-3, **hyper)


# What is counted


@pytest.mark.parametrize("tensors", [1, 4])
def test_a_for_loop_runs_eight_operations_a_tensor_and_fused_one_in_all(tensors):
    """mul (decay), lerp (m), mul and addcmul (v), sqrt, div, add (eps), addcdiv; the counts of the evidence."""
    ways = steps(SHAPES[:tensors])
    loop = profile_step(ways["for-loop"], "cpu")
    each = {"mul_": 2, "lerp_": 1, "addcmul_": 1, "sqrt": 1, "div": 1, "add_": 1, "addcdiv_": 1}
    assert loop.counts == {name: count * tensors for name, count in each.items()}
    order = ["mul_", "lerp_", "mul_", "addcmul_", "sqrt", "div", "add_", "addcdiv_"]
    assert [row.name for row in loop.rows] == order * tensors
    assert profile_step(ways["fused"], "cpu").counts == {"_fused_adamw_": 1}


def test_foreach_on_the_cpu_runs_one_operation_after_the_other_over_all_tensors():
    rows = profile_step(steps(SHAPES)["foreach"], "cpu").rows
    assert len(rows) == 8 * len(SHAPES)
    for first in range(0, len(rows), len(SHAPES)):
        assert len({row.name for row in rows[first : first + len(SHAPES)]}) == 1


def test_the_naive_step_runs_twelve_a_tensor():
    """decay; m: mul, add; v: mul, addcmul; both corrections: two div; times lr, sqrt, plus eps, div, sub."""
    found = profile_step(steps(SHAPES)["from scratch"], "cpu")
    assert len(found.rows) == 12 * len(SHAPES)
    assert found.counts["div"] == 3 * len(SHAPES) and found.counts["sqrt"] == len(SHAPES)


@pytest.mark.skipif(compiled.unavailable("cpu") is not None, reason="torch.compile has no C++ compiler here")
def test_a_compiled_step_is_one_row():
    ways = steps([(300,)])
    rule = torch.compile(lambda p, g: p.sub_(g * 0.1 + g.sqrt()))
    param, grad = torch.ones(300), torch.ones(300)
    found = profile_step(lambda: rule(param, grad), "cpu")
    assert found.counts == {"compiled graph": 1} and found.rows[0].kind == "whole rule"
    assert found.rows[0].duration_us > 0 and found.idle_share == 0
    mixed = profile_step(lambda: (rule(param, grad), ways["fused"]()), "cpu")
    assert [row.name for row in mixed.rows] == ["compiled graph", "_fused_adamw_"]


def test_wrappers_views_allocations_and_scalars_are_no_rows():
    x, count = torch.ones(6, 4), torch.tensor(0.0)

    def step():
        count.add_(1)  # one element
        y = x.clone()  # counts as its copy_
        y.t(), y.view(-1), y.detach(), y.expand(2, 6, 4), y.to(torch.float32), y.contiguous(), y.unbind(), y[1:, 2], y.split(2)
        torch.empty_like(y), y.new_empty(9), torch.empty(3).resize_(8), y[0, 0].item()
        torch.zeros_like(y)  # counts as the fill in it
        return torch.nn.functional.linear(y, y)  # counts as the product in it

    assert [row.kind for row in profile_step(step, "cpu").rows] == ["copy", "copy", "matmul"]


def test_an_operation_is_counted_in_lists_too():
    lists = [[torch.ones(3), torch.ones(4)], [torch.ones(1), torch.ones(())]]
    assert len(profile_step(lambda: [torch._foreach_add_(some, 1) for some in lists], "cpu").rows) == 2


def test_a_step_is_called_as_often_as_said_and_only_the_last_call_counts():
    calls = []

    def step():
        calls.append(1)
        return torch.ones(5) + torch.ones(5) if len(calls) < 3 else torch.ones(5).sqrt()

    assert "sqrt" in profile_step(step, "cpu", warmup=2).counts and len(calls) == 3
    assert "add" not in profile_step(step, "cpu", warmup=1).counts and len(calls) == 5


# Times


def event(name, start, end, *, parent=None, device=DeviceType.CPU, shapes=((9,),), note=False, **more):
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    return SimpleNamespace(name=name, time_range=span, cpu_parent=parent, device_type=device,
                           input_shapes=list(shapes), is_user_annotation=note, **more)


def test_rows_start_at_the_first_one_and_stand_in_order():
    rows = profile_step(steps(SHAPES)["for-loop"], "cpu").rows
    assert rows[0].start_us == 0 and all(row.duration_us > 0 for row in rows)
    assert [row.start_us for row in rows] == sorted(row.start_us for row in rows)
    late = [event("aten::sqrt", 30.0, 34.0), event("aten::mul_", 10.0, 12.5)]
    assert rows_of(late) == (Row("mul_", 0.0, 2.5, "multiply"), Row("sqrt", 20.0, 4.0, "root"))


def test_span_busy_and_idle_by_hand():
    """0 to 2, 1 to 4 and 6 to 8: six of eight microseconds."""
    found = Profile(tuple(Row("a", start, end - start, "other") for start, end in ((0, 2), (1, 4), (6, 8))), "cuda")
    assert (found.span_us, found.busy_us, found.idle_share) == (8, 6, 0.25)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=12))
def test_busy_time_counts_each_moment_once(pairs):
    rows = tuple(Row("a", start, length, "other") for start, length in sorted(pairs))
    moments = {moment for start, length in pairs for moment in range(start, start + length)}
    found = Profile(rows, "cpu")
    assert found.busy_us == len(moments) and 0 <= found.idle_share <= 1


def test_a_step_that_does_nothing_has_no_rows():
    found = profile_step(lambda: None, "cpu")
    assert (found.rows, found.counts, found.span_us, found.busy_us, found.idle_share) == ((), {}, 0, 0, 0)


# CUDA, and a torch that records less


def test_on_cuda_the_rows_are_what_ran_on_the_device():
    cuda = {"device": DeviceType.CUDA, "shapes": ()}
    kernel = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>(int)"
    events = [
        event("aten::add_", 0.0, 9.0), event("cudaLaunchKernel", 2.0, 3.0), event(kernel, 12.0, 14.0, **cuda),
        event("Optimizer.step#AdamW.step", 10.0, 40.0, note=True, **cuda),
        event("Memcpy DtoD (Device -> Device)", 20.0, 25.0, **cuda),
    ]
    rows = rows_of(events, "cuda")
    assert [row[1:] for row in rows] == [(0.0, 2.0, "add"), (8.0, 5.0, "copy")] and rows[0].name == kernel
    assert [row.name for row in rows_of(events)] == ["add_"]


def test_without_shapes_of_lists_a_fused_step_still_counts():
    outer = event("aten::_fused_adamw_", 0.0, 9.0, shapes=[[], []])
    inner = event("aten::item", 1.0, 2.0, shapes=[[]], parent=outer)
    assert [row.name for row in rows_of([outer, inner])] == ["_fused_adamw_"]


def test_what_a_compiled_graph_holds_is_in_its_row():
    graph = event("## Call CompiledFxGraph fabc ##", 1.0, 9.0, shapes=(), note=True)
    inside = event("aten::mm", 2.0, 5.0, parent=graph)
    assert rows_of([graph, inside]) == (Row("compiled graph", 0.0, 8.0, "whole rule"),)


@pytest.mark.parametrize(("name", "kind"), [
    ("mul_", "multiply"), ("sub_", "add"), ("addcdiv_", "multiply-add"), ("lerp_", "multiply-add"), ("rsqrt", "root"),
    ("div", "divide"), ("addmm", "matmul"), ("mm", "matmul"), ("linalg_vector_norm", "sum"), ("normal_", "other"),
    ("zero_", "copy"), ("_fused_adamw_", "whole rule"), ("compiled graph", "whole rule"), ("sign", "other"),
    ("_foreach_mul_", "multiply"), ("triton_poi_fused_add_0", "whole rule"),
    ("multi_tensor_apply_kernel<TensorListMetadata<2>, UnaryOpFunctor<float, 2>, Sqrt<float>>", "root"),
    ("multi_tensor_apply_kernel<TensorListMetadata<1>, BinaryOpScalarFunctor<float>, std::multiplies<float>>",
     "multiply"),
    ("multi_tensor_apply_kernel<TensorListMetadata<3>, PointwiseOpScalarFunctor<float>, std::divides<float>>",
     "multiply-add"),
    ("multi_tensor_apply_kernel<FusedOptimizerTensorListMetadata<4>, FusedAdamMathFunctor<float, 4>>", "whole rule"),
    ("sm90_xmma_gemm_bf16bf16_bf16f32", "matmul"),
])
def test_a_name_tells_the_kind(name, kind):
    assert kind_of(name) == kind


# Around the step


def test_nothing_of_the_profiler_reaches_stderr_and_the_steps_own_words_do(capfd):
    def step():
        print("mine", file=sys.stderr)
        warnings.warn("careful", stacklevel=1)

    with pytest.warns(UserWarning, match="careful"):
        profile_step(step, "cpu", warmup=1)
    out, err = capfd.readouterr()
    assert out == "" and [line for line in err.splitlines() if "mine" not in line] == [] and err.count("mine") == 2


def test_only_lines_of_the_profilers_log_are_held_back(capfd):
    with trace._quiet():
        os.write(2, b"USDT:2026-01-31 12:00:00 7:7 SyncActivityProfilerHandler.cpp:52] profiler_start\n")
        os.write(2, b"another thread's words\n")
    os.write(2, b"and more\n")
    assert capfd.readouterr().err == "another thread's words\nand more\n"


def test_without_a_stderr_it_works_too(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert profile_step(lambda: torch.ones(4).sqrt(), "cpu").counts["sqrt"] == 1


def test_an_error_in_the_step_is_the_callers_and_leaves_no_profiler_running(capfd):
    def step():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        profile_step(step, "cpu", warmup=1)
    assert profile_step(lambda: torch.ones(4).sqrt(), "cpu").counts["sqrt"] == 1
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


@pytest.mark.parametrize(("call", "said"), [
    ({"device": "mps"}, "Invalid device: 'mps'. Allowed: 'cpu', 'cuda'"), ({"warmup": 0}, "Invalid warmup: 0. All"),
    ({"warmup": True}, "Invalid warmup: True"), ({"warmup": 1.5}, "Invalid warmup: 1.5"),
])
def test_a_wrong_value_is_named_with_what_is_allowed(call, said):
    with pytest.raises(ValueError, match=said):
        profile_step(lambda: pytest.fail("not called"), **{"device": "cpu"} | call)


def test_a_torch_without_its_profiler_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.autograd, "kineto_available", lambda: False)
    with pytest.raises(RuntimeError, match="built without its profiler"):
        profile_step(lambda: pytest.fail("not called"), "cpu")
