# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sharding: ZeRO on real processes
#
# ## 1. The question
#
# > *What do ZeRO-1, 2 and 3 shard, what does each stage send, and do the trained numbers change?*
#
# After memory arithmetic this is what interviewers often ask. Afterwards you can write each stage with two
# collectives, predict the bytes of a rank and what it sends, say why two of the stages cost nothing and the third
# half as much again, and recognise the usual bugs, some of which no loss curve shows.
#
# Know first: notebook 10 (where 16 bytes per parameter come from). Time: 60 minutes. $N$ is the number of ranks, $P$
# that of parameters. Everything here runs on processes of your own machine, two or four of them, that talk through
# `gloo`; on GPUs the same code talks through NCCL.

# %%
import inspect
import re

import torch
from torch import nn

from course_lib import plots
from course_lib.memory.predict import predict
from course_lib.optim import REGISTRY
from course_lib.parallel import price
from course_lib.parallel.data_parallel import DataParallel
from course_lib.parallel.launch import RankError, launch
from course_lib.parallel.threads import run_threads
from course_lib.parallel.traffic import Traffic
from course_lib.parallel.trial import BATCH, ENGINES, MODEL, OURS, TORCH, UNIT_BYTES, run
from course_lib.parallel.zero1 import Zero1
from course_lib.parallel.zero2 import Zero2
from course_lib.parallel.zero3 import Zero3
from course_lib.problems import lm, text

# %% [markdown]
# ## 2. The picture
#
# Four accountants keep the same ledger. Each reads a quarter of the day's receipts; in the evening they add up their
# sums, and then each of them corrects every page of a whole ledger of his own. Four desks, four ledgers, four times
# the same work. Let each keep the working notes of a quarter of the pages instead: in the evening everybody hands in
# the sums for the others' pages, corrects a quarter, and passes copies of the corrected pages around. The same
# ledger, a quarter of the notes.
#
# What is handed around are four kinds of exchange between ranks, the *collectives*:

# %%
plots.show(plots.draw_collectives(),
           alt="Four ranks as rows, four parts of a tensor as columns, for four collectives. Reduce-scatter: every "
               "rank begins with all parts of its own and ends with one part, the sum over ranks. All-gather: every "
               "rank begins with one part and ends with all. All-reduce: every rank ends with the sum of "
               "everything. Broadcast: every rank ends with what one rank had.")

# %% [markdown]
# ## 3. The derivation
#
# ### 3.1 Four collectives, on four processes
#
# `launch(function, 4)` starts four Python processes, calls `function(comm)` on each, and returns the four results.
# Rank r begins with the numbers 10r, 10r + 1, 10r + 2, 10r + 3:

# %%
def exchange(comm):
    mine = torch.arange(4.0) + 10 * comm.rank
    part = comm.reduce_scatter(mine)
    return {"before": mine, "reduce_scatter": part, "all_gather of that": comm.all_gather(part),
            "all_reduce of before": comm.all_reduce(mine.clone()), "broadcast from 2": comm.broadcast(mine.clone(), 2)}


ranks = launch(exchange, 4)
for name in ranks[0]:
    print(f"{name:21}", *(f"{[int(x) for x in rank[name]]!s:17}" for rank in ranks))
assert all(torch.equal(rank["all_gather of that"], rank["all_reduce of before"]) for rank in ranks)

# %% [markdown]
# Columns are ranks. The assertion is the key to this notebook: **an all-reduce is a reduce-scatter followed by an
# all-gather.** Sharding puts work between the two halves.
#
# ### 3.2 What a collective costs
#
# In a ring each rank sends to its right neighbour only. To reduce-scatter a tensor of $S$ bytes, cut it into $N$
# parts; in each of $N-1$ steps a rank passes on one part, and the receiver adds its own. To all-gather, $N-1$ steps
# more, without adding:

# %%
plots.show(plots.draw_ring(),
           alt="A ring all-reduce of four ranks, step by step. After three steps each rank has one part that is summed "
               "over all ranks; after three more every rank has all four sums.")

# %% [markdown]
# So each rank sends
#
# $$\text{reduce-scatter, all-gather: } \frac{N-1}{N}\,S \qquad \text{all-reduce: } 2\,\frac{N-1}{N}\,S,$$
#
# which hardly depends on $N$. No algorithm in which only the ranks add sends less (Patarasuk & Yuan 2009); a switch
# that adds can halve it. With a start-up time $\alpha$ for each step and a bandwidth $B$ the time of an all-reduce is
# $2(N-1)\,(\alpha + S/(N B))$. A standard exercise: 14 GB of gradients, 64 ranks, 50 GB/s on every hop of the ring.

