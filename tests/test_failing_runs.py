"""The failing runs fail as they say, their logs are those of the runs, and the replay names each fault."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.problems import failing_runs
from course_lib.problems.failing_runs import BAD_STEP, FAULTS, JUMP, SATURATED


@pytest.fixture(scope="module")
def runs() -> dict[str, failing_runs.Run]:
    return {fault: failing_runs.run(fault, steps=BAD_STEP + 8) for fault in FAULTS}


@pytest.fixture(scope="module")
def findings(runs) -> dict[str, failing_runs.Finding]:
    return {fault: failing_runs.diagnose(run) for fault, run in runs.items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_replay_names_the_fault(findings, fault):
    assert findings[fault].verdict == fault


def test_which_link_breaks_first(runs, findings):
    assert findings["division"].first == "loss" and findings["overflow"].first == "gradient"
    assert findings["attention"].first is findings["bad batch"].first is findings["sound"].first is None
    overflow = runs["overflow"]
    assert math.isfinite(overflow.loss[BAD_STEP]) and math.isinf(overflow.grad_norm[BAD_STEP])
    assert np.isnan(overflow.loss[BAD_STEP + 1 :]).all() and np.isfinite(overflow.loss[: BAD_STEP + 1]).all()


def test_too_high_a_rate_grows_by_factors_and_ends_early(runs):
    lengths = runs["rate"].update
    end = int((~np.isfinite(lengths)).argmax())
    assert 3 < end < 20 and lengths[end - 1] > 20 * lengths[0]
    assert runs["rate"].at <= end


def test_a_bad_batch_is_one_jump_of_loss_and_gradient_at_once(runs, findings):
    run = runs["bad batch"]
    assert run.at == BAD_STEP and findings["bad batch"].jump > JUMP
    assert run.loss[BAD_STEP] > run.loss[BAD_STEP - 5 : BAD_STEP].max() + 1
    assert run.loss[BAD_STEP + 2] < run.loss[BAD_STEP] - 1
    assert findings["sound"].jump < JUMP and findings["sound"].logit < SATURATED / 5


def test_runs_are_one_run_until_the_fault(runs):
    for name in ("bad batch", "division"):
        np.testing.assert_array_equal(runs[name].loss[:BAD_STEP], runs["sound"].loss[:BAD_STEP])
    assert (runs["attention"].loss[1:BAD_STEP] != runs["sound"].loss[1:BAD_STEP]).all()


def test_the_log_is_that_of_the_kept_weights_and_batch(runs):
    run = runs["bad batch"]
    model = failing_runs.ByteLM(failing_runs.CONFIG)
    model.load_state_dict(run.weights)
    loss = failing_runs.masked_mean(model, run.batch, run.counted)
    assert loss.item() == pytest.approx(run.loss[run.at], rel=1e-5)
    loss.backward()
    norm = math.sqrt(sum(param.grad.double().square().sum().item() for param in model.parameters()))
    assert norm == pytest.approx(run.grad_norm[run.at], rel=1e-4)
    assert not runs["division"].counted.any() and run.counted.all()


def test_series_are_the_columns():
    columns = [np.arange(3.0) + k for k in range(4)]
    drawn = failing_runs.Run(*columns).series()
    assert [values is column for values, column in zip(drawn.values(), columns)] == [True] * 4


def test_jumps_are_ratios_to_what_came_before():
    norms = np.ones(40)
    norms[30] = 8.0
    ratios = failing_runs.jumps(norms)
    assert ratios[30] == 8 and np.delete(ratios, 30).max() == 1
    assert (failing_runs.jumps(np.array([1.0, 50.0, 1.0])) == 1).all()


def test_the_first_module_with_a_nan_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 1))
    x = torch.ones(1, 2)
    assert failing_runs.first_nonfinite(model, lambda: model(x)) is None
    with torch.no_grad():
        model[1][0].bias[0] = math.inf
    assert failing_runs.first_nonfinite(model, lambda: model(x)) == "1.0"
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        failing_runs.first_nonfinite(model, lambda: model(torch.ones(1, 3)))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("arguments", "said"), [
    (("overflw",), "Did you mean 'overflow'?"), (("rate", BAD_STEP), f"a whole number > {BAD_STEP}"),
    (("rate", True), "Invalid steps: True"), ((None,), "Invalid fault: None"),
])
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments, said):
    with pytest.raises(ValueError) as error:
        failing_runs.run(*arguments)
    assert said in str(error.value)
