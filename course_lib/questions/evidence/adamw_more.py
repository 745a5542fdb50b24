"""More evidence for ``bank/adamw.yaml``: reported bugs of weight decay, parameter groups, fine-tuning."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from course_lib.questions.evidence._feed import ADAM, ADAMW, both_versions, normal, path_of


def _run(adam_step, start: float, grads: np.ndarray, lr: float, weight_decay: float) -> np.ndarray:
    """Weights (T + 1, n) of a step function of the bank that is fed the gradients (T, n)."""
    weight = torch.full((grads.shape[1],), start, dtype=torch.float64)
    m, v, path = torch.zeros_like(weight), torch.zeros_like(weight), [weight.numpy().copy()]
    for t, grad in enumerate(grads, start=1):
        adam_step(weight, torch.tensor(grad), m, v, t, lr, weight_decay)
        path.append(weight.numpy().copy())
    return np.stack(path)


def decay_of_the_new_weight() -> None:
    """The bank's code decays what the step has already moved: each step is too short by the factor 1 - lr * wd.

    10% at lr 0.1 and wd 1, 0.003% at 3e-4 and 0.1. At a constant lr it is torch's AdamW with a slightly smaller step.
    """
    grads = normal(100, 4)
    for lr, wd in ((0.1, 1.0), (3e-4, 0.1)):
        versions = both_versions("adamw-bug-late-decay", "adamw_step")
        paths = {name: _run(step, 2.0, grads, lr, wd) for name, step in versions.items()}
        expected = path_of(ADAMW, np.full(4, 2.0), grads, lr=lr, weight_decay=wd)
        np.testing.assert_allclose(paths["fixed"], expected, rtol=0, atol=1e-12)
        step = {name: 2.0 * (1 - lr * wd) - path[1] for name, path in paths.items()}
        np.testing.assert_allclose(step["code"], (1 - lr * wd) * step["fixed"], rtol=1e-8)
        shorter = path_of(ADAMW, np.full(4, 2.0), grads, lr=lr * (1 - lr * wd), weight_decay=wd / (1 - lr * wd))
        np.testing.assert_allclose(paths["code"], shorter, rtol=0, atol=1e-12)
    assert round(3e-4 * 0.1 * 100, 4) == 0.003


def fused_adam_decays_apart() -> None:
    """The bank's kernel is torch's AdamW where Adam was promised; with weight_decay 0 nobody can tell.

    A weight of 1 without gradient, 100 steps at lr 1e-3, wd 0.01: Adam takes off about 0.1, the kernel 0.001.
    """
    grads, zeros = normal(100, 4), np.zeros((100, 4))
    versions = both_versions("adamw-bug-fused-adam", "fused_adam")
    for wd in (0.0, 0.01):
        wanted = path_of(ADAM, np.ones(4), grads, lr=1e-2, weight_decay=wd)
        np.testing.assert_allclose(_run(versions["fixed"], 1.0, grads, 1e-2, wd), wanted, rtol=0, atol=1e-12)
        gap = np.abs(_run(versions["code"], 1.0, grads, 1e-2, wd) - wanted).max()
        assert gap < 1e-12 if wd == 0.0 else gap > 1e-4
    kernel = _run(versions["code"], 1.0, grads, 1e-2, 0.01)
    np.testing.assert_allclose(
        kernel, path_of(ADAMW, np.ones(4), grads, lr=1e-2, weight_decay=0.01), rtol=0, atol=1e-12
    )
    taken = {name: 1 - _run(step, 1.0, zeros, 1e-3, 0.01)[-1, 0] for name, step in versions.items()}
    assert round(taken["code"], 5) == 0.001 and 0.095 < taken["fixed"] < 0.1


def tied_weights_come_once() -> None:
    """Embedding and head share a weight: a walk over the modules lists it twice, model.parameters() once.

    Twice in one group torch warns only, and decays it twice; in two groups it refuses. A frozen weight is left out.
    """
    embed, norm, head = torch.nn.Embedding(5, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 5, bias=False)
    model = torch.nn.Sequential(embed, norm, head).double()
    head.weight = embed.weight
    walked = [p for module in model.modules() for p in module.parameters(recurse=False)]
    assert len(walked) == 4 and len(list(model.parameters())) == 3 and len(model.state_dict()) == 4
    left = []
    for chosen in ([p for p in walked if p.ndim >= 2], [p for p in model.parameters() if p.ndim >= 2]):
        before = embed.weight.detach().clone()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stepper = ADAMW([{"params": chosen, "weight_decay": 1.0}], lr=0.1)
        embed.weight.grad = torch.zeros_like(embed.weight)
        stepper.step()
        left.append((round((embed.weight.detach() / before).mean().item(), 9), len(caught)))
    assert left == [(0.81, 1), (0.9, 0)]
    try:
        ADAMW([{"params": [embed.weight]}, {"params": [head.weight]}])
    except ValueError as error:
        assert "more than one parameter group" in str(error)
    else:
        raise AssertionError("torch took a parameter in two groups")

    norm.requires_grad_(False)
    groups = ([p for p in model.parameters() if p.requires_grad and (p.ndim >= 2) == big] for big in (True, False))
    assert [len(group) for group in groups] == [1, 0]


def decay_of_short_runs() -> None:
    """What weight_decay 0.1 takes in two short runs at constant lr.

    Fine-tuning, 1,000 steps at 1e-5: 0.1% of a weight, and towards zero, not towards where it came from. LoRA, 5,000
    steps at 2e-4: 10% of each factor, 18% of their product, so the model goes back to the frozen base.
    """
    left = {
        name: path_of(ADAMW, [2.0], np.zeros((steps, 1)), lr=lr, weight_decay=0.1)[-1, 0] / 2.0
        for name, steps, lr in (("tuned", 1000, 1e-5), ("adapter", 5000, 2e-4))
    }
    assert round(left["tuned"], 4) == 0.999 and left["tuned"] < 1
    assert round(left["adapter"], 3) == 0.905 and round(left["adapter"] ** 2, 2) == 0.82
    mean = path_of(ADAMW, [2.0, 2.0], np.vstack([[g, -g] for g in normal(1000, 1)[:, 0]]), lr=1e-5, weight_decay=0.0)
    assert abs(mean[-1].mean() - 2.0) < 1e-9