# %%
gradients = price.all_reduce(14e9, 64, price.Link(0.0, 50e9))
print(f"{gradients.seconds:.2f} s, in which each rank sends {gradients.sent / 1e9:.1f} GB")
slow = price.Link(10e-6, 50e9)      # 10 microseconds to start a message
apart, together = 148 * price.all_reduce(500e6 / 148, 64, slow).seconds, price.all_reduce(500e6, 64, slow).seconds
print(f"GPT-2's 500 MB of gradients in 148 calls: {apart * 1e3:.0f} ms; in one: {together * 1e3:.0f} ms")
assert round(gradients.seconds, 2) == 0.55 and apart > 5 * together

# %% [markdown]
# That is why gradients are sent in *buckets* of some megabytes, and not tensor by tensor.
#
# ### 3.3 Data parallelism
#
# Every rank has the whole model and a part of the batch. If its loss is the mean over its part, and the parts are
# equally large, then the mean of the ranks' gradients is the gradient of the whole batch:

# %%
data = list(text.batches(text.corpus(), BATCH, MODEL.context, 4, seed=0))


def part_of(batch, comm):
    return [tensor[comm.rank :: comm.ranks] for tensor in batch]


def state_bytes(optimizer):
    return sum(t.nbytes for kept in optimizer.state.values() for t in kept.values() if torch.is_tensor(t))


def by_hand_data_parallel(comm):
    model = lm.ByteLM(MODEL)
    optimizer = REGISTRY["adamw"].make(model.parameters(), lr=1e-3)
    for batch in data:
        model.zero_grad()
        lm.next_byte_loss(model, part_of(batch, comm)).backward()
        for param in model.parameters():
            param.grad = comm.all_reduce(param.grad) / comm.ranks
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach(), state_bytes(optimizer)

# %% [markdown]
# It works, and it is wasteful: every rank computes the same update, with the same $m$ and $v$. In mixed precision all
# of 16P bytes are on every rank, however many ranks there are.
#
# ### 3.4 ZeRO-1: share out the optimizer
#
# AdamW's rule works element by element. So an element's $m$ and $v$ need to be in one place only: at the rank that
# updates it. Lay all parameters end to end and give each rank an equal slice. A rank needs the mean gradient of its
# slice (reduce-scatter), updates its slice, and gives the result to the others (all-gather):

# %%
def by_hand_zero1(comm):
    model = lm.ByteLM(MODEL)
    mine = nn.utils.parameters_to_vector(model.parameters()).detach().chunk(comm.ranks)[comm.rank].clone()
    optimizer = REGISTRY["adamw"].make([mine], lr=1e-3)
    for batch in data:
        model.zero_grad()
        lm.next_byte_loss(model, part_of(batch, comm)).backward()
        whole = torch.cat([param.grad.flatten() for param in model.parameters()])
        mine.grad = comm.reduce_scatter(whole) / comm.ranks      # the mean, of my slice
        optimizer.step()                                         # m and v, of my slice
        nn.utils.vector_to_parameters(comm.all_gather(mine), model.parameters())
    return nn.utils.parameters_to_vector(model.parameters()).detach(), state_bytes(optimizer)


both = launch(lambda comm: (by_hand_data_parallel(comm), by_hand_zero1(comm)), 2)
elements = sum(param.numel() for param in lm.ByteLM(MODEL).parameters())
for rank, ((replicated, whole_state), (sharded, share)) in enumerate(both):
    print(f"rank {rank}: state {whole_state / elements:g} and {share / elements:g} bytes per parameter; weights",
          f"within 1e-5: {torch.allclose(replicated, sharded, rtol=0, atol=1e-5)}")
    assert whole_state == 2 * share == 8 * elements

# %% [markdown]
# Half of the state on each of two ranks, and the same weights. And the price? Data parallelism sent an all-reduce,
# this a reduce-scatter and an all-gather: **the same bytes**, with the update between the halves. Nothing was paid.
#
# Two things went well here by themselves. The number of parameters is a multiple of the ranks; where it is not, pad
# the last slice. And all ranks began with the same weights, by the seed; the engines below let rank 0 give its
# weights to all.
#
# ### 3.5 ZeRO-2: share out the gradients
#
# At the end of the backward pass each rank holds whole gradients, of which it will use a slice. They need never be
# there at once: autograd makes them layer by layer, from the last to the first, so each piece can be reduce-scattered
# as soon as it is complete, and freed. The course's engine calls ZeRO-1's reduction from hooks, unit by unit; a unit
# is a bucket laid out flat:

