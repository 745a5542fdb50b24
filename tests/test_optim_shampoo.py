"""Shampoo and SOAP: against NumPy float64 written from the papers, pytorch_optimizer, and arithmetic by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optim_cases import leaf, run

from course_lib.memory.architecture import Weight
from course_lib.memory.states import state_bytes
from course_lib.optim import REGISTRY, SOAP, Adam, AdamW, Muon, Shampoo, newton_schulz
from course_lib.optim.shampoo import eigh, inverse_root


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape)).to(dtype)


def gradients(shape: tuple[int, ...], steps: int = 60) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1) for _ in range(steps)]


def unfold(tensor: np.ndarray, dim: int) -> np.ndarray:
    """The matrix of which the rows run along one dimension."""
    return np.moveaxis(tensor, dim, 0).reshape(tensor.shape[dim], -1)


def along(tensor: np.ndarray, matrix: np.ndarray, dim: int) -> np.ndarray:
    """``tensor`` multiplied by ``matrix`` along one dimension (the mode product of 1802.09568, section 2.1)."""
    return np.moveaxis(np.tensordot(matrix, tensor, axes=(1, dim)), 0, dim)


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


# --- Shampoo --------------------------------------------------------------------------------------


def shampoo_of_the_paper(w: np.ndarray, grads: list[np.ndarray], lr: float, eps: float) -> list[np.ndarray]:
    """1802.09568, Algorithm 1 for a matrix and Algorithm 2 for other tensors."""
    factors = [eps * np.eye(side) for side in w.shape]
    path = []
    for g in grads:
        direction = g
        for dim, factor in enumerate(factors):
            factor += unfold(g, dim) @ unfold(g, dim).T
            direction = along(direction, power(factor, -1 / (2 * w.ndim)), dim)
        w = w - lr * direction
        path.append(w)
    return path


@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (2, 7), (5,), (3, 2, 4)], ids=str)
def test_shampoo_is_the_papers_algorithm(shape):
    start, grads = draw(*shape), gradients(shape)
    optimizer = Shampoo([param := start.clone().requires_grad_()], lr=0.3, betas=(0.0, 1.0), eps=1e-3,
                        precondition_frequency=1, grafting=None)  # fmt: skip
    expected = shampoo_of_the_paper(start.numpy(), grads, 0.3, 1e-3)
    for got, want in zip(run(optimizer, param, grads), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def shampoo_with_averages(
    w: np.ndarray, grads: list[np.ndarray], lr: float, betas: tuple[float, float], eps: float, decay: float, every: int
) -> list[np.ndarray]:
    """With what 2309.06497 adds: averages corrected for their start, stale roots, Adam's length, decoupled decay."""
    beta1, beta2 = betas
    m, v = np.zeros_like(w), np.zeros_like(w)
    factors, roots = [np.zeros((side, side)) for side in w.shape], {}
    path = []
    for t, g in enumerate(grads, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        direction = m_hat
        for dim in range(w.ndim):
            factors[dim] = beta2 * factors[dim] + (1 - beta2) * unfold(g, dim) @ unfold(g, dim).T
            if t % every == 1 or every == 1:
                corrected = factors[dim] / (1 - beta2**t) + eps * np.eye(w.shape[dim])
                roots[dim] = power(corrected, -1 / (2 * w.ndim))
            direction = along(direction, roots[dim], dim)
        adam = m_hat / (np.sqrt(v / (1 - beta2**t)) + 1e-8)
        direction = direction * math.sqrt(np.sum(adam**2) / np.sum(direction**2))
        w = w * (1 - lr * decay) - lr * direction
        path.append(w)
    return path


@pytest.mark.parametrize("every", [1, 4, 10])
@pytest.mark.parametrize("shape", [(4, 4), (6, 3), (5,), (3, 2, 4)], ids=str)
def test_shampoo_with_averages_stale_roots_and_grafting(shape, every):
    hyper = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4}
    start, grads = draw(*shape), gradients(shape)
    optimizer = Shampoo([param := start.clone().requires_grad_()], **hyper, weight_decay=0.3,
                        precondition_frequency=every)  # fmt: skip
    expected = shampoo_with_averages(start.numpy(), grads, **hyper, decay=0.3, every=every)
    for got, want in zip(run(optimizer, param, grads), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=str)
