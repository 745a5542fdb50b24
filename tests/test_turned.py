"""problems.turned: the curvatures are those given, turning changes coordinates only, and who sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from course_lib.optim import SGD, SOAP, AdamW, Muon, Shampoo
from course_lib.problems.turned import TurnedQuadratic

ROWS, COLUMNS = np.logspace(0, -3, 6), np.logspace(0, -1, 4)


@pytest.mark.parametrize("turned", [False, True])
def test_the_hessian_has_the_products_of_the_curvatures(turned):
    problem = TurnedQuadratic(ROWS, COLUMNS, turned)
    hessian = torch.autograd.functional.hessian(problem.loss, torch.zeros(6, 4, dtype=torch.float64)).reshape(24, 24)
    expected = np.sort(np.outer(ROWS, COLUMNS).ravel())
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), expected, rtol=1e-9, atol=1e-14)
    diagonal = torch.allclose(hessian, hessian.diagonal().diag())
    assert diagonal != turned


def test_the_minimum_is_zero_at_the_turned_target():
    problem = TurnedQuadratic(ROWS, COLUMNS, turned=True)
    weight = problem.P @ problem.target @ problem.Q.T
    assert problem.loss(weight) < 1e-24
    assert problem.loss(torch.zeros_like(weight)) == pytest.approx(
        TurnedQuadratic(ROWS, COLUMNS).loss(torch.zeros_like(weight)).item(), rel=1e-12)


def test_who_sees_that_it_is_turned():
    makers = {
        "sgd": lambda p: SGD(p, lr=0.5, momentum=0.9), "soap": lambda p: SOAP(p, lr=0.05, weight_decay=0.0),
        "shampoo": lambda p: Shampoo(p, lr=0.3, eps=1e-6, grafting=None), "adamw": lambda p: AdamW(p, lr=0.05),
        "muon": lambda p: Muon(p, lr=0.2, weight_decay=0.0),
    }  # fmt: skip
    ratio = {}
    for name, make in makers.items():
        aligned, turned = (TurnedQuadratic(ROWS, COLUMNS, each).final_loss(make, 150) for each in (False, True))
        ratio[name] = turned / aligned
    assert ratio["sgd"] == pytest.approx(1, rel=1e-9) and ratio["soap"] == pytest.approx(1, rel=0.2)
    assert ratio["shampoo"] == pytest.approx(1, rel=1e-3) and 0.2 < ratio["muon"] < 5 and ratio["adamw"] > 20