# %%
print(inspect.getsource(Zero2.reduce))

# %% [markdown]
# One thing to get right: all ranks must call collectives in one order, and gradients need not arrive in the same
# order everywhere. So units have a fixed order, and one that is complete waits for those before it, as in DDP.
# `base.py` is where this is.
#
# ### 3.6 ZeRO-3: share out the weights
#
# What is left are the weights. A layer needs them whole, but only while it runs: gather them before, free them after,
# in the forward and again in the backward pass.

# %%
print(inspect.getsource(Zero3._gather), inspect.getsource(Zero3._free), sep="\n")

# %% [markdown]
# To free is to shrink the *storage* to nothing. What autograd saved for the backward pass is a view of it, and finds
# the numbers again when the storage is filled once more. The parameters read as NaN meanwhile, since to read memory
# that is gone would end the process. (FSDP frees storages too; FSDP2 puts the sharded parameter in the module's
# place.)
#
# ### 3.7 The life of a parameter
#
# Which collective when? `Traffic` stands below `torch.distributed` and writes down each call:

# %%
STAGES = (DataParallel, Zero1, Zero2, Zero3)
SHORT = {"all_reduce": "AR", "reduce_scatter": "RS", "all_gather": "AG"}


def life(comm):
    found = {}
    for stage in STAGES:
        engine = stage(lm.ByteLM(MODEL), comm, "adamw", unit_bytes=UNIT_BYTES, lr=1e-3)
        with Traffic() as forward:
            loss = lm.next_byte_loss(engine.model, part_of(data[0], comm))
        with Traffic() as backward:
            loss.backward()
        with Traffic() as step:
            engine.step()
        phases = {"forward": forward, "backward": backward, "step": step}
        found[stage.__name__] = {name: [call.name for call in phase.data] for name, phase in phases.items()}
    return found


lives = launch(life, 2)[0]
for stage, phases in lives.items():
    calls = [f"{' '.join(SHORT[name] for name in names) or '-':21}" for names in phases.values()]
    print(f"{stage:13} " + "  ".join(f"{phase}: {told}" for phase, told in zip(phases, calls)))

# %% [markdown]
# AR, RS, AG are the three collectives; the small model has four units by size, and three by module: two blocks, and
# what is outside. Read the rows one below the other. The all-reduce of data parallelism comes apart into its halves;
# from stage 1 to 2 the reduce-scatter moves from the step into the backward pass, where it can overlap with
# computing; from 2 to 3 the gather moves from the step to the passes, and there is one more of it. (Production
# engines reduce in the backward pass under ZeRO-1 as well, and keep whole gradients; here it waits for the step, so
# that neighbouring stages differ in one thing. None of the course's engines overlaps anything.)
#
# ## 4. The whole
#
# ### 4.1 Bytes of a rank, predicted and measured
#
# Each of the $16P = 2P + 2P + 12P$ bytes is divided by $N$ from some stage on (Rajbhandari et al. 2020, section 5):
#
# | | weights | gradients | master, m, v | together |
# |---|---|---|---|---|
# | data parallel | 2P | 2P | 12P | 16P |
# | ZeRO-1 | 2P | 2P | 12P/N | 4P + 12P/N |
# | ZeRO-2 | 2P | 2P/N | 12P/N | 2P + 14P/N |
# | ZeRO-3 | 2P/N | 2P/N | 12P/N | 16P/N |
#
# `held_bytes` walks the storages that a rank holds after its backward pass, and `trial.run` puts them beside the
# formulas:

# %%
def trial(comm):
    return run(comm, OURS, precision="mixed-bf16"), run(comm, OURS + TORCH)


trials = {ranks: launch(trial, ranks) for ranks in (2, 4)}
print("bytes per parameter, bf16 weights and gradients, float32 masters and moments")
for ranks, results in trials.items():
    for row in results[0][0]:
        measured, predicted = ([part / elements for part in parts.values()] for parts in (row.held, row.predicted))
        print(f"{ranks} ranks  {row.engine:13}", " + ".join(f"{part:g}" for part in measured), f"= {sum(measured):g}")
        assert measured == predicted
    assert all(row.held == other.held for rank in results for row, other in zip(rank[0], results[0][0]))

