"""course_lib.problems.one_pass against torch.optim and autograd, and what it shows of beta2 at small batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.problems.one_pass import one_pass
from course_lib.problems.sparse import rare_features

PROBLEM = rare_features(40, 300, seed=1)


@pytest.mark.parametrize(("beta2", "make"), [
    (None, lambda p, lr: torch.optim.SGD([p], lr)),
    (0.95, lambda p, lr: torch.optim.Adam([p], lr, betas=(0.8, 0.95), eps=1e-6)),
], ids=["sgd", "adam"])
@pytest.mark.parametrize("batch", [1, 7])
def test_each_rate_is_the_run_of_torch(beta2, make, batch):
    rates = np.array([0.03, 0.4])
    mine = one_pass(PROBLEM, 200, batch, rates, beta1=0.8, beta2=beta2, eps=1e-6)
    x, y = PROBLEM.batch(0, 300)
    for lr, loss in zip(rates, mine):
        weights = torch.zeros(40, dtype=torch.float64, requires_grad=True)
        optimizer, steps = make(weights, lr), 200 // batch
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            part = slice(step * batch, (step + 1) * batch)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(x[part] @ weights, y[part]).backward()
            optimizer.step()
        fresh = F.binary_cross_entropy_with_logits(x[200:] @ weights, y[200:]).item()
        assert loss == pytest.approx(fresh, rel=1e-9)


def test_at_batch_one_beta2_must_keep_its_half_life_in_examples():
    """Marek et al. 2025 (2507.07101), here with rare features: 0.95 at batch 64 is 0.95^(1/64) at batch 1."""
    problem, rates = rare_features(300, 6000), np.geomspace(0.003, 1, 9)
    large, short, long = (one_pass(problem, 4000, batch, rates, beta2=beta2).min()
                          for batch, beta2 in ((64, 0.95), (1, 0.95), (1, 0.95 ** (1 / 64))))
    assert short > 1.2 * long and abs(long / large - 1) < 0.15


@pytest.mark.parametrize(("examples", "batch"), [(200, 0), (10, 11), (300, 1), (400, 1)])
def test_sizes_out_of_range_are_named(examples, batch):
    with pytest.raises(ValueError, match="^Invalid sizes: .*Allowed: 1 <= batch <= examples < 300"):
        one_pass(PROBLEM, examples, batch, np.ones(1))
