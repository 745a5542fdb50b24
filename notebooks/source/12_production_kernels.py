# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Against production: kernels, rooflines, and a fused AdamW
#
# ## 1. The question
#
# > *Your Adam is right. Why is it fourteen times slower than PyTorch's, and how would you fix it?*
#
# Afterwards you can count what a step does and what it must do, say which of three limits a step has met, write a
# fused kernel's body, name what `foreach`, `fused`, `torch.compile` and CUDA graphs each change, and give the least
# time of a 7B step from memory.
#
# Know first: notebook 05 (AdamW) and, for the bytes, notebook 10. Time: 55 minutes.

# %%
import inspect
import os
import subprocess
import sys

import numpy as np
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from course_lib import plots
from course_lib.compare import compare
from course_lib.kernels import bench, compiled, recording, roofline, stub, traffic, triton_walk, variants
from course_lib.kernels.records import all_recorded
from course_lib.kernels.shapes import shapes
from course_lib.kernels.trace import profile_step
from course_lib.optim import REGISTRY, AdamW

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
names = ("naive", "for-loop", "foreach", "compiled", "flat", "triton", "capturable", "fused")
ways = [way for way in names if variants.unavailable(way, "adamw", device) is None]

# %% [markdown]
# ## 2. The picture
#
# A cook needs four things from the cellar for a sauce. One cook fetches two, stirs, carries the bowl down again, goes
# back for it and for the third. Another fetches all four once, stirs at the stove, and carries the bowl down once.
# The stirring takes no time. What you pay for is the stairs, and each time you say "go".
#
# The cellar is memory, saying "go" is launching a kernel. Below is one AdamW step over 20 tensors, as the profiler
# saw it:

# %% tags=["nbval-ignore-output"]
few = [(64, 64)] * 20
seen = {way: profile_step(variants.build(way, "adamw", few, device)[0], device) for way in ways}
plots.show(plots.trace({way: profile.rows for way, profile in seen.items()},
                       title="The same step: hundreds of small operations, or one"),
           alt="One lane for each implementation. The naive loop runs 240 short operations, tensor by tensor, torch's "
               "for-loop 160; foreach the same 160 sorted by kind on a CPU, and few on a GPU. Where it can be "
               "compiled, 'compiled' has one operation a tensor and 'flat' two. Fused is a single bar.")
assert len(seen["naive"].rows) > len(seen["for-loop"].rows) > len(seen["fused"].rows)

# %% [markdown]
# A profile makes short operations longer: read its counts and its order. `compiled` and `flat` are made in 3.3 and
# 3.4.
#
# ## 3. The derivation
#
# ### 3.1 Count what a step does
#
# Run a step of each kind on three small tensors, and let every operation report what it was given and what it wrote:

# %%
def stepped(way, count=3, size=64):
    """A step of such a way, its state made, over a few small tensors on the CPU."""
    step, _ = variants.build(way, "adamw", [(size,)] * count, "cpu")
    step()
    return step

counted = {way: traffic.count(stepped(way)) for way in ("naive", "for-loop", "foreach", "fused")}
print(f"{'':9}  calls  read  written   bytes per parameter")
for way, found in counted.items():
    each = [number / (3 * 64) for number in (found.read, found.written, found.moved)]
    print(f"{way:9} {found.calls:6} {each[0]:5.0f} {each[1]:8.0f} {each[2]:8.0f}")
assert counted["naive"].calls == 12 * 3 and counted["foreach"].calls == 8

# %% [markdown]
# Our twelve lines of arithmetic are twelve calls per tensor and 112 bytes per parameter. torch's for-loop merges some
# of them (`lerp`, `addcdiv`): 8 calls, 80 bytes. `foreach` hands the same 8 operations whole *lists* of tensors: the
# calls go down by the number of tensors, **and the bytes stay at 80**. (On a CPU torch then loops over the list
# inside each call, so the picture shows 160 operations again, sorted by kind. On a GPU one kernel takes dozens of
# tensors.) Fused is one call, 28 bytes.
#
# ### 3.2 Count what a step must do
#
# Where does 28 come from? AdamW needs $p,g,m,v$ and gives new $p,m,v$. Seven float32 tensors have to cross the bus,
# as long as they do not fit into the cache and the gradient comes from memory. No step of its own can move less. For
# any optimizer of the course:

# %%
for key in ("sgd", "momentum", "lion", "adamw", "adamw8bit"):
    print(f"{REGISTRY[key].name:18} {traffic.least_bytes(key).total:6.2f} bytes, weights and gradients in float32")
mixed = traffic.least_bytes("adamw", param=2, grad=2, state=8, master=4)
print(f"AdamW in mixed precision: reads {mixed.read:.0f}, writes {mixed.written:.0f}, together {mixed.total:.0f}")
floor = 7e9 * mixed.total / 3.35e12
print(f"a 7B step at 3.35 TB/s: at least {1e3 * floor:.1f} ms")
assert mixed.total == traffic.least_bytes("adamw").total == 28 and round(1e3 * floor, 1) == 58.5

# %% [markdown]
# 28 bytes in mixed precision too: the gradient is read in bf16, master weights, $m$ and $v$ go both ways, the bf16
# weight is only written. **At 3.35 TB/s, an H100's bandwidth, a step of 7 billion parameters takes at least 58.5
# ms.** (Their 16 bytes each, 112 GB, do not fit on one such card of 80 GB. Sharded over 64 ranks, notebook 15, each
# does a 64th: 0.9 ms.)
#
# So 112 bytes against 28 is a factor of 4. The question says fourteen, as two quiet CPU cores showed for 40 tensors
# of a million floats. The rest has another cause, which section 5 will find.
#
# ### 3.3 One pass: let a compiler write the kernel
#
# The step as one function of one-dimensional tensors. `torch.compile` reads it and emits a single loop:

# %%
print(inspect.getsource(compiled.adamw_rule))

# %% tags=["nbval-ignore-output"]
def run(make, steps=20, dtype=torch.float32):
    """Weight and both moments after steps on gradients whose sizes span five decades."""
    rng = np.random.default_rng(0)
    p = torch.nn.Parameter(torch.from_numpy(rng.standard_normal((48, 50))).float().to(dtype))
    scale, optimizer = 10.0 ** rng.uniform(-4, 1, p.shape), make([p])
    for _ in range(steps):
        p.grad = torch.from_numpy(rng.standard_normal(p.shape) * scale).float().to(dtype)
        optimizer.step()
    return p.detach(), optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]

fused = run(lambda p: torch.optim.AdamW(p, fused=True))
reason = compiled.unavailable("cpu")
if reason is None:
    assert all(compare(*pair) for pair in zip(("weight", "m", "v"), run(compiled.CompiledAdamW), fused))
print(reason or f"in the profile of section 2: {seen['compiled'].counts}")

# %% [markdown]
# The numbers that change from step to step (the learning rate, both bias corrections) come in as a *tensor*.
# torch.compile guards on Python numbers. An argument is compiled in once or twice, before it becomes a variable; a
# step count that is kept on an object is compiled in at each value, eight times, and then the compiler gives up.
#
# ### 3.4 One call: lay the tensors end to end
#
# Twenty tensors are still twenty calls. Nothing in AdamW asks where one tensor ends and the next begins, so let them
# all be views of one buffer, the gradients of another, and run the kernel once:

# %%
flat = compiled.FlatAdamW([torch.nn.Parameter(torch.ones(shape)) for shape in ((3, 4), (5,), ())], compile=False)
weights = flat.param_groups[0]["params"]
print("elements from the first:", [(p.data_ptr() - weights[0].data_ptr()) // 4 for p in weights])
for _ in range(2):
    sum(w.sum() for w in weights).backward()
    flat.zero_grad()
print("gradients lie in one memory:", len({w.grad.untyped_storage().data_ptr() for w in weights}) == 1)

# %% [markdown]
# Each begins at a multiple of 16 floats: 64 bytes, a cache line of most CPUs. The price: the optimizer owns the
# memory of weights and gradients. Gradients must stay where they are, so zero them in place; `set_to_none` would drop
# the views. Megatron-LM's gradient buffers and FSDP's first version are flat, too, mainly to communicate in one
# piece; FSDP2 has gone back to single tensors.
#
# ### 3.5 The kernel by hand
#
# On a GPU a kernel is a *program* that runs many times at once, each on its own block of elements. Triton writes it
# in Python. Our stand-in for `triton.language` runs the same text with NumPy, anywhere, and watches every access:

# %%
tl = stub

def momentum_kernel(p_ptr, g_ptr, m_ptr, n, lr, beta, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n                                    # the last block sticks out
    m = beta * tl.load(m_ptr + i, mask=inside) + tl.load(g_ptr + i, mask=inside)
    tl.store(m_ptr + i, m, mask=inside)
    tl.store(p_ptr + i, tl.load(p_ptr + i, mask=inside) - lr * m, mask=inside)

rng = np.random.default_rng(1)
p, g, m = rng.standard_normal((3, 1000)).astype(np.float32)
expected = p - 0.1 * (0.9 * m + g)
record = stub.run(momentum_kernel, (tl.cdiv(1000, 256),), p, g, m, 1000, 0.1, 0.9, BLOCK=256)
assert compare("momentum kernel", p, expected)
print(f"{record.bytes_read + record.bytes_written} bytes moved, {20 * 1000} expected")

# %% [markdown]
# Programs run in any order, and so must not meet. Now the same for a GPU: Lion's kernel in the library, in Triton. It
# has the same three tensors and the same 20 bytes (`column` fetches a tensor's address from a table, `rounded` casts
# to the weight's type). AdamW's has one tensor more, and is yours to write in the exercises:

# %%
from course_lib.kernels import triton_adamw, triton_lion

print(inspect.getsource(triton_lion).partition("@kernel\n")[2].partition("\n\n\nclass")[0])

# %% [markdown]
# `triton_walk.py` does the rest for AdamW, Lion and SGD alike: a table with the address of every tensor, and for each
# program the tensor and the place in it, so that GPT-2's 148 tensors are one launch. Offsets are 64-bit: an int32
# ends at 2.1 billion elements. A factor for loss scale and clipping is multiplied in registers, for free; as a pass
# of its own it would cost 8 bytes. Without a GPU the kernel runs in Triton's interpreter:

# %% tags=["nbval-ignore-output"]
reason = triton_walk.unavailable()
if reason is None:
    mine = torch.nn.Parameter(torch.linspace(-1, 1, 1000, device=device))
    other = torch.nn.Parameter(mine.detach().clone())
    pair = triton_adamw.TritonAdamW([mine]), torch.optim.AdamW([other])
    for step in range(3):
        for optimizer, w in zip(pair, (mine, other)):
            w.grad = torch.linspace(step, 1, 1000, device=device)
            optimizer.step()
    assert compare("Triton's AdamW", mine, other)
print(reason or f"run on {device}")
assert reason is None or "Triton" in reason

# %% [markdown]
# ## 4. The whole
#
# The three that need no compiler against torch's fused kernel: weight and both moments, after 20 steps on gradients
# that span five decades.

# %%
ends = {"naive": run(AdamW), "for-loop": run(lambda p: torch.optim.AdamW(p, foreach=False)),
        "foreach": run(lambda p: torch.optim.AdamW(p, foreach=True))}
for way, end in ends.items():
    for part, mine, theirs in zip(("weight", "m", "v"), end, fused):
        assert compare(f"{way} {part}", mine, theirs)
print("foreach and for-loop, bit for bit:", torch.equal(ends["foreach"][0], ends["for-loop"][0]))
assert not torch.equal(fused[0], ends["foreach"][0])

# %% [markdown]
# **Why do the last bits differ, and who is right?** foreach runs the for-loop's operations in the for-loop's order,
# so every bit agrees. Fused is one loop, in which the weight's last line is grouped otherwise, and a product and a
# sum may be rounded once instead of twice. How often is each the nearer one to the same steps in float64?

# %% tags=["nbval-ignore-output"]
exact = run(lambda p: torch.optim.AdamW(p, foreach=False), dtype=torch.float64)[0]
off = {way: (end[0].double() - exact).abs() for way, end in (ends | {"fused": fused}).items()}
nearer = {"fused nearer": (off["fused"] < off["foreach"]).double().mean().item(),
          "foreach nearer": (off["foreach"] < off["fused"]).double().mean().item()}
print({name: f"{share:.2%}" for name, share in nearer.items()}, "the rest equal")
print("largest error", {way: f"{error.max():.1e}" for way, error in off.items()})
assert max(nearer.values()) < 0.05 and all(error.max() < 1.01 * off["foreach"].max() for error in off.values())

# %% [markdown]
# Neither is. Both are as far from the truth, by float32's own rounding; in fewer than one element in a hundred they
# differ, by a bit or two at the end, and which ones depends on the processor. Ask for 1e-6 between kernels, and for
# equality only where the same operations run in the same order.
#
# ## 5. Against production
#
# ### 5.1 Three lists of tensors, on this machine
#
# Interleaved rounds and medians. Between two steps of one way all others have been through the cache, so that none
# finds its tensors there. GB/s are of the bytes that AdamW *must* move; beside it the share of a plain copy's
# bandwidth, and the memory that a step takes for itself, in sizes of all parameters:

# %% tags=["nbval-ignore-output"]
lists = {"one of 8M": [(2048, 4096)], "40 of 200,000": [(200_000,)] * 40, "1000 of 256": shapes("tiny")}
print(bench.describe_device(device))
measured = {}
for name, shapes_here in lists.items():
    job = recording.Job("adamw", name, tuple(shapes_here), torch.float32, (*ways, "copy"))
    one = measured[name] = recording.measure_job(job, device, rounds=3)
    print(f"\n{name:13} {'ms':>8}  x fused  GB/s  of a copy's   takes")
    for way in one.ways:
        takes = "" if way.extra_bytes is None else f"{way.extra_bytes / (4 * one.parameters):.2f}"
        print(f"{way.way:13} {1e3 * way.seconds.median:8.2f} {way.times_base.median:8.2f} {way.gb_per_second:5.1f} "
              f"{one.share_of_copy(way.way):10.0%} {takes:>9}")
large = measured["one of 8M"]
assert large.find("naive").times_base.median > 1.5 and large.find("foreach").extra_bytes >= 4 * large.parameters

# %% [markdown]
# Two regimes. *One large tensor, or 40 of them*: bytes decide. foreach gains nothing over the loop here, and takes as
# much memory again as the parameters, for the roots of all tensors at once. *A thousand tiny ones*: calls decide. On
# a CPU with several threads `fused` goes tensor by tensor and wakes the others for each, a thousand times a step.
# That can take longer than the naive loop, whose small operations stay on one thread. One flat buffer wakes them
# once. (On a GPU fused takes such a list in a few launches.)
#
# More than 100% of a copy? On a CPU a copy's 8 bytes are 12: a line of memory that is written without having been
# read is read first. AdamW has read what it writes. 12/28 is 0.43, about the copy's share of fused's time. On a GPU a
# copy is 8 bytes.
#
# But 112 bytes against 28 is a factor of four, and one large tensor has few calls. The naive loop is slower than
# that. What else does it do? Count the memory that the operating system hands out during a step, on one thread; then
# forbid the allocator to give any back:

# %% tags=["nbval-ignore-output"]
script = """
import resource
from course_lib.kernels import bench, variants
steps = {way: variants.build(way, "adamw", [(2048, 4096)], "cpu")[0] for way in ("naive", "for-loop", "fused")}
ratios = bench.ratios(bench.measure(steps, repeats=3, warmup=1, device="cpu"), "fused")
for way, step in steps.items():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    fresh = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**25
    print(f"  {way:9} {ratios[way].median:5.1f} x fused, {fresh:4.1f} tensors of fresh memory a step")
"""
alone = {"OMP_NUM_THREADS": "1", "LD_PRELOAD": ""}
keep = {"MALLOC_MMAP_THRESHOLD_": str(2**34), "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**28)}
for name, settings in {"as it comes": {}, "memory is kept": keep}.items() if sys.platform == "linux" else ():
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | alone | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(name, done.stdout, sep="\n")

# %% [markdown]
# There is the rest. The naive loop makes six results of full size in a step, torch's for-loop two. Linux' allocator
# (glibc) asks for blocks of 32 MiB and more anew each time: the operating system hands out page after page, fills
# each with zeros, and takes them back at the end of the line. (Smaller blocks it keeps in part.) With memory kept,
# the factors fall to about what was counted, $112/28=4$ and $80/28=2.9$; or to a little more, as a line of a fresh
# result is read before it is written, which makes 4.9 and 3.1. **The naive loop's factor is four or five times the
# bytes, and the rest is page faults.** On a GPU torch's caching allocator keeps memory anyway, and only bytes and
# launches are left.
#
# Can the flat buffer beat production on larger tensors, too? Not by fewer bytes: there are none to save. On Linux it
# asks for huge pages, so where the system grants them the processor looks up an address every 2 MiB and not every 4
# KiB; and it goes to the threads once and not 40 times. `course bench --ways fused,fused-huge-pages,flat` tells the
# two apart. What was recorded elsewhere, as times of fused's:

# %%
records = all_recorded()
for record in records:
    print(f"Recorded, not run here: {record.device}, {record.threads} threads, torch {record.torch}, {record.date}")
    for one in record.measurements:
        if one.optimizer == "adamw" and one.dtype == "float32":
            times = {way.way: round(way.times_base.median, 2) for way in one.ways if way.times_base}
            print(f"  {one.shapes:13}", times)
print("kinds of device:", sorted({record.kind for record in records}))

# %% [markdown]
# `course bench --record` writes such a file on any machine. **None from a GPU is in the course yet**: what is said of
# GPUs here comes from data sheets and from counting. The command is made to take less than five minutes on one, which
# has not been tried.
#
# ### 5.2 The roofline
#
# Arithmetic comes free as long as memory is what one waits for. AdamW's 14 operations on 28 bytes are half a FLOP per
# byte. A machine whose peak is $F$ FLOP/s at a bandwidth of $B$ bytes/s is busy with bytes below $F/B$. The device at
# hand, measured now in float32, and two GPUs by their data sheets, in float16:

# %% tags=["nbval-ignore-output"]
here = roofline.measure_machine(device)
roofs = [plots.Roof(f"this {device.type.upper()}", here.bandwidth, here.peak("float32"))]
roofs += [plots.Roof(card.name, card.bandwidth, card.peak("float16"), "data sheet")
          for card in (roofline.DATASHEETS[key] for key in ("t4", "h200"))]
muon = {width: roofline.work("muon", [(width, width)]) for width in (256, 1024, 4096)}
points = [plots.Point(REGISTRY[key].name, roofline.work(key, [(4096, 4096)]).intensity) for key in ("sgd", "adamw")]
points += [plots.Point("AdamW", 0.5, 0.5e9 * large.find("fused").gb_per_second)]
points += [plots.Point("Muon", work.intensity, note=str(width)) for width, work in muon.items()]
plots.show(plots.roofline(roofs, points, title="AdamW waits for memory on every machine, wide Muon for arithmetic"),
           alt="Roofline on log axes: this machine's measured roof and the data sheets' of T4 and H200. SGD and AdamW "
               "lie far left, under the slope, AdamW's measured point next to it. Muon's point for width 256 lies under "
               "the slope of both GPUs, those for 1024 and 4096 under their flat part.")
assert 0.1 < points[0].intensity < points[1].intensity < 1 < muon[256].intensity

# %% [markdown]
# Twice the FLOP/s would change nothing for AdamW on any of them. **Muon is the exception**: its Newton-Schulz
# iteration multiplies matrices, $30n^3$ operations for an $n\times n$ one, and their share grows with the width:

# %%
card = roofline.DATASHEETS["h200"]
print("H200 by its data sheet, one n x n matrix, float32 weights")
for width in (256, 512, 1024, 4096, 8192):
    least = {key: roofline.bound(roofline.work(key, [(width, width)]), card) for key in ("adamw", "muon")}
    print(f"n = {width:5}: AdamW {1e6 * least['adamw'].seconds:7.1f} us, {least['adamw'].regime}-bound; "
          f"Muon {1e6 * least['muon'].seconds:8.1f} us, {least['muon'].regime}-bound")
assert least["adamw"].regime == "bandwidth" and least["muon"].regime == "compute"
assert 40 < least["muon"].seconds / least["adamw"].seconds < 45

# %% [markdown]
# So the answer to "is the optimizer step memory-bound?" is *whose step*. At a width of 8,192 Muon's takes over 40
# times as long as AdamW's. It is affordable because forward and backward pass take about $6n^2T$ operations for $T$
# tokens: $30n^3$ is $5n/T$ of that, 1% at a width of 8,192 and 4 million tokens. (The first rows are short of
# something else: Muon's 17 launches of 5 microseconds are 85. That is the third limit.)
#
# ### 5.3 The third limit: launches
#
# A launch costs the host some microseconds, whatever the kernel does. Where do launches and bytes cost the same? For
# a thousand tensors on an H100 by its data sheet, 5 microseconds a launch:

# %%
h100, launch = roofline.DATASHEETS["h100"], 5e-6
kernels = {"for-loop": (8, 80), "fused, one launch a tensor": (1, 28), "flat buffer": (1 / 1000, 28)}
limits = {name: plots.Limits(1000 * calls * launch, 1000 * moved / h100.bandwidth)
          for name, (calls, moved) in kernels.items()}
plots.show(plots.regimes(limits, title="Small tensors wait for launches, large ones for bytes"),
           alt="Time of a step against elements per tensor, log axes. Each way is flat while launches decide, then "
               "rises with the bytes: the for-loop from 1.7 million elements on, one launch a tensor from 600,000, the "
               "flat buffer from 600.")
for name, (calls, moved) in kernels.items():
    print(f"{name:27} equal at {roofline.crossing(moved, h100, launch, calls):11,.0f} elements per tensor")

# %% [markdown]
# A transformer has both kinds: matrices of tens of millions, and norms of a few thousand.
#
# **CUDA graphs** remove the launches without touching the kernels: record a step's launches once, then replay all of
# them with one call. What is recorded is numbers and addresses. A step count that lives in Python is such a number.
# Recorded at step 1, replayed for ever:

# %%
def adam(weight, m, v, count):
    m, v = 0.9 * m + 0.1, 0.95 * v + 0.05                       # every gradient is 1, so each step should be lr = 1
    return weight - (m / (1 - 0.9**count)) / (v / (1 - 0.95**count)).sqrt(), m, v

start = torch.zeros(4, dtype=torch.float64)                     # weight, m, v and the step count
recorded = {"a Python number": make_fx(lambda w, m, v, count: (*adam(w, m, v, 1), count))(*start.clone()),
            "a tensor": make_fx(lambda w, m, v, count: (*adam(w, m, v, count + 1), count + 1))(*start.clone())}
length = {}
for name, replay in recorded.items():
    state = tuple(start.clone())
    for _ in range(200):
        before, state = state, replay(*state)
    length[name] = (before[0] - state[0]).item()
    print(f"step count as {name:15}: step 200 is {length[name]:.3f} lr")
assert round(length["a Python number"], 3) == 2.236 and round(length["a tensor"], 3) == 1

# %% [markdown]
# $\frac{1}{1-0.9}\big/\sqrt{\frac1{1-0.95}}=2.236$: corrected for step 1 for ever. So `capturable=True` keeps `step`
# as a tensor on the GPU, where a recorded addition raises it; and a learning rate that a schedule changes must be a
# tensor, too.
#
# ## 6. Turn the knobs
#
# Predict, then move: a thousand tensors of 4,096 with the for-loop; then fused; then the for-loop in a CUDA graph. At
# which size do the three agree within a factor of three?

# %%
from course_lib import widgets

widgets.explore_step_time()

# %% [markdown]
# At 4,096 elements: 40 ms, 0.14 ms, 8 ms. (1 microsecond for each kernel inside a graph is assumed.) From 1.6 million
# elements a tensor on all three lie within a factor of three: what is left is the bytes, 80 or 28, which no graph can
# change.
#
# ## 7. How it breaks
#
# **The mask that was forgotten.** Two layers of 10 and 6 weights lie in one buffer. The kernel for the first one is
# launched over blocks of 8 without a mask:

# %%
def unmasked(p_ptr, g_ptr, n, lr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(p_ptr + i, tl.load(p_ptr + i) - lr * tl.load(g_ptr + i))

buffer, ones = np.zeros(16, np.float32), np.ones(16, np.float32)
stub.run(unmasked, (tl.cdiv(10, 8),), buffer, ones, 10, 0.1, BLOCK=8)              # the first layer
print("first layer", buffer[:10].round(1), " second layer, before its own launch", buffer[10:].round(1))
assert np.allclose(buffer, -0.1)

# %% [markdown]
# No crash: the second layer has moved already, with its own gradient, and will move again. It trains at twice the
# learning rate. Had it been the last one in memory, the stub would refuse, and a GPU might report an illegal access,
# or not. Tests whose sizes are multiples of the block pass.
#
# **The checkpoint that rounds.** A kernel may keep $m$ and $v$ in float32 for bf16 weights. torch's `load_state_dict`
# casts state to the weight's dtype, without a word:

# %%
w = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
saver, loader = torch.optim.AdamW([w]), torch.optim.AdamW([w])
saver.state[w] = {"step": torch.tensor(1.0), "exp_avg": torch.full((4,), 0.1), "exp_avg_sq": torch.full((4,), 0.001)}
loader.load_state_dict(saver.state_dict())
print("saved ", saver.state[w]["exp_avg_sq"].dtype, f"{saver.state[w]['exp_avg_sq'][0].item():.7f}")
print("loaded", loader.state[w]["exp_avg_sq"].dtype, f"{loader.state[w]['exp_avg_sq'][0].item():.7f}")

# %% [markdown]
# From the first step after a resume the curve leaves its old path. The library's Triton optimizers put the float32
# back.
#
# | mistake | what you see |
# |---|---|
# | timing without `torch.cuda.synchronize()` | a step of microseconds, whatever its size: the launch was timed |
# | the same small tensors again and again | more than the memory's bandwidth: the cache was timed |
# | `reshape(-1)` of a transposed weight | that layer never learns: the update went into a copy |
# | a flat buffer and `set_to_none=True` | correct, and slow again: every gradient is copied in |
# | a step count kept on a Python object, in a compiled step | a compilation at each of the first 8 steps, then a warning (`recompile_limit`) and slow steps |
# | a Python step count in a CUDA graph | steps of 2.236 lr at (0.9, 0.95), for ever |
# | `.item()` on the norm before the step | the GPU waits for the host; a gap in the profile before every step |
# | 32-bit offsets | an illegal access, or a wrong weight, from 2.1 billion elements on |
# | four buffers exactly $2^{28}$ bytes apart | up to three times slower for that one size: they drive each other out of the cache |
# | no mask in the last block | a neighbour in memory moves, too; right for sizes that the block divides |
#
# ## 8. Your turn
#
# In `exercises/12_production_kernels.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `step_bytes` | the bytes that a step must move, for any precision |
# | `pack` | where each tensor begins in a flat buffer |
# | `adamw_kernel` | the body of a fused AdamW, against the stub |
# | `momentum_kernel_bug` | find and mend two faults of aliasing |
# | `regime` | read a profile and say what the step waits for |
# | `crossing_elements` | where launches and bytes cost the same |

# %% [markdown]
# ## 9. In the interview
#
# Eight questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves a number or a claim of each.

# %%
from course_lib import questions

questions.show("kernels-three-ways")
questions.show("kernels-lower-bound")

# %% tags=["evidence-kernels-three-ways", "evidence-kernels-lower-bound"]
calls = {way: found.calls for way, found in counted.items()}
moved = {way: found.moved / (3 * 64) for way, found in counted.items()}
print(calls, moved, f"{1e3 * floor:.2f} ms")
assert calls["for-loop"] == 3 * calls["foreach"] == 24 and calls["fused"] == 1
assert moved["for-loop"] == moved["foreach"] == 80 and moved["fused"] == mixed.total == 28

# %%
questions.show("kernels-many-tensors")
questions.show("kernels-slow-step")

# %% tags=["evidence-kernels-many-tensors", "evidence-kernels-slow-step"]
loop = roofline.Work(1000 * 4096 * 80, 0, launches=8000)
whole = roofline.Work(1.3e9 * 28, 0)
for name, work in {"1000 x 4096, for-loop": loop, "1.3B, the floor": whole}.items():
    found = roofline.bound(work, h100, launch)
    print(f"{name:22} {1e3 * found.seconds:5.1f} ms, {found.regime}-bound")
assert roofline.bound(loop, h100, launch).regime == "launch"
print(f"equal at {roofline.crossing(80, h100, launch, 8) / 1e6:.1f} million elements")

# %%
questions.show("kernels-twice-the-flops")
questions.show("kernels-capturable")

# %% tags=["evidence-kernels-twice-the-flops", "evidence-kernels-capturable"]
adamw_work = roofline.work("adamw", [(4096, 4096)])
print(f"AdamW {adamw_work.intensity} FLOP per byte; an H100 has {h100.ridge('float32'):.0f}, in bf16 "
      f"{h100.ridge('bfloat16'):.0f}; a product of n x n matrices n / 3: {roofline.product(900, 900, 900).intensity:.0f}")
assert adamw_work.intensity == 0.5 and roofline.product(900, 900, 900).intensity > h100.ridge("bfloat16")
assert round(length["a Python number"], 3) == 2.236 == round((1 / 0.1) / (1 / 0.05) ** 0.5, 3)

# %%
questions.show("kernels-lost-update")
questions.show("kernels-quiet-gradients")

# %% tags=["evidence-kernels-lost-update", "evidence-kernels-quiet-gradients"]
weight = torch.arange(6.0).reshape(2, 3).t()
weight.reshape(-1).sub_(1)                                    # a copy: the weight does not move
assert torch.equal(weight, torch.arange(6.0).reshape(2, 3).t())
w = torch.nn.Parameter(torch.zeros(2))
w.grad = torch.ones(2)
buffer = w.grad                                               # not a copy: the next gradient is added to it
(3 * w).sum().backward()
print("the update was lost:", weight[0].tolist(), " the buffer became", buffer.tolist())
assert buffer.tolist() == [4.0, 4.0]

# %% [markdown]
# ## 10. Sources
#
# - Williams, Waterman & Patterson 2009, *Roofline: An Insightful Visual Performance Model* (doi
#   10.1145/1498765.1498785).
# - Jordan et al. 2024, *Muon: An optimizer for hidden layers in neural networks* (kellerjordan.github.io/posts/muon):
#   the share $5n/T$; Liu et al. 2025, *Muon is Scalable for LLM Training* (2502.16982).
# - Dettmers et al. 2022, *8-bit Optimizers via Block-wise Quantization* (2110.02861).
# - Tillet, Kung & Cox 2019, *Triton: An Intermediate Language and Compiler for Tiled Neural Network Computations*.
# - Ansel et al. 2024, *PyTorch 2* (ASPLOS): torch.compile and its code generator.
# - torch.optim's documentation on foreach, fused and capturable; torch's notes on CUDA graphs; the source of
#   `torch/optim/adam.py` and `aten/src/ATen/native/cuda/MultiTensorApply.cuh` in pytorch/pytorch.
# - NVIDIA's data sheets, as in `course_lib/kernels/roofline.py`, each with its address.
# - Linux, `Documentation/admin-guide/mm/transhuge.rst`: huge pages and madvise.
#
# What is contested: how much a launch costs (2 to 10 microseconds are quoted, it depends on host, driver and
# framework: measure yours), and whether an optimizer step is worth the trouble at all. Against a forward and backward
# pass of seconds 58 ms are 1% or 2%, and sharded they are less; with small batches, or with fine-tuning on one GPU,
# they are not.