# %%
rows = trials[4][0][0]
names = dict(zip(OURS, ("data parallel", "ZeRO-1", "ZeRO-2", "ZeRO-3")))
predicted = {names[row.engine]: row.predicted for row in rows}
measured = {names[row.engine]: row.held for row in rows}
plots.show(plots.draw_states(predicted, measured, title="Four ranks: 16P, 7P, 5.5P and 4P bytes each, as predicted",
                             xlabel="", ylabel="model states of a rank"),
           alt="Stacked bars of parameters, gradients and optimizer on one of four ranks, measured, each within an "
               "outline of what was predicted; they coincide. Data parallel is highest, most of it the optimizer; "
               "ZeRO-1 is less than half, ZeRO-2 and ZeRO-3 are lower still.")

# %% [markdown]
# To the byte. The gain of stage 1 is the largest. What stage 3 adds looks small here; as $N$ grows, it is the only
# stage that goes to zero.
#
# This is what lies there *between* the passes. During them ZeRO-3 also holds what it has gathered, here the weights
# outside the blocks and those of one block, one block more with prefetching; and stages 2 and 3 hold the whole
# gradients of a unit or two. A rank needs room for its share and for the largest unit.
#
# ### 4.2 The same weights
#
# Sharding changes where numbers are kept, not the numbers. After four steps in float32, the largest difference of any
# weight from training in one process on whole batches:

# %%
for ranks, results in trials.items():
    every = [row for _, in_float32 in results for row in in_float32]
    print(f"{ranks} ranks, below 1e-5:", {row.engine: row.apart < 1e-5 for row in every})
    assert max(row.apart for row in every) < 1e-5

# %% [markdown]
# All below 1e-5: rounding, since the mean over the batch is added up in another order. In float64 they are below
# 1e-10, after fifty steps of AdamW in each stage on 1 to 4 ranks, and after twelve of every optimizer of the registry
# that works element by element; the tests of this course assert both.
#
# ### 4.3 What is sent
#
# Bytes that a rank sent in one step, from the calls that `Traffic` saw, as multiples of $S = 4P\,(N-1)/N$:

# %%
def sent(row):
    """How much in units of S, and in which calls."""
    unit = 4 * elements * (row.ranks - 1) / row.ranks
    return f"{row.sent / unit:.4f}  {', '.join(f'{count} {name}' for name, (count, _) in row.calls.items())}"


for ranks, results in trials.items():
    for row in results[0][1][:4]:
        wanted = price.traffic_per_step(ENGINES[row.engine].stage, elements, 4, ranks).total
        norm = 8 * 2 * (ranks - 1) / ranks if row.engine != "data-parallel" else 0      # clipping: one float64
        print(f"{ranks} ranks  {row.engine:13} {sent(row)}")
        assert row.sent == wanted + norm

# %% [markdown]
# 2, 2, 2 and 3. The few bytes above are the gradient norm: one number, all-reduced. (These are bytes of a ring. What
# a backend makes of a call is its own affair: counted on the loopback of one machine, gloo's all-reduce, all-gather
# and broadcast sent what a ring does, within 0.5%; its reduce-scatter sent twice as much.) So:
#
# - **Stages 1 and 2 cost nothing**: reduce-scatter and all-gather are the halves of the all-reduce that data
#   parallelism does anyway.
# - **Stage 3 costs half as much again**: the weights are gathered twice, since they were freed in between.
#
# Two things change the count. Where gradients are reduced in float32 and weights gathered in bf16, data parallelism
# sends 8 bytes per parameter, ZeRO-1 and 2 send 6, ZeRO-3 8: nothing is dearer than data parallelism. And with
# gradient accumulation over $k$ micro-batches, data parallelism and ZeRO-1 still reduce once; ZeRO-2 reduces each of
# them (or it would hold whole gradients), and ZeRO-3 gathers twice for each as well:

# %%
print("micro-batches    1    8   in units of S")
for stage in range(4):
    volumes = [price.traffic_per_step(stage, elements, 4, 4, micro).total for micro in (1, 8)]
    print(f"{price.STAGES[stage]:13}", *(f"{size / (4 * elements * 3 / 4):4.0f}" for size in volumes))

# %% [markdown]
# ## 5. Against production
#
# ### 5.1 DDP, ZeroRedundancyOptimizer, FSDP2
#
# The same model and data, in the same processes, with the engines of torch (float32; bytes per parameter of the
# fullest rank; sent as above):