def test_shampoo_equals_the_package_where_it_is_the_papers(dtype, slack):
    """With gradients of one size: float32 has no digits left for eigenvalues a millionth of the largest."""
    pytest.importorskip("pytorch_optimizer")
    entry, plain = REGISTRY["shampoo"], {"betas": (0.0, 1.0), "eps": 1e-3, "grafting": None}
    shapes = [(6, 6), (12, 8), (7,), (4, 3, 5)]
    mine, theirs = ([draw(*shape, dtype=dtype).requires_grad_() for shape in shapes] for _ in range(2))
    ours = entry.make(mine, lr=0.2, weight_decay=0.1, precondition_frequency=1, **plain)
    production = entry.production(theirs, lr=0.2, weight_decay=0.1, **plain)
    for number in range(60):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            one.grad = draw(*one.shape, seed=100 * number + index, dtype=dtype)
            other.grad = one.grad.clone()
        ours.step()
        production.step()
    for got, expected in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=slack)


def test_the_packages_shampoo_has_no_averages_and_says_so():
    for hyper in ({"betas": (0.9, 0.999)}, {"grafting": "adam"}, {"precondition_frequency": 10}):
        with pytest.raises(ValueError, match=rf"Invalid arguments: .*{next(iter(hyper))}.*Algorithm 1"):
            REGISTRY["shampoo"].production([leaf(1.0)], **hyper)


def test_a_diagonal_by_hand():
    """G = diag(3, 4): L = R = diag(9, 16), L^(-1/4) G R^(-1/4) = diag(3 / 3, 4 / 4). Then G = diag(4, 3): L = 25 I."""
    param = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = Shampoo([param], lr=1.0, betas=(0.0, 1.0), eps=1e-15, precondition_frequency=1, grafting=None)
    first, second = run(optimizer, param, [np.diag([3.0, 4.0]), np.diag([4.0, 3.0])])
    np.testing.assert_allclose(first, -np.eye(2), atol=1e-12)
    np.testing.assert_allclose(second, -np.diag([1.8, 1.6]), atol=1e-12)


def test_a_vector_by_hand():
    """The first step of full-matrix AdaGrad is the gradient over its length: (g g^T)^(-1/2) g = g / |g|."""
    param = leaf(0.0, 0.0)
    optimizer = Shampoo([param], lr=1.0, betas=(0.0, 1.0), eps=1e-12, precondition_frequency=1, grafting=None)
    (got,) = run(optimizer, param, [[3.0, 4.0]])
    np.testing.assert_allclose(got, [-0.6, -0.8], rtol=1e-9)


