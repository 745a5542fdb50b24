"""Evidence for ``bank/fine-tuning.yaml``: adapters and their rates, another optimizer, and what a resume loads."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import torch
from torch import nn

from course_lib.optim import newton_schulz
from course_lib.questions.evidence._feed import ADAM, ADAMW, both_versions
from course_lib.questions.runs import Curves, Panel


class _Adapted(nn.Module):
    """A frozen linear layer plus B A; A is drawn, B is zero."""

    def __init__(self, layer: nn.Linear, rank: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.layer, (rows, columns) = layer.requires_grad_(False), layer.weight.shape
        bound = columns**-0.5
        self.A = nn.Parameter(torch.from_numpy(rng.uniform(-bound, bound, (rank, columns))))
        self.B = nn.Parameter(torch.zeros(rows, rank, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + 2 * (x @ self.A.T) @ self.B.T


def _adapted_run(optimizer_first: bool, lr: float = 3e-3, steps: int = 150) -> dict[str, list[float]]:
    """Losses and gradient norms of a small network with adapters, fine-tuned on a task that has changed."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 8)).double()
    for p in model.parameters():
        p.data = torch.from_numpy(rng.standard_normal(p.shape)) / 24**0.5
    wanted = copy.deepcopy(model)
    for p in wanted.parameters():
        p.data += 0.1 * torch.from_numpy(rng.standard_normal(p.shape))
    given = list(model.parameters())
    for index in (0, 2):
        model[index] = _Adapted(model[index], 4, rng)
    if not optimizer_first:
        given = [p for p in model.parameters() if p.requires_grad]
    optimizer = ADAMW(given, lr=lr)
    log: dict[str, list[float]] = {"loss": [], "A": [], "B": []}
    for _ in range(steps):
        x = torch.from_numpy(rng.standard_normal((64, 24)))
        loss = (model(x) - wanted(x)).square().mean()
        model.zero_grad()
        loss.backward()
        log["loss"].append(loss.item())
        for name in "AB":
            norms = [getattr(model[index], name).grad.norm().item() for index in (0, 2)]
            log[name].append(math.hypot(*norms))
        optimizer.step()
    return log


def wrapped_after_the_optimizer() -> None:
    """Built before the wrap, the optimizer moves nothing: the loss stays, A's gradient is zero at every step.

    Built after it the loss falls to less than half, and A has a gradient from the second step on: even at a rate a
    thousand times too low.
    """
    before, after, slow = _adapted_run(True), _adapted_run(False), _adapted_run(False, lr=3e-6)
    assert not any(before["A"]) and min(before["B"]) > 0
    assert np.mean(after["loss"][-20:]) < 0.5 * np.mean(before["loss"][-20:])
    assert 0.7 < np.mean(before["loss"][-50:]) / np.mean(before["loss"][:50]) < 1.4
    for run in (after, slow):
        assert run["A"][0] == 0 and min(run["A"][1:]) > 0
    model = nn.Linear(3, 3)
    optimizer = ADAMW(model.parameters(), lr=0.1)
    model.to(torch.float64)  # moves the data into the same parameters: that order is sound
    model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    old = model.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(old, model.weight)


def flat_fine_tune() -> Curves:
    """The log of a fine-tune whose optimizer was built before the adapters were put in."""
    log = _adapted_run(True)
    return Curves(
        "step",
        [float(step) for step in range(len(log["loss"]))],
        [
            Panel("loss", {"training loss": log["loss"]}),
            Panel("gradient norm of all A", {"all A of the adapters": log["A"]}),
            Panel("gradient norm of all B", {"all B of the adapters": log["B"]}),
        ],
        exact=False,
    )


def moments_through_fp16() -> None:
    """Loaded through fp16, a second moment of 1e-8 is zero, and the next step 31 lr; copied from the file it is 1 lr.

    torch leaves only the key "step" alone: a tensor count of another name is rounded.
    """
    for which, make in both_versions("ft-cast-on-load", "HalfAdam").items():
        weight = nn.Parameter(torch.ones(3, dtype=torch.float16))
        running, resumed = (make([weight], lr=1e-3) for _ in range(2))
        m = torch.tensor([1e-4, 1e-2, 1.0])
        running.state[weight] = {"step": torch.tensor(20_000.0), "exp_avg": m, "exp_avg_sq": m**2}
        resumed.load_state_dict(running.state_dict())
        state = resumed.state[weight]
        assert state["exp_avg_sq"].dtype == torch.float32 and state["step"] == 20_000
        assert torch.equal(state["exp_avg_sq"], m**2) == (which == "fixed")
        v = 0.999 * state["exp_avg_sq"] + 0.001 * m**2
        step = (0.9 * state["exp_avg"] + 0.1 * m) / v.sqrt()
        if which == "fixed":
            assert (step - 1).abs().max() < 1e-3
        else:
            assert state["exp_avg_sq"][0] == 0 and 31 < step[0] < 32 and (step[1:] - 1).abs().max() < 1e-2
    half = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    one, two = ADAMW([half]), ADAMW([half])
    one.state[half] = {"step": torch.tensor(1001.0), "updates": torch.tensor(1001.0)}
    two.load_state_dict(one.state_dict())
    assert two.state[half]["step"] == 1001 and two.state[half]["updates"] == 1000