# %%
print("                       weights, gradients, optimizer")
for ranks, results in trials.items():
    for index, row in enumerate(results[0][1]):
        fullest = max((rank[1][index] for rank in results), key=lambda one: sum(one.held.values()))
        parts = " + ".join(f"{part / elements:.3f}" for part in fullest.held.values())
        print(f"{ranks} ranks  {row.engine:13} {parts}, sends {sent(fullest)}")

# %% [markdown]
# - **DDP** agrees with ours, with one bucket for this small model, and with `gradient_as_bucket_view=True`; by
#   default its buckets are a second copy of the gradients. Its optimizer holds a little more: torch keeps a step
#   count of 4 bytes per tensor.
# - **ZeroRedundancyOptimizer** shards the state only, by whole tensors, so the ranks are uneven: the fullest has more
#   than its half or quarter. It sits on DDP, which has all-reduced everything, and then each owner *broadcasts* its
#   tensors: 3, where ZeRO-1 by halves sends 2. It saves memory, not traffic.
# - **FSDP2** is ZeRO-3, but for the step counts; where $N$ does not divide a tensor's rows it pads them. Its default
#   differs: what is outside the blocks stays gathered from forward to backward (here `reshard_after_forward=True`
#   everywhere). With `False` it is ZeRO-2 in traffic.
#
# DeepSpeed's three stages run beside these with the extra installed (Linux:
# `pip install -c constraints.txt -e ".[deepspeed]"`, then
# `course launch --ranks 2 -- --engines deepspeed-1,deepspeed-2,deepspeed-3`). Measured so with its version 0.19.8:
# stages 1 and 2 all-reduce the gradients by default and then gather, so they send 3 and not 2; and in float32 it
# keeps a second copy of the weights it owns. "ZeRO-2 costs nothing" is true of the algorithm; of an engine one
# measures it. On GPUs the same commands go over NCCL (not run here).
#
# ### 5.2 Overlap
#
# Seconds on the wire are not seconds lost: while layer 3 computes, layer 2 can be gathered. Whether that works
# depends on how long a layer computes, so on the tokens of a rank. A prediction (nothing here is measured): six
# layers of 200 million parameters under ZeRO-3 on 64 GPUs, one a node, so that every hop of the ring has 50 GB/s:

# %%
link = price.Link(0.0, 50e9)
layer = 2 * 200e6      # bytes of one layer in bf16


def step_of(tokens, prefetch):
    compute = price.compute_seconds(6 * 200e6, tokens)
    return price.timeline(3, 6, compute, layer, 64, link, prefetch=prefetch)


cases = {"8,192 tokens a GPU, no prefetch": (8192, 0), "8,192 tokens a GPU, next layer prefetched": (8192, 1),
         "1,024 tokens a GPU, next layer prefetched": (1024, 1)}
timelines = {name: step_of(*case) for name, case in cases.items()}
plots.show(plots.draw_timeline(timelines, title="Prefetching hides the gathers where a layer computes for long enough"),
           alt="Three timelines with a row for compute and one for the network. Without prefetch compute waits before "
               "every layer. With prefetch it waits at the start and in the end only. With few tokens it waits for "
               "most of the step all the same.")

# %%
for name, events in timelines.items():
    step = price.summary(events)
    print(f"{name:42} step {step.seconds * 1e3:4.0f} ms, of it waiting {step.exposed / step.seconds:.0%}")
print("fewest tokens a GPU and micro-batch with which overlap can hide ZeRO-3's traffic (H100, 40% MFU):")
for what, cluster in (("one GPU a node", "network-400"), ("nodes of 8, NVLink inside", "hgx-h100")):
    print(f"{what:26}", f"{price.tokens_to_hide(3, 7_000_000_000, 64, price.CLUSTERS[cluster]):6,.0f}")

# %% [markdown]
# In a node of eight, the eight network cards carry the node's traffic together. The number of parameters cancels out:
# compute and traffic are both proportional to it. Only tokens per GPU, bandwidth and the speed of the chip are left.
# That is the limit of data parallelism of any kind: more GPUs at a fixed global batch mean fewer tokens on each, and
# the traffic of each stays.
#
# ### 5.3 Past one machine
#
# The script stays the same under `torchrun` on several nodes; `docs/past_one_machine.md` says how (Slurm,
# Kubernetes), and what to expect for 7B to 405B on 8 to 16,384 GPUs. Model states of ZeRO-3 in GB per GPU:

# %%
counts = (8, 64, 512, 4096, 16_384)
print(f"{'':6}" + "".join(f"{gpus:>10,}" for gpus in counts))
for billions in (7, 13, 70, 405):
    shares = [predict(billions * 1e9, zero=3, gpus=gpus).total / 1e9 for gpus in counts]
    print(f"{billions:4} B" + "".join(f"{share:10.2f}" for share in shares))

# %% [markdown]
# The model states alone never ask for more than ZeRO-3 and enough GPUs. Three other things do: the activations of one
# sequence, which it does not divide; a layer too large to gather; and too few tokens for each GPU.
#
# - **Tensor parallelism** (each layer's matrices cut over the 8 GPUs of a node) divides activations and the *work on
#   one sequence* too. It sends activations, four all-reduces a layer (Shoeybi et al. 2019), which wants NVLink.
# - **Pipeline parallelism** (layers divided over nodes) sends least: one activation from stage to stage. It pays with
#   a bubble, $(p-1)/(m+p-1)$ of the time for $p$ stages and $m$ micro-batches.
# - Both make one replica out of many GPUs. The compute of a GPU stays what it was; its data-parallel traffic is that
#   of its own $P/(\text{tensor} \times \text{pipeline})$ parameters. Llama 3 405B ran on 16,384 GPUs as 8 x 16 x 128:
#   tensor, pipeline, and 128 data-parallel ranks with sharded states (Grattafiori et al. 2024, section 3.3), so each
#   GPU had the data-parallel traffic of $P/(8 \times 16)$ parameters.
#
# ## 6. Turn the knobs
#
# Predict first: for Llama 3 8B on 64 GPUs, which stage is the first to fit an H100? Then take Llama 3 70B and find
# the smallest number of GPUs for stage 1, and for stage 3. Last, a slower network: which column of the table changes,
# and which does not?

# %%
from course_lib import widgets

widgets.explore_sharding(model="llama-3-8b", ranks=64, stage=1)
assert predict(8_030_261_248, zero=1, gpus=64).total < 80e9 < predict(8_030_261_248).total

# %% [markdown]
# Stage 1 is enough for 8B. For 70B, stage 1 fits on no number of GPUs: 4P are 282 GB on each. Stage 3 fits from 16 on
# (of the powers of two). The network changes seconds and no bytes.
#
# ## 7. How it breaks
#
# Sharding bugs rarely crash. Ranks that are threads of one process are enough to show them, and faster to start.
#
# **The norm without its reduce.** From ZeRO-2 on, no rank has the whole gradient. Clip by the norm of your own
# shares, and every rank scales its slices by another factor:

# %% tags=["nbval-ignore-output"]
def clipped(comm, reduced):
    engine = Zero2(lm.ByteLM(MODEL), comm, "adamw", unit_bytes=UNIT_BYTES, lr=1e-3)
    for batch in data:
        engine.zero_grad()
        loss = lm.next_byte_loss(engine.model, part_of(batch, comm))
        loss.backward()
        if reduced:
            norm = engine.clip_grad_norm_(0.5)
        else:
            norm = torch.cat(list(engine.shares.values())).norm()
            for share in engine.shares.values():
                share.mul_(min(1.0, 0.5 / float(norm)))
        engine.step()
    return float(norm), loss.item(), nn.utils.parameters_to_vector(engine.full_weights().values())


right, wrong = (run_threads(clipped, 4, reduced) for reduced in (True, False))
one_norm, several = ([f"{norm:.2f}" for norm, _, _ in results] for results in (right, wrong))
print("norm that each rank logs, with the reduce:", *one_norm, " without:", *several)
(_, loss, weights), (_, other_loss, others) = right[0], wrong[0]
print(f"losses within 1%: {abs(other_loss / loss - 1) < 0.01};",
      f"weights within 1e-5: {torch.allclose(weights, others, rtol=0, atol=1e-5)}")
assert len(set(one_norm)) == 1 and len(set(several)) > 1 and abs(other_loss / loss - 1) < 0.01

# %% [markdown]
# The loss hardly shows it; AdamW forgives scales that change slowly. The symptom is a logged gradient norm that
# differs between ranks, and is smaller by a factor of about $\sqrt N$.
#
# **A sum in place of a mean**: a forgotten `/ N` multiplies the gradient by $N$. Adam divides it out again:

# %% tags=["nbval-ignore-output"]
def walk(comm, key, forget):
    engine = Zero1(lm.ByteLM(MODEL), comm, key, lr={"adamw": 1e-3, "sgd": 0.1}[key])
    ways = []
    for batch in data:
        engine.zero_grad()
        lm.next_byte_loss(engine.model, part_of(batch, comm)).backward()
        engine.reduce_gradients()
        for share in engine.shares.values():
            share.mul_(comm.ranks if forget else 1)
        engine.step()
        ways.append((nn.utils.parameters_to_vector(engine.full_weights().values()) - start).norm())
    return ways


