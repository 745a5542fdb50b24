# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: production kernels
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("adamw_kernel")` gives one hint at a
# time. From a terminal, `course check` runs all your answers. No GPU is needed: kernels run on a stand-in for Triton.

# %% [markdown] tags=["solution-only"]
# # Solutions: production kernels
#
# The answers to `exercises/12_production_kernels.ipynb`, each with its reasons. Try the exercise first: what you have
# worked out yourself is there in the interview.

# %%
import numpy as np

from course_lib.checks import check, hint
from course_lib.kernels import stub as tl

# %% tags=["solution-only"]
import torch

from course_lib import progress
from course_lib.kernels.shapes import shapes
from course_lib.kernels.traffic import least_bytes

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. The bytes that a step moves
#
# *Level 1, 5 minutes, id `step_bytes`.* An elementwise optimizer is limited by memory: nothing is faster than reading
# all it needs once and writing all it changes once. Return these bytes for one step over `n` parameters. An element
# of a parameter takes `param` bytes, one of a gradient `grad`; `states` is a list with the bytes of an element of
# each state (it may be empty), and `master` is the bytes of a master copy, or 0 if there is none. A state may take a
# fraction of a byte: 8-bit states with a float32 for each block of 256 take 1 + 4/256.
#
# - The gradient is read; every state is read and written.
# - Without a master copy the parameter is read and written.
# - With one, the master copy is read and written, and the parameter is only written: the new master, cast.


# %% tags=["exercise:step_bytes"]
def step_bytes(n, param, grad, states, master):
    ### BEGIN SOLUTION
    weights = param + 2 * master if master else 2 * param
    return n * (weights + grad + 2 * sum(states))
    ### END SOLUTION


# %% tags=["check:step_bytes"]
check("step_bytes", step_bytes)

# %% [markdown] tags=["solution-only"]
# For 7 billion parameters, and in milliseconds at an H100's 3.35 TB/s, if the memory were used to the full:

# %% tags=["solution-only"]
recipes = {
    "SGD, float32": (4, 4, [], 0),
    "momentum, float32": (4, 4, [4], 0),
    "AdamW, float32": (4, 4, [4, 4], 0),
    "AdamW, bf16 with a master copy": (2, 2, [4, 4], 4),
    "AdamW, everything bf16": (2, 2, [2, 2], 0),
    "AdamW, 8-bit states": (2, 2, [1 + 4 / 256, 1 + 4 / 256], 0),
}
for name, recipe in recipes.items():
    moved = step_bytes(7_000_000_000, *recipe)
    print(f"{name:31} {moved / 7e9:6.2f} bytes a parameter, {1e3 * moved / 3.35e12:5.1f} ms")
assert step_bytes(1, 4, 4, [4, 4], 0) == least_bytes("adamw").total

# %% [markdown] tags=["solution-only"]
# Mixed precision moves as much as float32: half the bytes for parameter and gradient, and a master copy on top. It is
# the states that 8 bits make smaller. A step that is not fused moves a multiple of this, since each of its kernels
# writes its result to memory for the next one to read.

# %% [markdown]
# ## 2. One buffer for all tensors
#
# *Level 1, 10 minutes, id `pack`.* Many small tensors in one flat buffer need one kernel instead of one each. `sizes`
# has the elements of each tensor. Return `(offsets, total)`: a list of the places at which the tensors begin, and
# the length of the buffer, all in elements.
#
# - Tensors lie in the order of `sizes`. The first begins at 0. Each later one begins at the smallest multiple of
#   `align` at which the one before it has ended.
# - The total is the smallest multiple of `align` at which the last tensor has ended; 0 without tensors.
# - A tensor may have 0 elements: the next one then begins at the same place. `align` is any whole number from 1 on.
#
# `sizes` stays as it is.


# %% tags=["exercise:pack"]
def pack(sizes, align):
    ### BEGIN SOLUTION
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += (size + align - 1) // align * align
    return offsets, end
    ### END SOLUTION


# %% tags=["check:pack"]
check("pack", pack)

# %% [markdown] tags=["solution-only"]
# `end` is always a multiple of `align`, so it is enough to round each size up. Why align at all? A GPU's thread loads
# 16 bytes, 4 floats, with one instruction if their address is a multiple of 16; and if no block of a kernel holds
# elements of two tensors, one lookup a block tells which tensor's learning rate applies. What that costs:

# %% tags=["solution-only"]
for name in ("gpt2", "tiny"):
    sizes = [int(np.prod(shape)) for shape in shapes(name)]
    for align in (4, 1024):
        offsets, total = pack(sizes, align)
        print(f"{name:5} {len(sizes):4} tensors, multiples of {align:4}: {total / sum(sizes) - 1:7.2%} longer")

# %% [markdown]
# ## 3. A fused AdamW kernel
#
# `tl` is a stand-in for `triton.language`: the same functions on NumPy arrays, anywhere. A kernel is run by many
# programs at once; each finds out its number, loads its block of elements, computes, and stores. Arguments such as
# `x_ptr` point to an array; `x_ptr + offsets` points to a block of its elements. This one doubles an array:


# %%
def double(x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(x_ptr + offsets, 2 * x, mask=offsets < n)


x = np.arange(10, dtype=np.float32)
record = tl.run(double, tl.cdiv(len(x), 4), x, len(x), BLOCK=4)
print(x)
print(f"{record.programs} programs: {record.bytes_read} bytes read, {record.bytes_written} written")

# %% [markdown]
# Without `mask=offsets < n` the last program would reach beyond the end. What a masked lane loads is undefined.
#
# *Level 2, 25 minutes, id `adamw_kernel`.* Write the body of a kernel that makes one AdamW step. `p_ptr`, `g_ptr`,
# `m_ptr` and `v_ptr` point to `n` parameters, their gradients and the two moments; there are `tl.cdiv(n, BLOCK)`
# programs. `correction1` is $1 - \beta_1^t$ and `correction2` is $1 - \beta_2^t$, worked out before the launch:
#
# $$ m \leftarrow \beta_1 m + (1-\beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1-\beta_2)\, g^2, \qquad
# p \leftarrow p - \text{lr}\,\lambda\, p - \text{lr}\,
# \frac{m / \text{correction1}}{\sqrt{v / \text{correction2}} + \epsilon} . $$
#
# Each of p, g, m and v is loaded once, each of p, m and v stored once; g stays as it is. Programs run in any order.
# There is no `**` in Triton.


# %% tags=["exercise:adamw_kernel"]
def adamw_kernel(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, beta1, beta2, eps, weight_decay, correction1, correction2,
                 BLOCK: tl.constexpr):
    ### BEGIN SOLUTION
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    p = tl.load(p_ptr + offsets, mask=mask)
    g = tl.load(g_ptr + offsets, mask=mask)
    m = tl.load(m_ptr + offsets, mask=mask)
    v = tl.load(v_ptr + offsets, mask=mask)

    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    update = (m / correction1) / (tl.sqrt(v / correction2) + eps)
    p = p - lr * weight_decay * p - lr * update

    tl.store(p_ptr + offsets, p, mask=mask)
    tl.store(m_ptr + offsets, m, mask=mask)
    tl.store(v_ptr + offsets, v, mask=mask)
    ### END SOLUTION


# %% tags=["check:adamw_kernel"]
check("adamw_kernel", adamw_kernel)

# %% [markdown] tags=["solution-only"]
# Between the loads and the stores everything is in registers: that is all there is to fusing. Beside torch's AdamW,
# over 20 steps on 1,000 elements, which 256 does not divide:

# %% tags=["solution-only"]
rng = np.random.default_rng(0)
p, m, v = rng.normal(size=1000).astype(np.float32), np.zeros(1000, np.float32), np.zeros(1000, np.float32)
weight = torch.tensor(p).requires_grad_()
adamw = torch.optim.AdamW([weight], lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
for t in range(1, 21):
    g = rng.normal(size=1000).astype(np.float32)
    scalars = (1000, 0.01, 0.9, 0.99, 1e-8, 0.1, 1 - 0.9**t, 1 - 0.99**t)
    record = tl.run(adamw_kernel, tl.cdiv(1000, 256), p, g, m, v, *scalars, order="shuffled", BLOCK=256)
    weight.grad = torch.tensor(g)
    adamw.step()
assert np.allclose(p, weight.detach().numpy(), rtol=1e-5, atol=1e-6)
assert record.bytes_read + record.bytes_written == step_bytes(1000, 4, 4, [4, 4], 0)
print(f"as torch's; {record.loads} loads and {record.stores} stores by {record.programs} programs, "
      f"{(record.bytes_read + record.bytes_written) / 1000:g} bytes an element")

# %% [markdown] tags=["solution-only"]
# With `import triton`, `import triton.language as tl` and `@triton.jit` above it, this very text is a kernel for a
# GPU; the course's tests run it so in Triton's interpreter. `course_lib/kernels/triton_adamw.py` is what is left to
# do: many tensors in one launch, bfloat16, a clip factor, and being an optimizer.
#
# Why are the corrections arguments? They are the same for all elements: worked out once, not in every lane. And a
# float argument is a float32 in a kernel, in which $1 - \beta_2^t$ loses digits that Python's float has.

# %% tags=["solution-only"]
for t in (1, 10):
    exact = 1 - 0.999**t
    inside = np.float32(1) - np.float32(0.999) ** t
    print(f"t = {t:2}: in float32 1 - 0.999**t is off by {abs(inside / exact - 1):.0e} of itself")
    assert abs(inside / exact - 1) > 1e-6 > abs(np.float32(exact) / exact - 1)

# %% [markdown]
# ## 4. Two faults in a momentum kernel
#
# *Level 3, 25 minutes, id `momentum_kernel_bug`.* This step makes SGD with momentum: the first buffer is the
# gradient, every later one `beta * buffer + gradient`, and `p` goes `lr * buffer` down. Its author found masks slow
# and shifts the last block back instead, so that it is full: that is how he had sped up a copy. His tests passed, on
# tensors of 4,096 elements with a new gradient at every step. In training, gradients stay in the same arrays, which
# the caller fills anew before each step; there some weights move too far, and most gain hardly any momentum. There
# are **two faults**, both of one kind: somebody writes where somebody else reads. Find and mend them: copy kernel and
# step into the answer cell, call the step `repaired_momentum_step` (and let it run your mended kernel), and change as
# little as you can. `BLOCK` stays the given `block`, whatever the number of elements.
#
# `p` is a contiguous NumPy array of any shape, from 1 element on, and is changed in place. `grad` has its shape,
# belongs to the caller, and may be transposed in memory. `state` is the tensor's own dict, `{}` before the first step.
# Arrays are float32 or float64; the buffer has the type of `p`.

# %% tags=["exercise-only"]
def suspicious_kernel(p_ptr, g_ptr, b_ptr, n, lr, beta, BLOCK: tl.constexpr):
    start = tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK)      # the last block is shifted back: no mask
    offsets = start + tl.arange(0, BLOCK)
    g = tl.load(g_ptr + offsets)
    b = beta * tl.load(b_ptr + offsets) + g
    p = tl.load(p_ptr + offsets)
    tl.store(b_ptr + offsets, b)
    tl.store(p_ptr + offsets, p - lr * b)


def suspicious_momentum_step(p, grad, state, lr, beta, block):
    flat = grad.ravel()                                          # in the order of p's elements
    if "buffer" not in state:
        state["buffer"] = flat                                   # the first buffer is the gradient,
        beta = 0.0                                               # which is not to count twice
    grid = tl.cdiv(p.size, block)
    tl.run(suspicious_kernel, grid, p, flat, state["buffer"], p.size, lr, beta, BLOCK=block)

# %% tags=["exercise:momentum_kernel_bug"]
repaired_momentum_step = None  # your mended step
### BEGIN SOLUTION
def repaired_kernel(p_ptr, g_ptr, b_ptr, n, lr, beta, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    g = tl.load(g_ptr + offsets, mask=mask)
    b = beta * tl.load(b_ptr + offsets, mask=mask) + g
    p = tl.load(p_ptr + offsets, mask=mask)
    tl.store(b_ptr + offsets, b, mask=mask)
    tl.store(p_ptr + offsets, p - lr * b, mask=mask)


def repaired_momentum_step(p, grad, state, lr, beta, block):
    flat = grad.ravel()                                          # in the order of p's elements
    if "buffer" not in state:
        state["buffer"] = flat.copy()                            # the first buffer is the gradient,
        beta = 0.0                                               # which is not to count twice
    grid = tl.cdiv(p.size, block)
    tl.run(repaired_kernel, grid, p, flat, state["buffer"], p.size, lr, beta, BLOCK=block)
### END SOLUTION


# %% tags=["check:momentum_kernel_bug"]
check("momentum_kernel_bug", repaired_momentum_step)

# %% [markdown] tags=["solution-only"]
# **The last block.** With 10 elements in blocks of 4 the last program begins at 6, not at 8, so elements 6 and 7
# belong to two programs. For a copy that is harmless: both write the same value. A step reads, changes and writes:
# whoever comes second starts from what the first has left, in whatever order they run. On a GPU they run at the same
# time, and then it may also happen once. The stub tells:


# %% tags=["solution-only"]
def shifted(x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.minimum(tl.program_id(0) * BLOCK, n - BLOCK) + tl.arange(0, BLOCK)
    tl.store(x_ptr + offsets, tl.load(x_ptr + offsets) + 1)


for order in ("forward", "backward"):
    x = np.zeros(10, np.float32)
    record = tl.run(shifted, 3, x, 10, order=order, BLOCK=4)
    print(f"{order:8} {x}")
print(record.races[0])

# %% [markdown] tags=["solution-only"]
# A tensor of fewer elements than a block has `n - BLOCK` below 0: the program reads what lies in front of the array.
#
# **The first buffer.** `ravel` returns a view where it can, and a copy where it must. Of a contiguous gradient the
# "first buffer" is the gradient's own memory, and the next gradient is written into it; of a transposed one it is a
# copy, and all is well. So it depends on the layout whether the code is right:

# %% tags=["solution-only"]
gradient = np.ones((2, 3))
for name, g in (("contiguous", gradient), ("transposed", gradient.T)):
    print(f"{name}: ravel() shares memory {np.shares_memory(g.ravel(), g)}, "
          f"flatten() {np.shares_memory(g.flatten(), g)}")


def distance(step, size, steps=20):
    """How far a weight goes under a gradient of 1, which stays in one array."""
    p, grad, state = np.zeros(size), np.zeros(size), {}
    for _ in range(steps):
        grad[...] = 1.0
        step(p, grad, state, 0.01, 0.9, 4)
    return -p


def view_kept(p, grad, state, lr, beta, block):
    first = not state
    repaired_momentum_step(p, grad, state, lr, beta, block)
    if first:
        state["buffer"] = grad                                   # as if it had not been copied


print("mended   ", distance(repaired_momentum_step, 6).round(2))
print("not copied", distance(view_kept, 6).round(2))
assert np.allclose(distance(repaired_momentum_step, 6), 0.01 * sum(1 - 0.9**t for t in range(1, 21)) / 0.1)

# %% [markdown] tags=["solution-only"]
# Tests that find both: sizes that the block does not divide, one below the block, and a gradient that stays in place.

# %% [markdown]
# ## 5. Read a profile
#
# *Level 2, 15 minutes, id `regime`.* `rows` is a profile of the kernels of one step on one stream, one after the
# other: at least one dict with `start_us` and `duration_us` (microseconds), `bytes` and `flops` (what the kernel
# usefully moves and computes). `bandwidth` is the device's peak in bytes per second, `flops` its peak in operations
# per second. Return the regime that the step is in:
#
# 1. `"launch-bound"`, if the device is idle for more than half of the span from the first start to the last end;
# 2. otherwise take two times: all bytes at peak bandwidth, and all operations at peak rate. `"inefficient"`, if even
#    the larger is less than half of the busy time (the sum of the durations): neither limit explains it;
# 3. otherwise `"memory-bound"` or `"compute-bound"`, whichever time is larger; `"memory-bound"` if they are equal.
#
# Half is not more than half, and not less. `rows` stays as it is.


# %% tags=["exercise:regime"]
def regime(rows, bandwidth, flops):
    ### BEGIN SOLUTION
    span = rows[-1]["start_us"] + rows[-1]["duration_us"] - rows[0]["start_us"]
    busy = sum(row["duration_us"] for row in rows)
    if span - busy > span / 2:
        return "launch-bound"
    memory = sum(row["bytes"] for row in rows) / bandwidth
    compute = sum(row["flops"] for row in rows) / flops
    if max(memory, compute) < busy * 1e-6 / 2:
        return "inefficient"
    return "memory-bound" if memory >= compute else "compute-bound"
    ### END SOLUTION


# %% tags=["check:regime"]
check("regime", regime)

# %% [markdown] tags=["solution-only"]
# Four profiles of an H100 (3.35 TB/s; 67 Tflop/s in float32, 989 in bfloat16). Bytes and operations are derived;
# launches of 5 microseconds and the durations are made up, plausible, and measured nowhere.
#
# - AdamW as a loop over 100 tensors of 256 elements, 8 kernels each: 20 floats an element in all.
# - One fused kernel over GPT-2's 124 million parameters: 28 bytes and about 15 operations each.
# - Muon's Newton-Schulz iteration of a 4096 x 4096 matrix in bfloat16: 15 products of $2 \cdot 4096^3$ operations,
#   each of which reads two matrices and writes one.
# - The fused kernel again, over a tensor whose elements lie far apart: memory sends 32 bytes for each 4 that are used.

# %% tags=["solution-only"]
def one_after_the_other(count, every_us, duration_us, moved, operations):
    return [dict(start_us=every_us * i, duration_us=duration_us, bytes=moved, flops=operations) for i in range(count)]


gpt2, matrix = 124_439_808, 4096 * 4096
profiles = {
    "loop over tiny tensors": (one_after_the_other(800, 5, 2, 256 * 80 / 8, 256 * 2), 67e12),
    "fused, GPT-2": (one_after_the_other(1, 0, 1200, 28 * gpt2, 15 * gpt2), 67e12),
    "Newton-Schulz": (one_after_the_other(15, 200, 190, 3 * 2 * matrix, 2 * 4096**3), 989e12),
    "fused, elements far apart": (one_after_the_other(1, 0, 8 * 1200, 28 * gpt2, 15 * gpt2), 67e12),
}
for name, (rows, peak) in profiles.items():
    busy, memory = sum(row["duration_us"] for row in rows), sum(row["bytes"] for row in rows) / 3.35e6
    compute = sum(row["flops"] for row in rows) / peak * 1e6
    print(f"{name:26} busy {busy:5} us, bytes {memory:6.1f}, operations {compute:6.1f}: {regime(rows, 3.35e12, peak)}")

# %% [markdown] tags=["solution-only"]
# Each regime has its own cure. Launch-bound: fewer launches (foreach, one flat buffer, a CUDA graph); a faster kernel
# changes nothing. Memory-bound: fewer bytes (fusing, narrower states). Compute-bound: fewer operations, or a narrower
# type for the products. Inefficient: look at the kernel itself, at its access pattern and at how many programs run.

# %% [markdown]
# ## 6. Where launches and bandwidth cost the same
#
# *Level 2, 5 minutes, id `crossing_elements`.* A fused AdamW in float32 makes one launch for each tensor. A launch
# takes 5 microseconds, and memory moves 3.35 TB/s (3.35e12 bytes per second). At how many elements per tensor do the
# two take equally long? A fraction of an element is fine.

# %% tags=["exercise:crossing_elements"]
elements = ...
### BEGIN SOLUTION
elements = 5e-6 * 3.35e12 / 28
### END SOLUTION

# %% tags=["check:crossing_elements"]
check("crossing_elements", elements)

# %% [markdown] tags=["solution-only"]
# Launches and kernels overlap, so the longer of the two counts: below the crossing a step takes as long as its
# launches, whatever is in the tensors. How much of GPT-2 is on which side?

# %% tags=["solution-only"]
sizes = [int(np.prod(shape)) for shape in shapes("gpt2")]
small = [size for size in sizes if size < elements]
print(f"{elements:,.0f} elements, a matrix of {elements**0.5:.0f} x {elements**0.5:.0f}")
print(f"{len(small)} of {len(sizes)} tensors are below it, with {sum(small) / sum(sizes):.1%} of the parameters")
launches, bandwidth = 5e-3 * len(sizes), 28e3 * sum(sizes) / 3.35e12
print(f"{len(sizes)} launches take {launches:.2f} ms, the bytes {bandwidth:.2f} ms")

# %% [markdown] tags=["solution-only"]
# Most of the small ones are biases and norms with hardly any parameters, and each costs a launch like the others. So
# production kernels take many tensors in one launch, as many as there is room for their addresses in a kernel's
# arguments: torch's fused AdamW up to 36 where these have 4 KB, up to 252 where they have 32 (built for CUDA 13; see
# `MultiTensorApply.cuh`).
