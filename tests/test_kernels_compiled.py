"""course_lib.kernels.compiled and buffers: torch.optim's AdamW is the reference, also where a buffer could spoil it."""

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.kernels import buffers, compiled
from course_lib.kernels.compiled import CompiledAdamW, FlatAdamW

needs_compiler = pytest.mark.skipif(compiled.unavailable("cpu") is not None, reason="needs a C++ compiler")
HYPER = dict(lr=0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3)
SHAPES = [(3, 4), (7,), (), (0, 5), (1,), (16, 16)]


def uncompiled(params, **hyper):
    return FlatAdamW(params, compile=False, **hyper)


def tensors(shapes, seed=0, dtype=torch.float32):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(np.asarray(rng.standard_normal(shape))).to(dtype) for shape in shapes]


def parameters(shapes=SHAPES, dtype=torch.float32):
    return [torch.nn.Parameter(value) for value in tensors(shapes, dtype=dtype)]


def give(params, seed, missing=()):
    grads = tensors([param.shape for param in params], seed, params[0].dtype)
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        param.grad = None if i in missing else grad


def assert_same(mine, theirs, tol=1e-6):
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tol, atol=tol)


@pytest.mark.parametrize("make", [
    uncompiled, pytest.param(FlatAdamW, marks=needs_compiler), pytest.param(CompiledAdamW, marks=needs_compiler)])
@pytest.mark.parametrize("maximize", [False, True])
def test_many_steps_are_those_of_torch(make, maximize):
    mine, theirs = parameters(), parameters()
    a, b = make(mine, maximize=maximize, **HYPER), torch.optim.AdamW(theirs, maximize=maximize, **HYPER)
    for step in range(12):
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = 0.02 / (step + 1)
        for params in (mine, theirs):
            give(params, step + 1)
        a.step(), b.step()
    assert_same(mine, theirs)
    for p, q in zip(mine, theirs, strict=True):
        assert float(a.state[p]["step"]) == float(b.state[q]["step"]) == 12
        for key in ("exp_avg", "exp_avg_sq"):
            assert_same([a.state[p][key]], [b.state[q][key]])


@needs_compiler
@pytest.mark.parametrize("make", [FlatAdamW, CompiledAdamW])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(make, dtype):
    mine, theirs = parameters(dtype=dtype), parameters(dtype=dtype)
    a, b = make(mine, **HYPER), torch.optim.AdamW(theirs, fused=True, **HYPER)
    for step in range(4):
        for params in (mine, theirs):
            give(params, step + 1)
        a.step(), b.step()
    # bfloat16: one of its 8 bits in a weight or a moment of size up to 4.
    assert_same(mine, theirs, 2**-6 if dtype == torch.bfloat16 else 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_a_parameter_without_a_gradient_is_left_alone_and_does_not_age(rows):
    """Each row says which of four parameters have a gradient at that step: the one call becomes several."""
    shapes = [(3,), (20,), (2, 2), (5,)]
    mine, theirs = parameters(shapes), parameters(shapes)
    a, b = uncompiled(mine, **HYPER), torch.optim.AdamW(theirs, **HYPER)
    for step, row in enumerate(rows):
        for params in (mine, theirs):
            give(params, step, missing=[i for i, there in enumerate(row) if not there])
        a.step(), b.step()
    assert_same(mine, theirs)
    assert [float(a.state[p]["step"]) for p in mine] == [float(sum(column)) for column in zip(*rows, strict=True)]


def test_gradients_stay_in_the_buffer_and_backward_adds_to_them():
    params = parameters([(4, 3), (4,)])
    optimizer = uncompiled(params, **HYPER)
    x = torch.ones(2, 3)
    optimizer.zero_grad()
    assert all(param.grad is None for param in params), "as in torch: what has no gradient gets none"
    (x @ params[0].T + params[1]).sum().backward()
    optimizer.zero_grad()
    addresses = [param.grad.data_ptr() for param in params]
    for _ in range(2):
        (x @ params[0].T + params[1]).sum().backward()
    assert [param.grad.data_ptr() for param in params] == addresses
    torch.testing.assert_close(params[1].grad, torch.full((4,), 4.0))
    optimizer.step()
    optimizer.zero_grad()
    assert [param.grad.data_ptr() for param in params] == addresses
    assert all((param.grad == 0).all() for param in params)
    optimizer.zero_grad(set_to_none=True)
    assert all(param.grad is None for param in params)


@pytest.mark.parametrize("to_none", [False, True])
def test_unwatched_gradients_are_taken_from_the_buffer_only_where_zero_grad_put_them_there(to_none):
    mine, theirs = parameters(), parameters()
    a, b = uncompiled(mine, watch=False, **HYPER), torch.optim.AdamW(theirs, **HYPER)
    for step in range(4):
        a.zero_grad(set_to_none=to_none)
        with torch.no_grad():
            for p, q, grad in zip(mine, theirs, tensors(SHAPES, step), strict=True):
                p.grad = grad.clone() if p.grad is None else p.grad.add_(grad)
                q.grad = grad
        a.step(), b.step()
    assert_same(mine, theirs)
    give(mine, 9), give(theirs, 9)  # without zero_grad before it: the last one that put gradients there is trusted
    if to_none:
        a.step(), b.step()
        assert_same(mine, theirs)


@pytest.mark.parametrize("change", ["none", "one replaced", "all replaced", "one dropped"])
def test_gradients_that_were_exchanged_are_seen(change):
    mine, theirs = parameters(), parameters()
    a, b = uncompiled(mine, **HYPER), torch.optim.AdamW(theirs, **HYPER)
    for step in range(3):
        a.zero_grad()
        with torch.no_grad():
            for p, q, grad in zip(mine, theirs, tensors(SHAPES, step), strict=True):
                p.grad = grad.clone() if p.grad is None else p.grad.add_(grad)
                q.grad = grad
        for i in {"none": [], "one replaced": [5], "all replaced": range(6), "one dropped": [1]}[change]:
            for p in (mine[i], theirs[i]):
                p.grad = None if change == "one dropped" else 2 * p.grad
        a.step(), b.step()
    assert_same(mine, theirs)


def models():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 5), torch.nn.Linear(5, 2))
    return model, copy.deepcopy(model)