start = nn.utils.parameters_to_vector(lm.ByteLM(MODEL).parameters()).detach()
for key in ("adamw", "sgd"):
    mean, summed = (run_threads(walk, 4, key, forget)[0] for forget in (False, True))
    first, last = summed[0] / mean[0], summed[-1] / mean[-1]
    print(f"{key:6} the way gone with sums over that with means: {first:.1f} after one step, {last:.1f} after four")
    assert abs(first - {"adamw": 1, "sgd": 4}[key]) < 0.05

# %% [markdown]
# Invisible in Adam's weights until something reads the gradient's scale: clipping, $\epsilon$, a noise scale. Under
# SGD the learning rate is $N$ times what you set; after a few steps the longer way has met other gradients. The
# symptom is a logged norm that is $N$ times too large.
#
# **State that passes for sharded.** Allocate $m$ for all elements, then keep "only" your slice of it. A slice is a
# view: it keeps the whole storage alive. Numbers, losses and `numel` are right; the memory is not:

# %%
whole = torch.zeros(elements)
mine = whole.chunk(4)[0]
print(f"elements {mine.numel() / elements:.2f} P, view holds {mine.untyped_storage().nbytes() / elements:g} P bytes,",
      f"its clone {mine.clone().untyped_storage().nbytes() / elements:g} P")

# %% [markdown]
# **A rank that skips a collective, or makes one more.** A `continue` on one rank only, or an `if rank == 0:` around a
# validation that reduces its loss. From there every call meets the wrong partner. If the sizes differ, all wait
# (below); if they agree, the wrong numbers are summed in silence. With NCCL the wait is ten minutes by default, and
# then the ranks that did nothing wrong complain too. The launcher here says where each rank is:

# %% tags=["nbval-ignore-output"]
def skips(comm):
    loss = torch.ones(())
    if comm.rank == 0:
        comm.all_reduce(loss)
    return comm.all_gather(torch.ones(8))


try:
    launch(skips, 2, timeout=8)
except RankError as error:
    told = str(error)
print(re.sub(r'File ".*[/\\]', 'File "', told)[:900])
assert "2 ranks" in told

# %% [markdown]
# **Ranks that disagree, or an optimizer that cannot be cut.** Two configurations would hang or mix up parameters, and
# Muon, whose update needs whole matrices, would take another update on each number of ranks. The engines ask first:

# %%
def widths(comm):
    Zero1(nn.Linear(4, 8 + comm.rank), comm, "adamw")


for attempt in (widths, lambda comm: Zero1(nn.Linear(4, 8), comm, "muon")):
    try:
        run_threads(attempt, 2)
    except (RuntimeError, ValueError) as error:
        print(str(error).split(". ")[0] + ".")

# %% [markdown]
# | mistake | in a log |
# |---|---|
# | norm of own shares only | logged norm falls by $\sqrt N$ with more ranks, differs between them |
# | sum in place of mean | logged norm $N$ times too large; the loss under Adam shows it only if that norm is clipped |
# | whole state, sliced | memory as in data parallelism, all else right |
# | state made before it is cut* | out of memory at start-up, with gigabytes free afterwards |
# | a rank skips a collective or adds one | all wait, in different calls, or sums are wrong; error after the time limit |
# | ranks with different models or orders | a hang, or a loss that does not fall |
# | NaN on one rank* | the norm is NaN on all: skip the step everywhere, or nowhere |
# | checkpoint of rank 0 alone* | a resume with $1/N$ of the moments |
#
# (* not run in this notebook.)
#
# ## 8. Your turn
#
# In `exercises/15_sharding.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `zero_plan` | which collective, in which phase, under each stage |
# | `owners_by_bytes` | whole tensors given to ranks, evenly by bytes |
# | `ring_all_reduce` | the ring, step by step, and what it sends |
# | `ring_seconds` | its time, by latency and bandwidth |
# | `clip_sharded` | the norm of a gradient that nobody has whole |
# | `zero1_step` | AdamW under ZeRO-1, in forty lines |
# | `zero_bug` | a ZeRO-2 that saves no memory and clips wrongly: mend it |
# | `gpus_needed` | a number: the GPUs that a 32B model takes under ZeRO-2 |