def powers_of_other_betas() -> None:
    """Saved with beta2 0.999 at step 100, loaded where 0.95 stands: 3.2 times too long, 2.3 times 100 steps later.

    The other way round the first step is 0.38 of what it should be, and fifty steps later all but right.
    """
    versions, steps = both_versions("ft-beta-powers", "Adam"), {}
    for (ours, theirs), which in ((pair, which) for pair in ((0.95, 0.999), (0.999, 0.95)) for which in versions):
        run, resumed = versions[which]((0.9, theirs)), versions[which]((0.9, ours))
        for _ in range(100):
            run.update(1.0)
        resumed.load({"m": run.m, "v": run.v, "t": run.t, "betas": run.betas})
        steps[theirs, which] = np.array([resumed.update(1.0) for _ in range(101)])
    assert np.allclose(steps[0.999, "fixed"], 1, atol=1e-6) and np.allclose(steps[0.95, "fixed"], 1, atol=1e-6)
    wrong = steps[0.999, "code"]
    assert round(wrong[0], 1) == 3.2 and round(wrong[100], 1) == 2.3
    assert round(steps[0.95, "code"][0], 2) == 0.38 and abs(steps[0.95, "code"][50] - 1) < 0.05


def lora_rate(lr: float = 1e-5, rank: int = 16, alpha: int = 32, inputs: int = 4096) -> float:
    """The lr of LoRA at which the first step of alpha/r B A has the RMS of full fine-tuning's, both with Adam."""
    rng, (rows, columns) = np.random.default_rng(0), (64, 512)
    a = torch.from_numpy(rng.uniform(-(columns**-0.5), columns**-0.5, (rank, columns)))
    b = torch.zeros(rows, rank, dtype=torch.float64, requires_grad=True)
    b.grad = alpha / rank * torch.from_numpy(rng.standard_normal((rows, columns))) @ a.T
    ADAM([b], lr=lr, eps=1e-30).step()
    product = alpha / rank * b.detach() @ a
    per_lr = alpha / math.sqrt(3 * columns * rank)
    assert abs(product.square().mean().sqrt().item() / (lr * per_lr) - 1) < 0.1
    return lr * math.sqrt(3 * inputs * rank) / alpha


def a_and_b_by_width() -> None:
    """A step of lr on A moves z = A x by lr * d * mean|x|, one on B moves the output by lr * sum|z|, whatever d.

    And as long as B is zero, A has no gradient.
    """
    moved = {}
    for d in (256, 1024, 4096):
        rng, rank = np.random.default_rng(d), 8
        x = rng.standard_normal(d)
        a = rng.uniform(-(d**-0.5), d**-0.5, (rank, d))
        z = (a * x).sum(1)
        of_a = np.abs(1e-4 * np.sign(x) * x).sum()  # of each z, against the sign of its gradient
        of_b = np.abs(1e-4 * np.sign(z) * z).sum()  # of each output
        assert math.isclose(of_a, 1e-4 * np.abs(x).sum()) and 0.3 < np.sqrt((z**2).mean()) < 1.1
        moved[d] = of_a, of_b
    assert 13 < moved[4096][0] / moved[256][0] < 19 and 0.4 < moved[4096][1] / moved[256][1] < 2.5
    assert _adapted_run(False, steps=2)["A"][0] == 0


def share_in_the_few_directions() -> None:
    """A gradient of rank 4 under weak noise: a sign leaves about a half of the update in these directions.

    Muon's leaves 6%, about 4 of 64 parts: it moves all others as much.
    """
    rng, d, rank = np.random.default_rng(0), 64, 4
    left, right = (np.linalg.qr(rng.standard_normal((d, rank)))[0] for _ in range(2))
    gradient = left @ right.T + 0.01 * rng.standard_normal((d, d))
    share = {}
    updates = {
        "sign": np.sign(gradient),
        "muon": newton_schulz(torch.from_numpy(gradient)).numpy(),
        "plain": gradient,
    }
    for name, update in updates.items():
        kept = left @ left.T @ update @ right @ right.T
        share[name] = (kept**2).sum() / (update**2).sum()
    assert share["plain"] > 0.9 and round(share["sign"], 1) == 0.5 and round(share["muon"], 2) == 0.06


def a_resume_needs_all_of_it() -> None:
    """With copies of all five, saved and read back, the next steps are those of the run; leave one out and they are not.

    Without a copy the dict goes on with the run.
    """

    def objects() -> tuple:
        torch.manual_seed(0)
        model = nn.Linear(4, 1, dtype=torch.float64)
        optimizer = ADAMW(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4)
        return model, optimizer, scheduler, scaler, torch.Generator().manual_seed(1)

    def advance(things: tuple, steps: int) -> list[torch.Tensor]:
        model, optimizer, scheduler, scaler, generator = things
        path = []
        for _ in range(steps):
            x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
            optimizer.zero_grad()
            scaler.scale((model(x) - x.sum(1, keepdim=True)).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            path.append(torch.cat([model.weight.detach().flatten(), torch.tensor([scaler.get_scale()])]))
        return path

    names, things = ("model", "optimizer", "scheduler", "scaler", "generator"), objects()
    advance(things, 5)
    loose = {name: thing.state_dict() for name, thing in zip(names[:4], things, strict=False)}
    saved = copy.deepcopy(loose) | {"generator": things[4].get_state()}
    file = io.BytesIO()
    torch.save(saved, file)
    path = advance(things, 5)
    assert not torch.equal(loose["model"]["weight"], saved["model"]["weight"])
    for left_out in (None, *names):
        file.seek(0)
        read, fresh = torch.load(file, weights_only=True), objects()
        for name, thing in zip(names, fresh, strict=True):
            if name != left_out:
                (thing.set_state if name == "generator" else thing.load_state_dict)(read[name])
        same = all(torch.equal(a, b) for a, b in zip(advance(fresh, 5), path, strict=True))
        assert same == (left_out is None), left_out