def freeze(model, optimizer):
    model[2].weight.requires_grad_(False)


def move_one(model, optimizer):
    model[2].weight.data = model[2].weight.data.clone()


def exchange_gradient_memory(model, optimizer):
    if model[2].weight.grad is not None:
        model[2].weight.grad.data = torch.ones(5, 5)


def own_gradients(model, optimizer):
    for param in model.parameters():
        param.grad = torch.zeros_like(param)


def clear_state(model, optimizer):
    optimizer.state.clear()


def set_back_steps(model, optimizer):
    for state in optimizer.state.values():
        state["step"].zero_()


def shrink_group(model, optimizer):
    optimizer.param_groups[0]["params"] = list(model.parameters())[:4]


@pytest.mark.parametrize("change", [
    freeze, move_one, exchange_gradient_memory, own_gradients, clear_state, set_back_steps, shrink_group])
@pytest.mark.parametrize("before", ["zero_grad", "step"])
def test_what_a_user_does_to_a_model_or_an_optimizer_is_seen(change, before):
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    pair = [(model, make(model.parameters(), **HYPER)) for model, make in
            zip(models(), (uncompiled, torch.optim.AdamW), strict=True)]
    for step in range(5):
        for model, optimizer in pair:
            if step == 2 and before == "zero_grad":
                change(model, optimizer)
            optimizer.zero_grad(set_to_none=False)
            model(x).square().sum().backward()
            if step == 2 and before == "step":
                change(model, optimizer)
            optimizer.step()
    assert_same(pair[0][0].parameters(), pair[1][0].parameters())
    assert all(set(pair[0][1].state[p]) == {"step", "exp_avg", "exp_avg_sq"} for p in pair[0][0][0].parameters())


def test_a_gradient_buffer_that_the_caller_owns_stays_his():
    param = torch.nn.Parameter(torch.zeros(4))
    param.grad = torch.zeros(4)
    optimizer = uncompiled([param], lr=1.0, weight_decay=0.0)
    mine = param.grad
    for _ in range(2):
        mine.fill_(1.0)
        optimizer.step()
    assert param.grad is mine
    torch.testing.assert_close(param.detach(), torch.full((4,), -2.0))


@pytest.mark.parametrize("make", [uncompiled, pytest.param(CompiledAdamW, marks=needs_compiler)])
def test_autograd_is_told_that_the_weights_changed(make):
    model, _ = models()
    optimizer = make(model.parameters(), **HYPER)
    first, second = (model(torch.ones(1, 4)).sum() for _ in range(2))
    first.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        second.backward()


