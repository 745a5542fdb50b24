"""The training loop against loops written out with torch alone."""

import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.train import History, pick_device, train


def make_model(seed: int = 0) -> torch.nn.Module:
    rng = np.random.default_rng(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.from_numpy(rng.normal(size=tuple(param.shape))))
    return model


def make_batches(sizes, seed: int = 1):
    rng = np.random.default_rng(seed)
    return [(torch.from_numpy(rng.normal(size=(n, 3))), torch.from_numpy(rng.normal(size=(n, 1)))) for n in sizes]


def mse(model, batch):
    x, y = batch
    return F.mse_loss(model(x), y)


def mse_and_count(model, batch):
    return mse(model, batch), len(batch[0])


def run(model, optimizer, batches, **options):
    return train(model, optimizer, batches, **(dict(loss_fn=mse, device="cpu", progress=False) | options))


def assert_same_weights(model, other, rtol=1e-12):
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=rtol, msg=name)


def test_a_plain_run_equals_the_loop_everyone_writes():
    batches = make_batches([4] * 6)
    model, other = make_model(), make_model()
    history = run(model, torch.optim.AdamW(model.parameters(), lr=0.05), iter(batches))
    optimizer, losses, norms = torch.optim.AdamW(other.parameters(), lr=0.05), [], []
    for batch in batches:
        optimizer.zero_grad()
        loss = mse(other, batch)
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.cat([p.grad.flatten() for p in other.parameters()]).norm().item())
        optimizer.step()
    assert_same_weights(model, other, rtol=0)
    np.testing.assert_array_equal(history.loss, losses)
    np.testing.assert_allclose(history.grad_norm, norms, rtol=1e-12)
    np.testing.assert_array_equal(history.lr, [0.05] * 6)
    assert len(history) == 6 and history.stopped is None
    assert history.loss.dtype == history.grad_norm.dtype == history.lr.dtype == np.float64


@given(st.lists(st.integers(1, 7), min_size=1, max_size=7), st.integers(1, 4))
@settings(derandomize=True, max_examples=40, deadline=None)
def test_accumulation_equals_the_big_batch_whatever_the_sizes(sizes, accumulate):
    batches = make_batches(sizes)
    groups = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    big = [tuple(torch.cat(parts) for parts in zip(*group)) for group in groups]
    model, other = make_model(), make_model()
    history = run(
        model, torch.optim.SGD(model.parameters(), lr=0.01), batches, loss_fn=mse_and_count, accumulate=accumulate
    )
    expected = run(other, torch.optim.SGD(other.parameters(), lr=0.01), big)
    assert_same_weights(model, other)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-12)
    np.testing.assert_allclose(history.grad_norm, expected.grad_norm, rtol=1e-11)


def test_without_counts_accumulation_is_the_mean_of_means():
    batches = make_batches([1, 7])
    model, other = make_model(), make_model()
    run(model, torch.optim.SGD(model.parameters(), lr=0.1), batches, accumulate=2)
    (sum(mse(other, batch) for batch in batches) / 2).backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert_same_weights(model, other)
    counted = make_model()
    run(counted, torch.optim.SGD(counted.parameters(), lr=0.1), batches, loss_fn=mse_and_count, accumulate=2)
    assert (counted[0].weight - model[0].weight).abs().max() > 1e-3


def test_a_count_changes_nothing_without_accumulation():
    batches = make_batches([3, 5, 7])
    model, other = make_model(), make_model()
    run(model, torch.optim.Adam(model.parameters()), batches, loss_fn=mse_and_count)
    run(other, torch.optim.Adam(other.parameters()), batches)
    assert_same_weights(model, other, rtol=0)


