# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: sharding
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("zero1_step")` gives one hint at a
# time. From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: sharding
#
# The answers to `exercises/15_sharding.ipynb`, each with its reasons. Try the exercise first: what you have worked out
# yourself is there in the interview.

# %%
import math

import numpy as np
import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress
from course_lib.parallel.launch import launch

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Which collective where
#
# *Level 1, 10 minutes, id `zero_plan`.* Return the plan of one training step in `stage` 0 (plain data parallelism),
# 1, 2 or 3: `{"forward": [...], "backward": [...], "step": [...]}`. Each list has the names of the collectives that
# one unit (a bucket or module whose parameters travel together) takes part in, in the order in which they run:
# `"all_reduce"`, `"reduce_scatter"`, `"all_gather"`, `"broadcast"`. All three keys are always there; an empty list
# where nothing is sent.
#
# There is one micro-batch. When the step is over, the ranks hold the same weights, whole in stages 0 to 2, a slice
# each in stage 3. Stages 0, 2 and 3 send gradients during the backward pass, stage 1 at the step. In stage 3 a unit's
# weights are let go when its forward pass is over, and again when its backward pass is over. No plan sends more bytes
# or takes more collectives than it must.


# %% tags=["exercise:zero_plan"]
def zero_plan(stage):
    ### BEGIN SOLUTION
    plan = {"forward": [], "backward": [], "step": []}
    if stage == 0:
        plan["backward"] = ["all_reduce"]                     # every rank updates everything
    elif stage == 1:
        plan["step"] = ["reduce_scatter", "all_gather"]       # each rank updates its slice between the two
    elif stage == 2:
        plan["backward"] = ["reduce_scatter"]                 # a slice of the gradients is all that is kept
        plan["step"] = ["all_gather"]
    else:
        plan["forward"] = ["all_gather"]
        plan["backward"] = ["all_gather", "reduce_scatter"]   # let go after the forward pass, so gathered once more
    return plan
    ### END SOLUTION


# %% tags=["check:zero_plan"]
check("zero_plan", zero_plan)

# %% [markdown] tags=["solution-only"]
# A ring all-reduce is a reduce-scatter and an all-gather. Stage 1 puts the update between the two halves, and stage 2
# moves the first half into the backward pass: neither sends a byte more than plain data parallelism. Stage 3 gathers
# the weights twice instead of once, and so costs half as much again (Rajbhandari et al. 2020, arXiv 1910.02054,
# section 7). In units of $S (N - 1) / N$ bytes, for a unit of $S$ bytes:

# %% tags=["solution-only"]
units = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1, "broadcast": 1}
for stage in range(4):
    plan = zero_plan(stage)
    print(f"stage {stage}: {sum(units[name] for names in plan.values() for name in names)}   {plan}")

# %% [markdown] tags=["solution-only"]
# torch's own ZeRO-1, `ZeroRedundancyOptimizer`, stands beside DDP, which all-reduces the gradients, and then
# broadcasts the new weights: 2 + 1 units. FSDP2 with `reshard_after_forward=False` keeps the weights from the forward
# to the backward pass: 2 units, and more memory.

# %% [markdown]
# ## 2. Who owns which tensor
#
# *Level 1, 10 minutes, id `owners_by_bytes`.* An optimizer that is not element-wise needs whole tensors, so ZeRO-1
# can also be sharded by tensors: each tensor's state lies on one rank. `sizes` has the bytes of each tensor. Take the
# tensors from the largest to the smallest, equal ones in the order of the list. Give each to the rank that has the
# fewest bytes so far, the lowest-numbered if there are several. Return for each rank the list of the indices that it
# owns, in any order. `sizes` stays as it is; it may be empty, and a tensor may have 0 bytes.
#
# torch's `ZeroRedundancyOptimizer` deals tensors out in this way, by elements instead of bytes.


# %% tags=["exercise:owners_by_bytes"]
def owners_by_bytes(sizes, ranks):
    ### BEGIN SOLUTION
    owned, loads = [[] for _ in range(ranks)], [0] * ranks
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True):    # stable: equal sizes keep their order
        rank = loads.index(min(loads))
        owned[rank].append(i)
        loads[rank] += sizes[i]
    return owned
    ### END SOLUTION


# %% tags=["check:owners_by_bytes"]
check("owners_by_bytes", owners_by_bytes)

# %% [markdown] tags=["solution-only"]
# No rank ever holds more than $4/3 - 1/(3N)$ of what the best of all partitions gives its fullest rank (Graham 1969,
# "Bounds on multiprocessing timing anomalies"). But no partition of whole tensors divides the largest one. GPT-2
# 124M, whose token embedding has 31% of the parameters:

# %% tags=["solution-only"]
from course_lib.memory.models import find

sizes = [4 * weight.size for weight in find("gpt2-124m").weights() for _ in range(weight.copies)]
for ranks in (2, 4, 8):
    fullest = max(sum(sizes[i] for i in owned) for owned in owners_by_bytes(sizes, ranks))
    share = sum(sizes) / ranks
    print(f"{ranks} ranks: the fullest has {fullest / share:.2f} times its share, "
          f"the largest tensor alone is {max(sizes) / share:.2f}")

# %% [markdown] tags=["solution-only"]
# With 8 ranks one of them holds 2.5 times its share, and the others wait for it. Slices of one flat buffer come out
# even to the element: so do DeepSpeed, Megatron-LM and FSDP, and the engines of `course_lib.parallel`.

# %% [markdown]
# ## 3. A ring all-reduce
#
# *Level 2, 20 minutes, id `ring_all_reduce`.* `values[r]` is the array of rank `r`: NumPy float64, one dimension,
# equally long on all ranks, and its length a multiple of the number of ranks N. Simulate a ring in which rank r sends to rank r + 1,
# and the last one to rank 0. All arrays are cut into N chunks.
#
# - Reduce-scatter, N - 1 steps: in each, every rank sends one chunk, and adds what arrives to its own chunk of that
#   place.
# - All-gather, N - 1 steps: in each, every rank sends one chunk, and what arrives takes the place of its own.
#
# In a step all ranks send at the same time. Return two things: the list of the arrays that the ranks hold at the end
# (separate arrays, sharing no memory with each other or with `values`), and the number of elements that *one* rank
# has sent in both phases together. `values` stays as it is. N may be 1.


# %% tags=["exercise:ring_all_reduce"]
def ring_all_reduce(values):
    ### BEGIN SOLUTION
    ranks, sent = len(values), 0
    held = [np.split(array.copy(), ranks) for array in values]         # held[r][c]: chunk c on rank r
    for first, adds in ((0, True), (1, False)):                        # rank r sends chunk r + first to begin with
        for step in range(ranks - 1):
            chunks = [(rank + first - step) % ranks for rank in range(ranks)]
            messages = [held[rank][chunk].copy() for rank, chunk in enumerate(chunks)]
            sent += len(messages[0])
            for rank, (chunk, message) in enumerate(zip(chunks, messages)):
                right = held[(rank + 1) % ranks]
                right[chunk] = right[chunk] + message if adds else message
    return [np.concatenate(chunks) for chunks in held], sent
    ### END SOLUTION


# %% tags=["check:ring_all_reduce"]
check("ring_all_reduce", ring_all_reduce)

# %% [markdown] tags=["solution-only"]
# In the first phase a chunk starts at one rank and meets all others; it is complete at the rank before the one where
# it began, so rank r has chunk r + 1. Each rank sends $2 (N - 1) S / N$ elements, less than $2 S$ however many ranks
# there are (Patarasuk and Yuan 2009). Passing whole arrays around would take $(N - 1) S$:

# %% tags=["solution-only"]
for ranks in (2, 4, 8, 16):
    values = [np.arange(48.0) * (rank + 1) for rank in range(ranks)]
    held, sent = ring_all_reduce(values)
    assert all(np.array_equal(array, sum(values)) for array in held)
    print(f"{ranks:2} ranks: {sent:3} elements sent by each, {sent / 48:.3f} of an array; whole arrays {ranks - 1:2}")

# %% [markdown]
# ## 4. Seconds of a ring all-reduce
#
# *Level 1, 5 minutes, id `ring_seconds`.* In the alpha-beta model a message of b bytes takes `latency` + b /
# `bandwidth` seconds. Return how long the ring of exercise 3 takes for arrays of `size` bytes on `ranks` ranks. A
# rank sends and receives at the same time. `bandwidth` is in bytes per second.


# %% tags=["exercise:ring_seconds"]
def ring_seconds(size, ranks, bandwidth, latency=0.0):
    ### BEGIN SOLUTION
    return 2 * (ranks - 1) * (latency + size / ranks / bandwidth)
    ### END SOLUTION


# %% tags=["check:ring_seconds"]
check("ring_seconds", ring_seconds)

# %% [markdown] tags=["solution-only"]
# The 16-bit gradients of a 7B model are 14 GB. Over 64 ranks at 50 GB/s (a network card of 400 Gbit/s for each) that
# takes 0.55 s, and hardly more over 1024. What grows is the latency's part, which counts where messages are short:
# that is what buckets are for, and why NCCL takes a tree for small sizes.

# %% tags=["solution-only"]
for ranks in (8, 64, 1024):
    for size in (14e9, 1e6):
        without, waiting = (1e3 * ring_seconds(size, ranks, 50e9, latency) for latency in (0, 1e-5))
        print(f"{ranks:4} ranks, {size / 1e6:6.0f} MB: {without:7.3f} ms, with a latency of 10 us {waiting:7.3f} ms")

# %% [markdown]
# ## 5. Clip by a norm that lies in shards
#
# *Level 2, 15 minutes, id `clip_sharded`.* From ZeRO-2 on, no rank holds the whole gradient. `shards` is a list of
# the pieces that this rank holds, flat tensors of float32, bfloat16 or float16, and `comm` its end of the group:
# `comm.rank`, `comm.ranks`, `comm.all_reduce(tensor)`, which replaces a tensor on every rank by the sum over the
# ranks and returns it, and the others of the notebook. Return the norm of the whole gradient, a float or a tensor of
# one element, the same on every rank, and multiply each shard in place by min(1, `max_norm` / (norm + 1e-6)), as torch does.
#
# - One collective: an all-reduce of one number in float32 or float64. Squares are taken and added in float32 or float64, too.
# - A rank may hold no shard at all, and ranks may hold different numbers of them.
# - A NaN on one rank makes the norm NaN on all of them. What becomes of the shards then is the caller's affair.
#
# The check runs your function on 1 to 4 ranks, which are threads: it sees what each rank sends.


# %% tags=["exercise:clip_sharded"]
@torch.no_grad()
def clip_sharded(shards, max_norm, comm):
    ### BEGIN SOLUTION
    total = torch.zeros(())
    for shard in shards:
        total += shard.float().square().sum()
    norm = comm.all_reduce(total).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for shard in shards:
        shard.mul_(factor)
    return norm
    ### END SOLUTION


# %% tags=["check:clip_sharded"]
check("clip_sharded", clip_sharded)

# %% [markdown] tags=["solution-only"]
# The squares add up over shards and over ranks alike; so the root comes last, and a rank without shards gives 0 and
# takes part. Four bytes are sent where the gradient has gigabytes. There is no branch, and so no way for ranks to
# part: with `if norm > max_norm` all would still take the same one, since all have the same norm, but a `return`
# before the all-reduce on a rank that holds nothing would hang the others. On real processes, the same function:

# %% tags=["solution-only"]
def clip_here(comm, clip):
    gradient = torch.arange(1.0, 11.0)
    shards = [gradient[:7], gradient[7:], gradient[:0]][comm.rank].split(3)
    norm = clip(shards, 5.0, comm)
    return norm.item(), torch.cat(shards).tolist()


gradient = torch.arange(1.0, 11.0)
whole = torch.nn.Parameter(torch.zeros(10))
whole.grad = gradient.clone()
expected = torch.nn.utils.clip_grad_norm_([whole], 5.0)
results = launch(clip_here, 3, clip_sharded)
assert all(math.isclose(norm, expected, rel_tol=1e-6) for norm, _ in results)
assert np.allclose(sum((shards for _, shards in results), []), whole.grad, rtol=1e-6)
own = [gradient[:7].norm().item(), gradient[7:].norm().item(), 0.0]
print(f"norm {expected:.4f} on each of 3 ranks, as torch's; their own norms are " + ", ".join(f"{x:.4f}" for x in own))

# %% [markdown] tags=["solution-only"]
# Without the all-reduce rank 0 would shorten its shards by 2.4 and rank 1 by 3.1: the gradient turns, and by another
# angle with each number of ranks. A parameter that *every* rank holds whole would be counted N times: count it on one
# rank only.

# %% [markdown]
# ## 6. ZeRO-1 in forty lines
#
# *Level 3, 35 minutes, id `zero1_step`.* One AdamW step on every rank. Each holds all parameters, and the gradients
# of its own batch; a rank keeps m and v, and makes the update, for its share of the elements alone (Rajbhandari et
# al. 2020, arXiv 1910.02054).
#
# - `params`: this rank's parameters, a list of contiguous tensors of any shapes and one dtype, float32 or float64.
#   They may require grad. They are equal on all ranks before the step and after it. Write into them.
# - `grads`: as many tensors of the same shapes. What counts is their **mean over the ranks**. Leave them, and the list, as
#   they are.
# - `state`: a dict of this rank, `{}` at the first step, and the same at every later one. It is yours to fill. With P
#   elements on N ranks its tensors may hold $2 \lceil P/N \rceil$ elements of the parameters' dtype (if you cut each
#   tensor by itself: 2 times the sum of the tensors' $\lceil \cdot \rceil$), and a few counts.
# - P need not be a multiple of N, and may be smaller.
# - The result is that of `torch.optim.AdamW` on the mean gradient: for t = 1, 2, ..., with $\lambda$ =
#   `weight_decay`, and an `lr` that may change between calls,
#
# $$ p \leftarrow (1 - \text{lr}\,\lambda)\, p - \text{lr}\,
# \frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon} . $$
#
# `comm.reduce_scatter(flat)` takes a flat tensor, the same length on every rank and a multiple of N, and returns this
# rank's slice of the sum over the ranks; `comm.all_gather(part)` returns the ranks' equal parts in a row. Besides the
# numbers, the check measures what `state` really holds, and counts what is sent: one reduce-scatter and one
# all-gather, 2 S (N - 1) / N bytes for parameters of S bytes; 3 gets a remark, more is refused.


# %% tags=["exercise:zero1_step"]
@torch.no_grad()
def zero1_step(params, grads, state, comm, lr, betas, eps, weight_decay):
    ### BEGIN SOLUTION
    sizes = [p.numel() for p in params]
    part = math.ceil(sum(sizes) / comm.ranks)

    def flat(tensors):
        row = torch.cat([tensor.flatten() for tensor in tensors])
        return torch.nn.functional.pad(row, (0, part * comm.ranks - len(row)))

    # This rank's slice of the mean gradient: the only one that it sees whole.
    g = comm.reduce_scatter(flat(grads)) / comm.ranks

    # AdamW on the slice, as ever.
    if not state:
        state.update(t=0, m=torch.zeros_like(g), v=torch.zeros_like(g))
    state["t"] += 1
    t, m, v = state["t"], state["m"], state["v"]
    m.lerp_(g, 1 - betas[0])
    v.lerp_(g * g, 1 - betas[1])
    p = flat(params)[comm.rank * part : (comm.rank + 1) * part] * (1 - lr * weight_decay)
    p -= lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)

    # Everyone's slices, to everyone.
    row = comm.all_gather(p)[: sum(sizes)]
    for param, new in zip(params, row.split(sizes)):
        param.copy_(new.view_as(param))
    ### END SOLUTION


# %% tags=["check:zero1_step"]
check("zero1_step", zero1_step)

# %% [markdown] tags=["solution-only"]
# On real processes, beside torch's AdamW in this one, which is given the mean gradient. Sizes that the ranks do not
# divide:

# %% tags=["solution-only"]
SHAPES, HYPER = ((40, 25), (25,), (25, 7), (3,)), dict(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)


def start():
    rng = np.random.default_rng(0)
    return [torch.tensor(rng.normal(size=shape)).requires_grad_() for shape in SHAPES]


def gradients(step, rank):
    rng = np.random.default_rng([step, rank])
    return [torch.tensor(rng.normal(size=shape)) for shape in SHAPES]


def train(comm, step, steps=50):
    params, state = start(), {}
    for number in range(steps):
        step(params, gradients(number, comm.rank), state, comm, **HYPER)
    held = sum(x.untyped_storage().nbytes() for x in state.values() if isinstance(x, torch.Tensor))
    return [p.detach() for p in params], held


for ranks in (2, 3):
    expected = start()
    adamw = torch.optim.AdamW(expected, **HYPER)
    for number in range(50):
        for p, *of_ranks in zip(expected, *(gradients(number, rank) for rank in range(ranks))):
            p.grad = sum(of_ranks) / ranks
        adamw.step()
    results = launch(train, ranks, zero1_step)
    apart = max((a - b).abs().max().item() for params, _ in results for a, b in zip(params, expected))
    assert apart < 1e-12
    size = sum(p.numel() for p in expected)
    held = results[0][1]
    print(f"{ranks} ranks: as torch's AdamW to 1e-12; state of {held:,} bytes on each, of {2 * 8 * size:,}")

# %% [markdown] tags=["solution-only"]
# Two things to say in an interview. An all-reduce is a reduce-scatter and an all-gather: plain data parallelism sends
# 2 S (N - 1) / N bytes, half of them to bring every rank a whole gradient. ZeRO-1 sends the second half later, as new
# parameters, so it costs nothing more. And it works because AdamW goes element by element: a rule that needs a whole
# matrix (Muon), or a norm for each layer (LAMB), cannot be cut anywhere.

# %% [markdown]
# ## 7. Two faults in a ZeRO-2 step
#
# *Level 3, 25 minutes, id `zero_bug`.* This step reduces each gradient as soon as it is there, keeps its slice and
# lets go of the rest; then it clips, and makes an AdamW step on the slices. Training with it ends near the loss of a
# single process. On one rank it is exact, and on several it is, too, as long as nothing is clipped. Yet it has **two
# faults**: a number is wrong, and memory that it should save is not saved. Find and mend them: copy it into the
# answer cell, call it `repaired_zero2_step`, and change as little as you can. Arguments are those of `zero1_step`,
# and `max_norm`; each entry of `grads` is set to None on the way; the norm of the whole mean gradient before clipping
# is returned, on every rank.

# %% tags=["exercise-only"]
@torch.no_grad()
def suspicious_zero2_step(params, grads, state, comm, lr, betas, eps, weight_decay, max_norm):
    n = comm.ranks
    sizes = [math.ceil(p.numel() / n) for p in params]      # elements of a rank's slice of each tensor

    def padded(tensor, size):
        row = tensor.new_zeros(size * n)
        row[: tensor.numel()] = tensor.flatten()
        return row

    def mine(row):
        size = len(row) // n
        return row[comm.rank * size : (comm.rank + 1) * size]

    # The last gradient is there first in a backward pass.
    slices = [None] * len(params)
    for i in reversed(range(len(params))):
        slices[i] = comm.reduce_scatter(padded(grads[i], sizes[i])) / n
        grads[i] = None

    # Clip by the global norm.
    norm = torch.linalg.vector_norm(torch.cat(slices))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    slices = [g * factor for g in slices]

    # m and v of this rank's slices.
    if not state:
        state["t"] = 0
        for name in ("m", "v"):
            state[name] = [mine(padded(torch.zeros_like(p), size)) for p, size in zip(params, sizes)]
    state["t"] += 1
    t = state["t"]

    for p, g, m, v, size in zip(params, slices, state["m"], state["v"], sizes):
        m.lerp_(g, 1 - betas[0])
        v.lerp_(g * g, 1 - betas[1])
        new = mine(padded(p, size)) * (1 - lr * weight_decay)
        new -= lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
        p.copy_(comm.all_gather(new)[: p.numel()].view_as(p))
    return norm

# %% tags=["exercise:zero_bug"]
repaired_zero2_step = None  # your mended function
### BEGIN SOLUTION
@torch.no_grad()
def repaired_zero2_step(params, grads, state, comm, lr, betas, eps, weight_decay, max_norm):
    n = comm.ranks
    sizes = [math.ceil(p.numel() / n) for p in params]      # elements of a rank's slice of each tensor

    def padded(tensor, size):
        row = tensor.new_zeros(size * n)
        row[: tensor.numel()] = tensor.flatten()
        return row

    def mine(row):
        size = len(row) // n
        return row[comm.rank * size : (comm.rank + 1) * size]

    # The last gradient is there first in a backward pass.
    slices = [None] * len(params)
    for i in reversed(range(len(params))):
        slices[i] = comm.reduce_scatter(padded(grads[i], sizes[i])) / n
        grads[i] = None

    # Clip by the global norm.
    squares = torch.cat(slices).square().sum()
    norm = comm.all_reduce(squares).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    slices = [g * factor for g in slices]

    # m and v of this rank's slices.
    if not state:
        state["t"] = 0
        for name in ("m", "v"):
            state[name] = [torch.zeros_like(g) for g in slices]
    state["t"] += 1
    t = state["t"]

    for p, g, m, v, size in zip(params, slices, state["m"], state["v"], sizes):
        m.lerp_(g, 1 - betas[0])
        v.lerp_(g * g, 1 - betas[1])
        new = mine(padded(p, size)) * (1 - lr * weight_decay)
        new -= lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
        p.copy_(comm.all_gather(new)[: p.numel()].view_as(p))
    return norm
### END SOLUTION


# %% tags=["check:zero_bug"]
check("zero_bug", repaired_zero2_step)

# %% [markdown] tags=["solution-only"]
# **The norm.** `slices` is this rank's part of the gradient, so each rank had a norm of its own and clipped by it.
# AdamW divides by the size of the gradient, which hides most of it, and clipping itself is a rough measure: the loss
# hardly shows it. What shows it is the norm in the log: it is too small by about $\sqrt N$, and differs between
# ranks.
#
# **The state.** A slice of a tensor is a view: `mine(padded(...))` has few elements and keeps the storage of all of
# them. `numel()` and a table of shapes look as they should; the memory does not fall. `.contiguous()` would not help,
# for a slice of a row is contiguous already; `.clone()` would.

# %% tags=["solution-only"]
row = torch.zeros(1000)
part = row[250:500]
for name, x in (("row[250:500]", part), (".contiguous()", part.contiguous()), (".clone()", part.clone())):
    print(f"{name:14} {x.nbytes:5,} bytes of elements, {x.untyped_storage().nbytes():5,} of storage")


def train_clipped(comm, step, steps=20):
    params, state, norms = start(), {}, []
    for number in range(steps):
        norms.append(step(params, gradients(number, comm.rank), state, comm, **HYPER, max_norm=10.0).item())
    held = sum(x.untyped_storage().nbytes() for name in ("m", "v") for x in state[name])
    return [p.detach() for p in params], norms, held


expected, theirs = start(), []
adamw = torch.optim.AdamW(expected, **HYPER)
for number in range(20):
    for p, first, second in zip(expected, gradients(number, 0), gradients(number, 1)):
        p.grad = (first + second) / 2
    theirs.append(torch.nn.utils.clip_grad_norm_(expected, 10.0).item())
    adamw.step()
results = launch(train_clipped, 2, repaired_zero2_step)
for params, norms, held in results:
    assert np.allclose(norms, theirs, rtol=1e-12)
    assert max((a - b).abs().max().item() for a, b in zip(params, expected)) < 1e-12
size = sum(p.numel() for p in expected)
print(f"2 ranks: norms and weights as torch's on one; {results[0][2]:,} bytes of state of {16 * size:,}")

# %% [markdown] tags=["solution-only"]
# A test that would have found both compares norms and weights on *more than one* rank, with a bound that clips, and
# measures storages in the place of counting elements.

# %% [markdown]
# ## 8. The GPUs that ZeRO-2 needs
#
# *Level 2, 10 minutes, id `gpus_needed`.* A model of 32 billion parameters (32e9), trained with AdamW under ZeRO-2.
# The weights are bf16, the gradients float32 (there are no bf16 ones beside them), and the optimizer keeps a float32
# master copy and float32 moments. A card has 80 GB (80e9 bytes), of which 13 GB stay free for activations and all
# else. What is the smallest number of GPUs, if they come in nodes of 8?

# %% tags=["exercise:gpus_needed"]
gpus = ...
### BEGIN SOLUTION
parameters, free = 32e9, 80e9 - 13e9
whole, divided = 2 * parameters, (4 + 4 + 4 + 4) * parameters
gpus = 8 * math.ceil(divided / (free - whole) / 8)
### END SOLUTION

# %% tags=["check:gpus_needed"]
check("gpus_needed", gpus)

# %% [markdown] tags=["solution-only"]
# 64 of the 67 GB are taken by the weights, so 512 GB have to be divided until 3 are left on each: 170.7, or 22 nodes
# of 8. `predict` counts the same bytes tensor by tensor:

# %% tags=["solution-only"]
from course_lib.memory.predict import predict


def held(stage, gpus):
    return predict(32e9, optimizer="adamw", precision="mixed-bf16", grads="fp32", zero=stage, gpus=gpus).total


print(next(gpus for gpus in range(8, 1000, 8) if held(2, gpus) <= 67e9), "GPUs in stage 2")
for stage in (1, 2, 3):
    few, many = (held(stage, count) / 1e9 for count in (16, 176))
    print(f"stage {stage}: {few:6.2f} GB on each of 16 GPUs, {many:6.2f} GB on each of 176")
assert held(2, gpus) <= 67e9 < held(2, gpus - 8)

# %% [markdown] tags=["solution-only"]
# What lies whole decides: stage 3 needs 16 GPUs for the same model, and stage 1 does not fit on any number of them.
# That is the usual reason to go to stage 3, though it sends half as much again.