def test_a_step_that_fails_does_not_count(monkeypatch):
    model, _ = models()
    optimizer = uncompiled(model.parameters(), **HYPER)
    give(list(model.parameters()), 1)

    def fails(*_):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(compiled, "adamw_rule", fails)
    with pytest.raises(RuntimeError, match="no kernel"):
        optimizer.step()
    assert {float(state["step"]) for state in optimizer.state.values()} == {0.0}


def test_memory_that_others_use_is_refused():
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    second.weight.data = first.weight.data
    with pytest.raises(ValueError, match="it shares memory with another one. Allowed: memory of its own"):
        uncompiled([*first.parameters(), *second.parameters()])
    shared = torch.nn.Linear(3, 3).share_memory()
    with pytest.raises(ValueError, match="it lies in memory that processes share"):
        uncompiled(shared.parameters())


def test_order_in_memory_is_kept_and_transposed_weights_are_updated():
    def make():
        base = tensors([(4, 6)])[0]
        return [torch.nn.Parameter(base.t()), torch.nn.Parameter(tensors([(5, 9)])[0][:, ::2])]

    for kind in (uncompiled, CompiledAdamW if compiled.unavailable() is None else uncompiled):
        mine, theirs = make(), make()
        a, b = kind(mine, **HYPER), torch.optim.AdamW(theirs, **HYPER)
        for step in range(3):
            for params in (mine, theirs):
                give(params, step)
            a.step(), b.step()
        assert mine[0].stride() == (1, 6)
        assert_same(mine, theirs)


def test_checkpoints_go_both_ways():
    def train(optimizer, params, steps):
        for step in steps:
            give(params, step)
            optimizer.step()

    mine, theirs = parameters(), parameters()
    a, b = uncompiled(mine, **HYPER), torch.optim.AdamW(theirs, **HYPER)
    train(a, mine, range(3)), train(b, theirs, range(3))
    file = io.BytesIO()
    torch.save([a.state_dict(), b.state_dict()], file)
    file.seek(0)
    from_mine, from_theirs = torch.load(file)
    params_a, params_b = [[torch.nn.Parameter(p.detach().clone()) for p in theirs] for _ in range(2)]
    a2, b2 = uncompiled(params_a), torch.optim.AdamW(params_b)
    a2.load_state_dict(from_theirs), b2.load_state_dict(from_mine)
    train(b, theirs, range(3, 6)), train(a2, params_a, range(3, 6)), train(b2, params_b, range(3, 6))
    assert_same(params_a, theirs)
    assert_same(params_b, theirs)
    assert [float(b2.state[p]["step"]) for p in params_b] == [6.0] * len(params_b)


def test_a_copy_of_the_optimizer_goes_on_by_itself():
    model = torch.nn.Linear(3, 2)
    optimizer = uncompiled(model.parameters(), **HYPER)
    give(list(model.parameters()), 1)
    optimizer.step()
    twin_model, twin = copy.deepcopy((model, optimizer))
    before = [p.detach().clone() for p in model.parameters()]
    give(list(twin_model.parameters()), 2)
    twin.step()
    assert_same(model.parameters(), before, 0)
    assert not torch.equal(twin_model.weight, model.weight)
    give(list(model.parameters()), 2)
    optimizer.step()
    assert_same(model.parameters(), twin_model.parameters(), 0)


def test_a_model_that_was_moved_is_taken_in_again():
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    a, b = uncompiled(model.parameters(), **HYPER), torch.optim.AdamW(other.parameters(), **HYPER)
    for step in range(4):
        if step == 2:
            for param in model.parameters():
                param.data = param.data.clone()
        give(list(model.parameters()), step), give(list(other.parameters()), step)
        a.step(), b.step()
    assert_same(model.parameters(), other.parameters())


def test_groups_have_their_own_numbers_and_dtypes_their_own_buffer():
    def make():
        wide, narrow = parameters([(3,), (4,)], torch.float64), parameters([(5,)])
        return [{"params": [wide[0], narrow[0]], "lr": 0.1}, {"params": [wide[1]], "weight_decay": 0.9}]

    mine, theirs = make(), make()
    a, b = uncompiled(mine, **HYPER), torch.optim.AdamW(theirs, **HYPER)
    for optimizer in (a, b):
        params = [param for group in optimizer.param_groups for param in group["params"]]
        for param, grad in zip(params, tensors([(3,), (5,), (4,)], 3), strict=True):
            param.grad = grad.to(param.dtype)
        optimizer.step()
    assert_same([p for g in a.param_groups for p in g["params"]], [p for g in b.param_groups for p in g["params"]])