# %% [markdown]
# ## 9. In the interview
#
# Eight questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves what can be run.

# %%
from course_lib import questions

questions.show("sharding-life-of-a-parameter")
questions.show("sharding-wrong-order")

# %% tags=["evidence-sharding-life-of-a-parameter", "evidence-sharding-wrong-order"]
assert set(lives["DataParallel"]["backward"]) == {"all_reduce"} and not lives["DataParallel"]["step"]
assert set(lives["Zero3"]["forward"]) == {"all_gather"} and not lives["Zero3"]["step"]
assert set(lives["Zero3"]["backward"]) == {"all_gather", "reduce_scatter"}
divided = [[part for part, size in row.held.items() if size < rows[0].held[part]] for row in rows[1:]]
assert divided == [["optimizer"], ["gradients", "optimizer"], ["parameters", "gradients", "optimizer"]]
print("divided in stages 1, 2, 3:", divided)

# %%
questions.show("comm-ring-time")
questions.show("comm-stage-volumes")

# %% tags=["evidence-comm-ring-time", "evidence-comm-stage-volumes"]
volumes = [price.traffic_per_step(stage, 7 * 10**9, 2, 64, gradient_width=4).total / 1e9 for stage in range(4)]
assert [round(volume, 1) for volume in volumes] == [55.1, 41.3, 41.3, 55.1]
print(f"14 GB over 64 ranks at 50 GB/s: {gradients.seconds:.2f} s")
print("7B on 64 GPUs, float32 gradients, stages 0 to 3:", [f"{volume:.1f} GB" for volume in volumes])

# %%
questions.show("sharding-which-optimizers")
questions.show("sharding-muon")

# %% tags=["evidence-sharding-which-optimizers", "evidence-sharding-muon"]
scopes = {"element": [], "block": [], "tensor": []}
for key, entry in REGISTRY.items():
    scopes[entry.scope].append(key)
for key in scopes["tensor"]:
    try:
        run_threads(lambda comm, key=key: Zero1(nn.Linear(4, 8), comm, key), 2)
        raise AssertionError(key)
    except ValueError as error:
        assert "whole tensor" in str(error)
print("optimizers by what the update of one element needs:", {scope: len(keys) for scope, keys in scopes.items()})

# %%
questions.show("sharding-hiding-tokens")
questions.show("sharding-70b-plan")

# %% tags=["evidence-sharding-hiding-tokens", "evidence-sharding-70b-plan"]
few, many = (price.summary(step_of(tokens, 1)) for tokens in (1024, 8192))
waiting = [step.exposed / step.seconds for step in (few, many)]
held = [predict(70e9, zero=stage, gpus=64).total / 1e9 for stage in (1, 2, 3)]
assert waiting[0] > 0.5 > 0.2 > waiting[1] and held[2] < 80 < held[1] < held[0]
print(f"waiting {waiting[0]:.0%} with 1,024 tokens, {waiting[1]:.0%} with 8,192")
print(f"70B on 64 GPUs, stages 1, 2, 3: {[round(size, 1) for size in held]} GB")

# %% [markdown]
# ## 10. Sources
#
# - Rajbhandari et al. 2020, *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models* (1910.02054): the
#   stages, section 5; communication, section 7.
# - Li et al. 2020, *PyTorch Distributed* (2006.15704): buckets, fixed order, overlap, section 3.2.
# - Zhao et al. 2023, *PyTorch FSDP* (2304.11277): units, freeing and prefetching, section 3.
# - Patarasuk & Yuan 2009, *Bandwidth optimal all-reduce algorithms* (J. Parallel Distrib. Comput. 69): the ring and
#   the bound.
# - Shoeybi et al. 2019, *Megatron-LM* (1909.08053): tensor parallelism. Huang et al. 2019, *GPipe* (1811.06965): the
#   bubble. Narayanan et al. 2021 (2104.04473): how the three go together.
# - Grattafiori et al. 2024, *The Llama 3 Herd of Models* (2407.21783): section 3.3.
# - Liu et al. 2025, *Muon is Scalable for LLM Training* (2502.16982): a distributed Muon, section 2.3.
# - Kaplan et al. 2020 (2001.08361): 6 FLOPs per parameter and token.
#
# Where they disagree: the ZeRO paper counts stage 3 as 3P, torch's FSDP2 keeps the root gathered and sends a little
# less, DeepSpeed by default keeps small parameters whole and sends less still. "ZeRO-2" with accumulation is in some
# engines stage 1 in memory, since whole gradients are kept until the last micro-batch.