@pytest.mark.parametrize("clip", [0.1, 1.0, 1e6])
def test_clip_equals_clip_grad_norm(clip):
    batches = make_batches([4] * 5)
    model, other = make_model(), make_model()
    history = run(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), batches, clip=clip)
    optimizer, norms = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9), []
    for batch in batches:
        optimizer.zero_grad()
        mse(other, batch).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(other.parameters(), clip).item())
        optimizer.step()
    assert_same_weights(model, other)
    np.testing.assert_allclose(history.grad_norm, norms, rtol=1e-12)


def test_the_gradient_is_clipped_after_it_is_accumulated():
    batches = make_batches([2, 6])
    model, other = make_model(), make_model()
    run(model, torch.optim.SGD(model.parameters(), lr=1.0), batches, loss_fn=mse_and_count, accumulate=2, clip=0.05)
    x, y = (torch.cat(parts) for parts in zip(*batches))
    F.mse_loss(other(x), y).backward()
    torch.nn.utils.clip_grad_norm_(other.parameters(), 0.05)
    torch.optim.SGD(other.parameters(), lr=1.0).step()
    assert_same_weights(model, other)


def test_schedule_equals_lambda_lr_in_every_group():
    batches = make_batches([4] * 8)

    def warmup(step):
        return min(1.0, (step + 1) / 4)

    def groups_of(model):
        return [dict(params=model[0].parameters(), lr=0.3), dict(params=model[2].parameters(), lr=0.02)]

    model, other = make_model(), make_model()
    mine = torch.optim.SGD(groups_of(model))
    history = run(model, mine, batches, schedule=warmup)
    theirs, lrs = torch.optim.SGD(groups_of(other)), []
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, warmup)
    for batch in batches:
        theirs.zero_grad()
        mse(other, batch).backward()
        lrs.append(scheduler.get_last_lr()[0])
        theirs.step()
        scheduler.step()
    assert_same_weights(model, other)
    np.testing.assert_allclose(history.lr, lrs, rtol=1e-15)


def test_the_groups_have_their_learning_rates_back_even_after_an_error():
    model = make_model()
    optimizer = torch.optim.SGD([dict(params=model[0].parameters(), lr=0.3), dict(params=model[2].parameters(), lr=0.02)])
    run(model, optimizer, make_batches([2, 2]), schedule=lambda step: 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.02]

    def broken(step, history):
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        run(model, optimizer, make_batches([2, 2]), schedule=lambda step: 0.5, callback=broken)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.02]


def test_callback_sees_every_step_and_the_history_so_far():
    seen = []
    model = make_model()
    history = run(
        model, torch.optim.SGD(model.parameters(), lr=0.01), make_batches([2] * 5), accumulate=2,
        callback=lambda step, so_far: seen.append((step, len(so_far), so_far.loss[-1])),
    )
    assert seen == [(0, 1, history.loss[0]), (1, 2, history.loss[1]), (2, 3, history.loss[2])]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_spoilt(bad):
    batches = make_batches([4] * 5)
    batches[3] = (batches[3][0], torch.full((4, 1), bad, dtype=torch.float64))
    model, other = make_model(), make_model()
    history = run(model, torch.optim.Adam(model.parameters()), batches)
    run(other, torch.optim.Adam(other.parameters()), batches[:3])
    assert_same_weights(model, other, rtol=0)
    assert len(history) == 3 and np.isfinite(history.loss).all()
    assert history.stopped.startswith(f"Stopped at step 3: the loss is {bad}.")
    assert "learning rate" in history.stopped


def test_a_gradient_that_is_not_finite_stops_too():
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.zero_()
    # The slope of sqrt at 0 is infinite though its value is finite.
    history = run(
        model, torch.optim.SGD(model.parameters(), lr=0.1), [torch.ones(1, 1)],
        loss_fn=lambda m, x: m(x).abs().sqrt().sum(),
    )
    assert len(history) == 0 and model.weight.item() == 0.0
    assert "step 0: the gradient norm is" in history.stopped