def test_a_gradient_that_is_nan_spoils_its_own_element_alone():
    params = parameters([(3,), (3,)])
    optimizer = uncompiled(params, **HYPER)
    give(params, 1)
    params[0].grad[1] = torch.nan
    optimizer.step()
    assert torch.cat([p.detach() for p in params]).isnan().tolist() == [False, True, False, False, False, False]


def test_what_is_refused():
    with pytest.raises(ValueError, match="amsgrad: True. Allowed: False; CompiledAdamW has no kernel"):
        CompiledAdamW(parameters(), amsgrad=True)
    with pytest.raises(ValueError, match="empty parameter list"):
        uncompiled([])
    with pytest.raises(ValueError, match="complex64. Allowed: real floating-point"):
        uncompiled([torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="amsgrad: True"):
        uncompiled(parameters()).load_state_dict(torch.optim.AdamW(parameters(), amsgrad=True).state_dict())
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = uncompiled(embedding.parameters())
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"FlatAdamW does not support sparse gradients \(parameter of shape \(4, 2"):
        optimizer.step()
    assert torch.equal(embedding.weight, before)


def test_where_there_is_no_compiler_a_sentence_says_so(monkeypatch):
    from torch._inductor import cpp_builder, exc

    def none():
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    compiled.compiled_rule.cache_clear()
    params = parameters()
    give(params, 1)
    with pytest.raises(RuntimeError, match="needs a C[+][+] compiler on a CPU, and none was found. Install one"):
        CompiledAdamW(params).step()
    compiled.compiled_rule.cache_clear()


@needs_compiler
def test_one_kernel_serves_all_lengths_steps_and_rates():
    torch._dynamo.reset()
    compiled.compiled_rule.cache_clear()
    torch._dynamo.utils.counters.clear()
    params = parameters([(n,) for n in (5, 17, 64, 1000, 1, 0, 2)])
    optimizer = CompiledAdamW(params, **HYPER)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        give(params, step)
        optimizer.step()
    flat = FlatAdamW(parameters(), **HYPER)
    give(flat.param_groups[0]["params"], 1)
    flat.step()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "a length or a number was compiled in"


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(1, 16))
def test_tensors_in_a_buffer_do_not_overlap_and_begin_at_multiples(sizes, align):
    starts, length = buffers.offsets(sizes, align)
    taken = [i for start, size in zip(starts, sizes, strict=True) for i in range(start, start + size)]
    assert len(set(taken)) == sum(sizes) and all(0 <= i < length for i in taken)
    assert all(start % align == 0 for start in [*starts, length])
    assert length < sum(sizes) + align * (len(sizes) + 1)


@pytest.mark.parametrize("numel", [0, 1, 1000, 2**19, 3 * 2**19 + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_buffers_are_zero_writable_and_aligned(numel, dtype):
    first, second = buffers.zeros(numel, 2, dtype)
    for buffer in (first, second):
        assert buffer.shape == (numel,) and buffer.dtype == dtype and not buffer.any()
        assert buffer.data_ptr() % buffers.LINE == 0
    first.fill_(1)
    assert first.sum(dtype=torch.float64) == numel and not second.any()
    del first
    assert not second.any()


def test_large_buffers_are_no_power_of_two_apart():
    starts = [buffer.data_ptr() for buffer in buffers.zeros(2**20, 4)]
    if starts[1] - starts[0] == 2**22 + buffers.GAP:  # on huge pages; elsewhere the allocator decides
        assert len({start % 2**16 // buffers.LINE for start in starts}) == 4


@pytest.mark.parametrize(("tensor", "viewable"), [
    (torch.zeros(3, 4), True), (torch.zeros(3, 4).t(), True), (torch.zeros(2, 3, 4).permute(2, 0, 1), True),
    (torch.zeros(3, 4)[:, ::2], False), (torch.zeros(3, 1).expand(3, 4), False), (torch.zeros(()), True),
    (torch.zeros(0, 3), True), (torch.zeros(6)[2:5], True), (torch.zeros(4, 1).t(), True),
])
def test_memory_order_is_a_view_of_all_elements_or_none(tensor, viewable):
    flat = buffers.memory_order(tensor)
    assert (flat is not None) == viewable
    if viewable:
        flat.fill_(1)
        assert flat.shape == (tensor.numel(),) and (tensor == 1).all()
        assert flat.data_ptr() == tensor.data_ptr()