def test_a_scalar_goes_by_adam():
    ours, adam = leaf(1.0).detach()[0].requires_grad_(), leaf(1.0).detach()[0].requires_grad_()
    optimizers = Shampoo([ours], lr=0.1), Adam([adam], lr=0.1)
    for number in range(20):
        ours.grad = adam.grad = torch.tensor(math.sin(number) + 0.2, dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.step()
    assert ours.item() == pytest.approx(adam.item(), rel=1e-12)


def test_blocks_are_treated_like_parameters_of_their_own():
    whole = draw(5, 7).requires_grad_()
    places = [(slice(r, r + 3), slice(c, c + 3)) for r in (0, 3) for c in (0, 3, 6)]
    parts = [whole.detach()[place].clone().requires_grad_() for place in places]
    hyper = {"lr": 0.1, "eps": 1e-6, "precondition_frequency": 3}
    cut, separate = Shampoo([whole], block_size=3, **hyper), Shampoo(parts, **hyper)
    for number in range(20):
        whole.grad = draw(5, 7, seed=number)
        for part, place in zip(parts, places, strict=True):
            part.grad = whole.grad[place].clone()
        cut.step()
        separate.step()
    for part, place in zip(parts, places, strict=True):
        torch.testing.assert_close(whole[place], part, rtol=1e-12, atol=1e-14)
    assert [len(block) for block in cut.state[whole]["factors"]] == [2] * 6


def test_grafted_steps_have_adams_length():
    param = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    adam = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    optimizers = Shampoo([param], lr=0.1, betas=(0.9, 0.99)), Adam([adam], lr=0.1, betas=(0.9, 0.99))
    for number in range(12):
        before = param.detach().clone(), adam.detach().clone()
        param.grad = adam.grad = draw(6, 4, seed=number)
        for optimizer in optimizers:
            optimizer.step()
        moved, expected = (param - before[0]).norm().item(), (adam - before[1]).norm().item()
        assert moved == pytest.approx(expected, rel=1e-9)
        assert (param - adam).norm() > 0.01


def test_eigenvectors_survive_a_float32_routine_that_gives_up(monkeypatch):
    """As LAPACK's sometimes does for the factors of an embedding, most rows of which have no gradient."""
    rows = draw(40, 8, dtype=torch.float32)
    rows[10:] = 0.0
    factor = rows @ rows.T
    real = torch.linalg.eigh

    def not_a_number(matrix):
        values, vectors = real(matrix)
        return (values, vectors) if matrix.dtype == torch.float64 else (values * math.nan, vectors * math.nan)

    def gives_up(matrix):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return real(matrix)

    for fake in (not_a_number, gives_up):
        monkeypatch.setattr(torch.linalg, "eigh", fake)
        values, vectors = eigh(factor)
        assert vectors.dtype == torch.float32
        torch.testing.assert_close((vectors * values) @ vectors.T, factor, rtol=0, atol=1e-4)
        assert inverse_root(factor, 4, 1e-6).isfinite().all()


def test_roots_of_a_singular_matrix_and_of_no_numbers():
    root = inverse_root(torch.diag(torch.tensor([16.0, 0.0], dtype=torch.float64)), 4, 1e-8)
    torch.testing.assert_close(root, torch.diag(torch.tensor([0.5, 100.0], dtype=torch.float64)), rtol=1e-8, atol=0)
    assert inverse_root(torch.full((2, 2), math.nan), 4, 1e-8).isnan().all()
    assert inverse_root(torch.full((2, 2), math.inf), 4, 1e-8).isnan().all()


# --- SOAP -----------------------------------------------------------------------------------------


def soap_of_the_paper(
    w: np.ndarray, grads: list[np.ndarray], lr: float, betas: tuple[float, float], eps: float, decay: float, every: int,
    longest: int,
) -> list[np.ndarray]:  # fmt: skip
    """2409.11321, Algorithms 3 and 4, with the choices that SOAP's docstring names."""
    beta1, beta2 = betas
    m, v = np.zeros_like(w), np.zeros_like(w)
    dims = [dim for dim, side in enumerate(w.shape) if w.ndim > 1 and side <= longest]
    factors, bases = {dim: np.zeros((w.shape[dim],) * 2) for dim in dims}, {}
    path = []
    for t, g in enumerate(grads):
        if t > 0:
            turned_g = g
            m = beta1 * m + (1 - beta1) * g
            turned_m = m
            for dim in dims:
                turned_g, turned_m = along(turned_g, bases[dim].T, dim), along(turned_m, bases[dim].T, dim)
            v = beta2 * v + (1 - beta2) * turned_g**2
            step = turned_m / (1 - beta1**t) / ((np.sqrt(v) + eps) / math.sqrt(1 - beta2**t))
            for dim in dims:
                step = along(step, bases[dim], dim)
            w = (w - lr * step) * (1 - lr * decay)
        for dim in dims:
            factors[dim] = beta2 * factors[dim] + (1 - beta2) * unfold(g, dim) @ unfold(g, dim).T
            if t == 0:
                bases[dim] = np.linalg.eigh(factors[dim])[1][:, ::-1]
            elif t % every == 0:
                estimates = np.diag(bases[dim].T @ factors[dim] @ bases[dim])
                order = np.argsort(-estimates)
                v = np.take(v, order, axis=dim)
                bases[dim] = np.linalg.qr(factors[dim] @ bases[dim][:, order])[0]
        path.append(w)
    return path


# Shapes of which the first gradient has full rank on every side that is turned: elsewhere the basis is any.
@pytest.mark.parametrize("every", [1, 3, 10])
@pytest.mark.parametrize(("shape", "longest"), [((5, 5), 100), ((9, 4), 4), ((4, 9), 4), ((3, 3, 3), 9), ((6,), 100),
                                                ((9, 7), 4)])  # fmt: skip
def test_soap_is_the_papers_algorithm(shape, longest, every):
    hyper = {"lr": 0.05, "betas": (0.9, 0.8), "eps": 1e-6}
    start, grads = draw(*shape), gradients(shape)
    optimizer = SOAP([param := start.clone().requires_grad_()], **hyper, weight_decay=0.2,
                     precondition_frequency=every, max_precondition_dim=longest)  # fmt: skip
    expected = soap_of_the_paper(start.numpy(), grads, **hyper, decay=0.2, every=every, longest=longest)
    for got, want in zip(run(optimizer, param, grads), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("dtype", "slack"), [(torch.float32, 1e-5), (torch.float64, 1e-6)], ids=str)
@pytest.mark.parametrize("every", [1, 10])
def test_soap_equals_the_package(every, dtype, slack):
    """The weights move by 0.1 and more. float32 agrees to the bit on most machines; in float64 the package rounds its
    QR to float32, and a basis that is off by 1e-7 is off by that forever."""
    pytest.importorskip("pytorch_optimizer")
    shapes = [(6, 6), (12, 8), (8, 12), (16, 16), (7,), (), (4, 3, 5)]
    mine, theirs = ([draw(*shape, dtype=dtype).requires_grad_() for shape in shapes] for _ in range(2))
    entry, hyper = REGISTRY["soap"], {"precondition_frequency": every, "weight_decay": 0.1}
    ours, production = entry.make(mine, **hyper), entry.production(theirs, **hyper)
    for number in range(80):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            one.grad = draw(*one.shape, seed=100 * number + index, dtype=dtype)
            other.grad = one.grad.clone()
        for optimizer in (ours, production):
            optimizer.param_groups[0]["lr"] = 0.003 * (1 + number % 2)
            optimizer.step()
    for got, expected, shape in zip(mine, theirs, shapes, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=slack)
        assert (got - draw(*shape, dtype=dtype)).abs().max() > 0.02


def test_soaps_first_step_only_prepares_the_basis():
    param = draw(4, 3).requires_grad_()
    optimizer = SOAP([param], lr=0.1, weight_decay=0.5)
    param.grad = draw(4, 3, seed=1)
    optimizer.step()
    assert torch.equal(param, draw(4, 3))
    left, right = optimizer.state[param]["Q"]
    turned = left.T @ param.grad @ right
    assert turned.norm() > 1 and turned.fill_diagonal_(0.0).abs().max() < 1e-12, "its own basis makes it diagonal"
    param.grad = draw(4, 3, seed=2)
    optimizer.step()
    assert not torch.equal(param, draw(4, 3))


def test_soap_of_a_vector_is_adamw_a_step_late_with_eps_before_the_correction():
    late, adam = leaf(1.0, -2.0, 3.0), leaf(1.0, -2.0, 3.0)
    hyper = {"lr": 0.1, "betas": (0.9, 0.8), "weight_decay": 0.0, "eps": 0.0}
    optimizers = SOAP([late], **hyper), AdamW([adam], **hyper)
    grads = gradients((3,), 20)
    got = run(optimizers[0], late, grads)
    expected = run(optimizers[1], adam, grads[1:])
    np.testing.assert_allclose(got[1:], expected, rtol=1e-12)


# --- One family -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["shampoo", "soap", "newton_schulz", "adamw"])
def test_who_sees_a_rotation_of_the_rows_and_columns(key):
    """Gradients U G V^T lead to steps U D V^T under the matrix optimizers, and to other steps under AdamW."""
    left, right = (torch.linalg.qr(draw(5, 5, seed=seed))[0] for seed in (8, 9))
    makers = {
        "shampoo": lambda params: Shampoo(params, lr=0.1, eps=1e-6, grafting=None),
        "soap": lambda params: SOAP(params, lr=0.1, weight_decay=0.0),
        "adamw": lambda params: AdamW(params, lr=0.1, weight_decay=0.0),
    }
    if key == "newton_schulz":
        plain, turned = newton_schulz(draw(5, 5)), newton_schulz(left @ draw(5, 5) @ right.T)
    else:
        plain, turned = (torch.zeros(5, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
        optimizers = makers[key]([plain]), makers[key]([turned])
        for number in range(25):
            plain.grad = draw(5, 5, seed=number)
            turned.grad = left @ plain.grad @ right.T
            for optimizer in optimizers:
                optimizer.step()
    difference = (turned - left @ plain @ right.T).detach().norm() / plain.detach().norm()
    assert difference > 0.1 if key == "adamw" else difference < 1e-7


def test_without_memory_shampoo_and_muon_take_the_same_step():
    """(G G^T)^(-1/4) G (G^T G)^(-1/4) = U V^T: Muon's Newton-Schulz aims at Shampoo's first step."""
    grad = draw(6, 6)
    param = torch.zeros(6, 6, dtype=torch.float64, requires_grad=True)
    param.grad = grad.clone()
    Shampoo([param], lr=1.0, betas=(0.0, 1.0), eps=1e-14, grafting=None).step()
    left, _, right = torch.linalg.svd(grad)
    torch.testing.assert_close(-param.detach(), left @ right, rtol=0, atol=1e-9)
    torch.testing.assert_close(newton_schulz(grad, 60, (1.5, -0.5, 0.0)), left @ right, rtol=0, atol=1e-9)
    matrix = torch.zeros(6, 6, dtype=torch.float64, requires_grad=True)
    matrix.grad = grad.clone()
    Muon([matrix], lr=1.0, momentum=0.0, weight_decay=0.0).step()
    assert torch.nn.functional.cosine_similarity(matrix.flatten(), param.flatten(), 0) > 0.95


@pytest.mark.parametrize("shape", [(), (7,), (2000,), (64, 256), (1024, 4096), (1500, 30), (12_000, 8), (3, 4, 5)],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("key", ["shampoo", "soap"])
def test_state_bytes_are_those_that_the_memory_notebook_counts(key, shape):
    """With the defaults here, of which block size and longest side are those of memory/states.py."""
    assert REGISTRY[key].state_bytes(shape) == state_bytes(key, [Weight("weight", shape, 1, "mlp")])