def test_a_divergent_run_says_so():
    model = make_model()
    history = run(model, torch.optim.SGD(model.parameters(), lr=1e6), make_batches([4] * 200))
    assert 0 < len(history) < 200 and history.stopped
    assert all(torch.isfinite(param).all() for param in model.parameters())


def test_parameters_without_gradient_are_left_alone():
    model = make_model()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    history = run(model, torch.optim.SGD(model.parameters(), lr=0.1), make_batches([3, 3]), accumulate=2, clip=1.0)
    assert torch.equal(model[0].weight, before) and len(history) == 1


def test_batches_of_any_shape_reach_the_loss_on_the_device():
    Pair = namedtuple("Pair", "x y")
    x, y = make_batches([2])[0]
    got = []

    def loss_fn(model, batch):
        got.append(batch)
        return model(x.to("cpu")).sum()

    model = make_model()
    made = [dict(x=x, name="first"), [x, (y, 3)], Pair(x, y)]
    run(model, torch.optim.SGD(model.parameters(), lr=0.1), made, loss_fn=loss_fn)
    assert got[0]["name"] == "first" and got[0]["x"].device.type == "cpu"
    assert isinstance(got[1], list) and got[1][1][1] == 3
    assert isinstance(got[2], Pair) and torch.equal(got[2].y, y)


def test_everything_moves_to_the_device_that_was_named():
    # The meta device stands for any other one: what happens there leaves no numbers, so the loss is made here.
    model = make_model()
    places = []

    def loss_fn(model, batch):
        places.append((batch[0].device.type, next(model.parameters()).device.type))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(model, torch.optim.SGD(model.parameters(), lr=0.1), make_batches([2]), device="meta", loss_fn=loss_fn)
    assert places == [("meta", "meta")]


def test_the_model_trains_in_training_mode():
    model = make_model().eval()
    modes = []
    run(
        model, torch.optim.SGD(model.parameters(), lr=0.1), make_batches([2]),
        loss_fn=lambda m, batch: (modes.append(m.training), mse(m, batch))[1],
    )
    assert modes == [True]


def test_the_bar_goes_to_stderr_and_only_when_wanted(capsys):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run(model, optimizer, make_batches([2] * 5), accumulate=2)
    assert capsys.readouterr() == ("", "")
    run(model, optimizer, make_batches([2] * 5), accumulate=2, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err and "loss" in err


def test_without_tqdm_the_run_goes_on_without_a_bar(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    model = make_model()
    history = run(model, torch.optim.SGD(model.parameters(), lr=0.01), make_batches([2]), progress=True)
    assert len(history) == 1 and capsys.readouterr() == ("", "")


def test_importing_the_loop_imports_no_pictures():
    code = "import sys, course_lib.train; print(sorted({'matplotlib', 'IPython'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(accumulate=0), "Invalid accumulate: 0"),
        (dict(accumulate=2.0), "Invalid accumulate: 2.0"),
        (dict(clip=0.0), "Invalid clip: 0.0"),
        (dict(clip=float("nan")), "Invalid clip: nan"),
        (dict(loss_fn=lambda m, b: m(b[0]).squeeze()), r"Invalid loss from loss_fn: shape \(4,\)"),
        (dict(loss_fn=lambda m, b: 1.0), "Invalid loss from loss_fn: float"),
        (dict(loss_fn=lambda m, b: (mse(m, b), 0)), "Invalid count from loss_fn: 0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    model = make_model()
    with pytest.raises(ValueError, match=message):
        run(model, torch.optim.SGD(model.parameters(), lr=0.1), make_batches([4]), **options)


def test_a_generator_read_twice_is_told():
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = iter(make_batches([2]))
    run(model, optimizer, batches)
    with pytest.raises(ValueError, match="read only once"):
        run(model, optimizer, batches)


def test_pick_device_names_what_there_is():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_an_empty_history_has_empty_columns():
    history = History()
    assert history.loss.shape == history.grad_norm.shape == history.lr.shape == (0,)
