# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Memory accounting
#
# ## 1. The question
#
# > *How much memory does it take to train a 7B model with Adam?*
#
# Public answers are 56, 70, 84, 112, 126 and 140 GB. Afterwards you can derive the one you mean, say what each of the
# others counts, predict a training step to within 3% of what its tensors hold, and name what to change when it does
# not fit.
#
# Know first: notebook 04 ($m$ and $v$). Time: 55 minutes. 1 GB is $10^9$ bytes and 1 GiB is $2^{30}$ throughout; $P$ is
# the number of parameters, so that "2P" means two bytes for each.

# %%
import io
import math
from dataclasses import replace

import torch
from torch.utils._pytree import tree_leaves

from course_lib import plots
from course_lib.memory import agreement
from course_lib.memory.activations import layer_saved
from course_lib.memory.build import build, next_token_loss
from course_lib.memory.cards import CARDS
from course_lib.memory.measure import fake, measure, model_state
from course_lib.memory.models import MODELS, find
from course_lib.memory.predict import CUDA_CONTEXT, predict
from course_lib.optim import TORCH_KEYS
from course_lib.precision import MasterWeights
from course_lib.problems import lm
from course_lib.train import pick_device

# %% [markdown]
# ## 2. The picture
#
# To read a book you need the printed copy. To revise it you also need this round's corrections, the manuscript from
# which copies are printed, and two notes beside every word: which way its corrections have been going, and how large
# they usually are. The printed copy is the least of it:

# %%
read = dict(weights=2)
revise = dict(weights=2, gradients=2, master=4, m=4, v=4)
single = dict(weights=4, gradients=4, m=4, v=4)
books = {"run, 16 bits": read, "train, mixed precision": revise, "train, float32": single}
bars = {name: {part: 7 * size for part, size in held.items()} for name, held in books.items()}
assert [sum(bar.values()) for bar in bars.values()] == [14, 112, 112]
plots.show(plots.stacked_bars(bars, title="7 billion parameters: 14 GB to run, 112 GB to train", ylabel="GB",
                              hlines={"80 GB card": 80}),
           alt="Stacked bars in GB for 7 billion parameters. Running in 16 bits: 14 of weights. Training in mixed "
               "precision: 14 weights, 14 gradients, 28 each for master copy, m and v, together 112, above the line of "
               "an 80 GB card. Training in float32: 28 each for weights, gradients, m and v, also 112.")

# %% [markdown]
# Activations come on top. The two training bars are equally high; we shall see why.
#
# ## 3. The derivation
#
# ### 3.1 2P + 2P + 12P
#
# Matrix products are fast in 16 bits, so weights and gradients have 2 bytes each. An update, though, is often smaller
# than half the gap between two 16-bit numbers, and then it vanishes (notebook 11). So the optimizer keeps a float32
# copy, the *master weights*, updates that, and rounds it into the 16-bit weights (Micikevicius et al. 2018). Its
# moments are float32 as well:
#
# $$\underbrace{2P}_{\text{weights}}+\underbrace{2P}_{\text{gradients}}
# +\underbrace{4P}_{\text{master}}+\underbrace{4P}_{m}+\underbrace{4P}_{v}=16P.$$

# %%
assert (torch.bfloat16.itemsize, torch.float32.itemsize) == (2, 4)
total = sum(revise.values()) * 7 * 10**9      # the bytes of the picture above
assert total == predict(7e9, precision="mixed-bf16", optimizer="adamw").total
print(f"{sum(revise.values())} bytes per parameter: {total / 1e9:.1f} GB = {total / 2**30:.1f} GiB")
for sold, reported in {"T4, 16 GB": 14.75, "A100, 40 GB": 39.5, "A100, 80 GB": 79.25}.items():
    print(f"sold as {sold:11}  torch reports {reported:5} GiB = {reported * 2**30 / 1e9:.1f} GB")

# %% [markdown]
# Between GB and GiB lie 7%, and the label on a card is neither: its memory is made in powers of two, and the driver keeps
# some. torch's error messages count in GiB (the three above are from public reports, see the sources), `nvidia-smi` in
# MiB. Here a card has its label times $10^9$ bytes; what most have beyond it is a margin for fragmentation. On the
# machine itself ask `torch.cuda.mem_get_info`.
#
# ### 3.2 The same, measured
#
# `model_state` walks the tensors that a model and its optimizer really hold and counts every storage once. A small
# transformer takes one step in four ways:

# %%
tokens = torch.zeros(4, 64, dtype=torch.long)


def states(make, dtype=torch.float32, autocast=False):
    """Bytes that a ByteLM and its optimizer hold after a step, and the dtypes of the optimizer's large tensors."""
    model = lm.ByteLM().to(dtype)
    optimizer = make(model.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        next_token_loss(model, (tokens, tokens)).backward()
    optimizer.step()
    inner = getattr(optimizer, "optimizer", optimizer)
    kinds = {str(t.dtype).removeprefix("torch.") for s in inner.state.values() for t in s.values() if t.dim()}
    return model_state(model, optimizer), kinds


# %%
adamw, sizes = torch.optim.AdamW, [p.numel() for p in lm.ByteLM().parameters()]
setups = {"float32": (adamw,), "float32, autocast": (adamw, torch.float32, True),
          "bf16, master weights": (lambda p: MasterWeights(p, adamw), torch.bfloat16),
          "bf16 alone": (adamw, torch.bfloat16)}
each = {}
for name, setup in setups.items():
    held, kinds = states(*setup)
    steps = 4 * len(sizes)      # torch's count of steps, 4 bytes a tensor
    each[name] = [held["parameters"], held["gradients"], held["optimizer"] - steps]
    each[name] = [size // sum(sizes) for size in each[name]]
    assert sum(each[name]) * sum(sizes) + steps == sum(held.values())
    print(f"{name:21} {' + '.join(map(str, each[name])):>10} = {sum(each[name]):2} bytes, state in {', '.join(kinds)}")

# %% [markdown]
# To the byte. Two lines deserve a second look.
#
# **`torch.autocast` does not make the model states smaller.** It leaves weights, gradients and state in float32 and
# casts copies for each matrix product: 4 + 4 + 8 is 16 again. What shrinks is the activations. "AMP halves the memory"
# holds only where those dominate.
#
# **`model.to(torch.bfloat16)` with torch's AdamW holds 8P.** torch makes $m$ and $v$ in the parameter's dtype and keeps
# no master copy. Half the memory, and nothing says that small updates are now lost.
#
# ### 3.3 Who means which
#
# Every number one hears is a sum over these five tensors, with something left out, counted differently, or chosen
# differently. As weights + gradients + master + state:

# %%
readings = [
    ((0, 0, 0, 8), "m and v alone: 'Adam keeps two more copies'"),
    ((2, 2, 0, 4), "all of bf16 without a master copy"),
    ((2, 0, 0, 8), "weights, m and v; gradients and master copy left out"),
    ((2, 2, 4, 2), "all, with 8-bit m and v (constants left out)"),
    ((0, 0, 4, 8), "ZeRO's K: what the optimizer owns"),
    ((2, 2, 0, 8), "all but the master copy: float32 moments of bf16 weights, as in bitsandbytes' 32-bit AdamW"),
    ((2, 2, 4, 4), "all, with one moment: momentum, Lion"),
    ((2, 0, 4, 8), "a checkpoint that resumes exactly: no gradients"),
    ((2, 4, 4, 4), "all, DeepSeek-V3's formats: float32 gradients, bf16 moments (bf16 weight copy assumed)"),
    ((2, 2, 4, 8), "all: ZeRO's 16"),
    ((4, 4, 0, 8), "all of float32, with autocast or without"),
    ((2, 4, 4, 8), "all, float32 gradients: Megatron-LM, and Hugging Face's documentation"),
    ((2, 6, 4, 8), "all, a float32 sum of gradients beside bf16 ones: Nanotron, DeepSpeed's BF16_Optimizer"),
]
for sizes_of, meaning in readings:
    print(f"{7 * sum(sizes_of):3} GB = 7 x {sum(sizes_of):2}  {' + '.join(map(str, sizes_of)):13} {meaning}")

# %% [markdown]
# So answer "112 GB of model states: 16 bytes per parameter, bf16 with float32 master weights and moments" and name the
# convention. Then nobody can contradict you; they can only ask about gradients.
#
# A popular table lists Adam 12, momentum 4, AdaGrad 4 and LAMB 12 bytes per parameter. It mixes two conventions: its 12
# includes the master copy, which every optimizer needs in mixed precision, and its 4 does not. Consistently:

# %%
print("bytes per parameter   state   state and master copy")
for key in ("sgd", "momentum", "adagrad", "lion", "adamw", "lamb", "adamw8bit", "adafactor"):
    alone, both = (predict(7e9, optimizer=key, precision=p).optimizer / 7e9 for p in ("fp32", "mixed-bf16"))
    assert math.isclose(both, alone + 4)
    print(f"{key:18} {alone:8.2f} {both:12.2f}")

# %% [markdown]
# ### 3.4 One step as a timeline
#
# When are these bytes there? `measure` watches every storage come and go. Here it watches two steps of GPT-2 124M in
# float32, on *fake tensors*: they have shapes and bytes but no data, so that models of any size can be measured on a
# laptop. The horizontal axis counts tensors that appear or go; it is not time.

# %%
gpt2 = find("gpt2-124m")


def watch(architecture, batch, sequence, steps=2, dtype=torch.float32, loss_fn=next_token_loss, keep=False, **how):
    """The timeline of some steps with AdamW, under fake tensors."""
    with fake():
        model = build(architecture, dtype=dtype, **how)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        tokens = torch.zeros(batch, sequence, dtype=torch.long)
        return measure(model, optimizer, loss_fn, steps * [(tokens, tokens)], keep_gradients=keep)


run = watch(gpt2, 1, 1024)
plots.show(plots.areas(run.series(), title="The first step() raises the floor for good", phases=run.phases,
                       xlabel="event (a tensor appears or goes)", size=(8, 4.2)),
           alt="Stacked areas of GPT-2's memory over two training steps. Parameters are a constant 0.5 GB. In forward "
               "activations rise, in backward they fall while gradients rise. In the first step() the optimizer's "
               "state appears, 1 GB, and stays. The second step has the same hills on this higher floor; its peak, "
               "2.72 GB, is where forward ends and backward begins.")

# %%
print(f"GB at the end of {'':7}" + "".join(f"{name:>14}" for name in run.series()))
for step, phase, _ in run.phases:
    print(f"step {step}, {phase:15}" + "".join(f"{size / 1e9:14.2f}" for size in run.after(step, phase).values()))
peaks = [run.total()[run.phases[i][2]:run.phases[i + 2][2]].max() for i in (0, 4)]      # forward to step()
print(f"peak of forward and backward: {peaks[0] / 1e9:.2f} GB in step 0, {peaks[1] / 1e9:.2f} GB in step 1")
assert peaks[1] - peaks[0] == run.after(0, "step")["optimizer"]

# %% [markdown]
# Read it from left to right. Forward leaves activations. Backward consumes them from the last layer to the first, and
# gradients appear weight by weight, so the peak is at the border of the two. (The light band that follows is one
# gradient: GPT-2's embedding is also its output matrix, and waits for its second share.) `step()` creates $m$ and $v$
# when it first runs: a **plateau** of $8P$ that never goes. The second step repeats the first, higher by exactly that.
#
# Hence a symptom: out of memory in the *second* step, or in the first `step()`, after a forward and backward pass that
# went well. A batch size tried on one backward pass is tried without the optimizer.
#
# ### 3.5 Activations: 32 s b h
#
# What does one block keep for its backward pass? Every operation keeps what its derivative needs. Write $s$ for the
# sequence, $b$ for the batch, $h$ for the width, $a$ for the heads. In tensors of $s\,b\,h$ numbers:
#
# | kept | why | tensors |
# |---|---|---|
# | inputs of the two norms | derivative of a norm | 2 |
# | outputs of the two norms | inputs of matrix products: gradient of their weights | 2 |
# | queries, keys, values | derivative of attention | 3 |
# | attention's output | input of the projection | 1 |
# | MLP before GELU, width $4h$ | derivative of GELU | 4 |
# | MLP after GELU, width $4h$ | input of a matrix product | 4 |
#
# Sixteen tensors of 2 bytes: $32\,s\,b\,h$. Eager attention also keeps the output of the softmax, $a\,s^2 b$ numbers:
# $2\,a\,s^2b$ bytes. Flash attention (2205.14135) keeps only a float32 per row of it. The measurement: what a second
# block adds.

# %%
s, b, h, a = 256, 2, gpt2.width, gpt2.heads
derived = {"flash": 2 * (2 + 2 + 3 + 1 + 4 + 4) * s * b * h}
derived["eager"] = derived["flash"] + 2 * a * s**2 * b
for attention, size in derived.items():
    one, two = (watch(replace(gpt2, layers=n), b, s, 1, torch.bfloat16, attention=attention) for n in (1, 2))
    block = two.after(0, "forward")["activations"] - one.after(0, "forward")["activations"]
    print(f"{attention}: derived {size / (s * b * h):.2f} s b h, measured {block / (s * b * h):.2f}")
    assert 0 <= block / size - 1 < 0.003

# %% [markdown]
# The remainder is statistics: two numbers per row of a norm, one per row of attention.
#
# The formula one finds in papers is $s\,b\,h\,(34+5\,a\,s/h)$ (Korthikanti et al. 2022, equation 2). Its block has
# dropout: a mask of one byte on two outputs, $2\,s\,b\,h$, and on the probabilities a mask and a second copy,
# $3\,a\,s^2 b$. Models pretrained today have none.

# %%
kept = layer_saved(gpt2, b, s, attention="eager", dropout=True)
tensors = sum(size for name, size in kept.items() if "statistics" not in name)
assert tensors == s * b * h * 34 + 5 * a * s**2 * b
print({name: size / (s * b * h) for name, size in kept.items() if "mask" in name or "after" in name})

# %% [markdown]
# ### 3.6 The logits
#
# One tensor belongs to no block: batch $\times$ sequence $\times$ vocabulary. The loss takes it in float32. For the
# vocabulary of Llama 3, which has 128,256 entries, and a single layer of the model, what is largest at the peak?

# %%
llama = find("llama-3-8b")
crowded = watch(replace(llama, layers=1), 4, 8192, steps=1, dtype=torch.bfloat16)
for holding in crowded.live()[:4]:
    print(f"{holding.nbytes / 1e9:6.2f} GB  {holding.dtype!s:15} {holding.shape!s:16} {holding.made_by}")
assert crowded.live()[0].nbytes == 4 * 8192 * 128_256 * 4
print(f"peak {crowded.peak_total / 1e9:.1f} GB, in the {crowded.peak_phase[1]} pass")

# %% [markdown]
# The log-probabilities and two gradients of their size, 50 GB together, where the layer keeps a few. That is why a long
# sequence with a large vocabulary runs out of memory in the loss. The remedy computes the loss in chunks and never
# holds the whole (Wijmans et al. 2024, 2411.09009).
#
# ### 3.7 Compute it again
#
# *Recomputation* (gradient checkpointing) keeps less and runs part of the forward pass a second time. Selective:
# the core of attention, whose $s^2$ is large and cheap to compute. Full: each block keeps its input, $2\,s\,b\,h$, and
# is run again. Llama 3 8B, one sequence of 8,192 tokens:

# %%
ways = {"eager": ("eager", "none"), "eager, core again": ("eager", "selective"), "flash": ("flash", "none"),
        "flash, blocks again": ("flash", "full")}
bars = {}
for name, (attention, recompute) in ways.items():
    made = predict(llama, batch=1, sequence=8192, attention=attention, recompute=recompute)
    lines = {line: size / 1e9 for line, size in (made.details["activations"] | made.details["other"]).items()}
    loss = sum(size for line, size in lines.items() if line.endswith(("log-softmax", "logits")))
    softmax = lines.get("probabilities", 0.0)
    rest = (made.activations + made.other) / 1e9 - loss - softmax
    bars[name] = {"blocks, the rest": rest, "softmax of attention": softmax, "loss": loss}
plots.show(plots.stacked_bars(bars, title="Flash removes the square of the sequence, blocks again most of the rest",
                              ylabel="GB beside the model states", fmt=".1f"),
           alt="Stacked bars for Llama 3 8B at 8,192 tokens, in GB beside the model states. Eager attention is "
               "highest, two thirds of it the softmax of attention. Eager with the core recomputed and flash attention "
               "are equal, less than a third of that. With whole blocks recomputed a quarter of this is left, "
               "nearly all of it the loss.")
assert bars["flash"]["softmax of attention"] == 0 and sum(bars["flash, blocks again"].values()) < 20

# %% [markdown]
# Full recomputation costs one more forward pass: up to a third more arithmetic, since backward takes twice a forward.
# Selective recomputation buys nothing that flash attention does not already give.
#
# ## 4. The whole
#
# Per GPU, with gradients that are kept through the step:
#
# $$\text{weights}+\text{gradients}+\text{master}+\text{state}
# +\max(\text{activations}+\text{working memory},\ \text{temporaries of the step}).$$
#
# `predict` computes this from shapes, in milliseconds. Does it agree with real training steps of GPT-2 124M? First the
# model states, which must agree to the byte:

# %%
rows = [agreement.recipe_row(name) for name in agreement.RECIPES]
rows += [agreement.optimizer_row(key, replace(gpt2, layers=2)) for key in TORCH_KEYS]
print(f"{'bytes':53} {'predicted':>13} {'measured':>13} difference")
for row in rows:
    print(f"{row.what:53} {row.predicted:13,} {row.measured:13,} {row.predicted - row.measured:6}")
    assert row.predicted == row.measured

# %% [markdown]
# Then what is alive between forward and backward, and the peak of a whole step:

# %%
case, llama4 = agreement.Case, agreement.LLAMA
cases = [case(gpt2, 8, 1024, "fp32"), case(gpt2, 8, 1024, "autocast-bf16"), case(gpt2, 8, 1024, "mixed-bf16", "eager"),
         case(gpt2, 8, 1024, "mixed-bf16", "eager", "selective"), case(llama4, 1, 8192, "mixed-bf16"),
         case(llama4, 4, 4096, "mixed-bf16", "flash", "full")]
for row in (row for chosen in cases for row in agreement.step_rows(chosen)):
    print(f"{row.what:78} {row.predicted / 1e9:7.3f} {row.measured / 1e9:7.3f} GB {row.difference:+.2%}")
    assert abs(row.difference) < 0.03

# %% [markdown]
# Within 3%, mostly far closer. Compare the first and the third row: autocast takes the activations from 6.5 to 4.7 GB
# and not to half, since residual stream and log-softmax stay in float32 and its casts of the weights are kept too.
# `course memory` prints the same predictions in a terminal. A model written otherwise keeps otherwise: an RMSNorm is one
# operation here, as in torch on CUDA, while Hugging Face's Llama writes it out and keeps a float32 copy of its input too.
#
# ## 5. Against production
#
# ### 5.1 The three ways of torch's `step()`
#
# On a GPU torch's default is `foreach`: each operation over all parameters at once. Its intermediate results are as
# large as the model. What a step allocates for a moment, in bytes per parameter:

# %%
for how in ("foreach", "fused"):
    model = lm.ByteLM()
    optimizer = torch.optim.AdamW(model.parameters(), **{how: True})
    step = measure(model, optimizer, next_token_loss, 2 * [(tokens, tokens)])
    start, end = (first for number, phase, first in step.phases if number == 1 and phase in ("step", "zero_grad"))
    extra = step.series()["temporaries"][start:end].max(initial=0) / sum(sizes)
    print(f"{how:8} {extra:.2f}")
    assert extra == {"foreach": 4, "fused": 0}[how]

# %% [markdown]
# One more float32 copy, 28 GB for 7 billion parameters, for as long as the step takes. It matters when activations are small.
# `fused=True` is free and removes it.
#
# ### 5.2 What each remedy buys

# %%
remedies = {"AdamW": {}, "Lion": dict(optimizer="lion"), "8-bit AdamW": dict(optimizer="adamw8bit"),
            "Adafactor": dict(optimizer="adafactor"), "ZeRO-1": dict(zero=1, gpus=64),
            "ZeRO-2": dict(zero=2, gpus=64), "ZeRO-3": dict(zero=3, gpus=64)}
after = {name: predict(7e9, **remedy) for name, remedy in remedies.items()}
for name, made in after.items():
    each = made.optimizer / 7e9, made.total / 7e9
    print(f"{name:11} optimizer {each[0]:7.4f}, all {each[1]:7.4f} bytes a parameter, {made.total / 1e9:9.5f} GB")
parts = ("parameters", "gradients", "optimizer")
bars = {name: {part: getattr(made, part) / 1e9 for part in parts} for name, made in after.items()}
plots.show(plots.stacked_bars(bars, title="Other states save tens of GB, sharding over 64 GPUs nearly all",
                              ylabel="GB per GPU, 7 billion parameters", hlines={"80 GB card": 80}, fmt=".1f",
                              size=(8, 3.9)),
           alt="Stacked bars of parameters, gradients and optimizer in GB per GPU for 7 billion parameters in mixed "
               "precision. AdamW 112, Lion 84, 8-bit AdamW 70.2, Adafactor 56.0; on 64 GPUs ZeRO-1 29.3, ZeRO-2 15.5 "
               "and ZeRO-3 1.8. Only AdamW and Lion are above the line of an 80 GB card.")
assert [after[f"ZeRO-{n}"].total for n in (1, 2, 3)] == [29_312_500_000, 15_531_250_000, 1_750_000_000]

# %% [markdown]
# **8-bit AdamW: 10P in all, not 8P.** It stores $m$ and $v$ as 8-bit codes with a float32 per 256 of them (Dettmers et
# al. 2022): 8P become 2P and a little. The master copy stays: 12P become 6P. **Adafactor** keeps means over rows and
# columns instead of $v$, and here no $m$. **ZeRO** shards over $N$ data-parallel ranks first the optimizer
# ($4P+12P/N$), then gradients ($2P+14P/N$), then weights ($16P/N$). It changes where numbers are kept, not the numbers;
# notebook 15 builds it. Recomputation changes none of these bars, and none of them changes the activations.
#
# ### 5.3 On the device at hand
#
# A real step, beside the prediction. On a GPU the judge is `torch.cuda.max_memory_allocated`, which also sees what
# kernels take for a moment and rounds each tensor up to 512 bytes:

# %% tags=["nbval-ignore-output"]
device = pick_device()
batch, length, shape = (4, 1024, gpt2) if device.type == "cuda" else (4, 256, replace(gpt2, layers=2, vocab=4096))
model = build(shape).to(device)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
data = torch.zeros(batch, length, dtype=torch.long, device=device)
live = measure(model, optimizer, next_token_loss, 2 * [(data, data)], keep_gradients=True)
peak, expected = live.cuda_peak or live.peak_total, predict(shape, precision="fp32", batch=batch, sequence=length).total
print(f"{device}: predicted {expected / 1e9:.3f} GB, measured {peak / 1e9:.3f} GB, {expected / peak - 1:+.2%}")
assert abs(expected / peak - 1) < 0.03

# %% [markdown]
# What `nvidia-smi` shows is more: the CUDA context (we allow half a GB) and what the allocator has reserved.
#
# ### 5.4 Real models on real cards
#
# The fewest GPUs that hold the model states of mixed-precision AdamW, sharded evenly (ZeRO-3), with nothing left for
# activations:

# %%
cards = ("t4", "rtx-4090", "a100-80", "h200", "mi300x")
print(f"{'':16} {'parameters':>11} {'16P':>9}" + "".join(f"{card:>10}" for card in cards))
for key, published in MODELS.items():
    count = published.architecture.parameters
    need = [math.ceil(16 * count / (CARDS[card] - CUDA_CONTEXT)) for card in cards]
    print(f"{key:16} {count / 1e9:9.2f} B {16 * count / 1e9:6,.0f} GB" + "".join(f"{gpus:10,}" for gpus in need))

# %% [markdown]
# A mixture of experts pays for all its experts, though few of them work on a token.
#
# Llama 3.1 405B was trained on 16,384 H100s: tensor parallelism 8, pipeline 16, so 128 data-parallel ranks, that
# shard optimizer state and gradients, float32 gradients, 8,192 tokens (Grattafiori et al. 2024, section 3.3).
# Per GPU:

# %%
cluster = dict(gpus=16_384, tensor=8, pipeline=16, zero=2, grads="fp32", sequence=8192)
for recompute in ("none", "full"):
    made = predict(find("llama-3-405b"), recompute=recompute, **cluster)
    print(f"recomputation {recompute:5}", {part: round(size / 1e9, 1) for part, size in made.to_dict().items()})
assert made.total < CARDS["h100"]

# %% [markdown]
# The states are small; the activations of sixteen micro-batches in the pipeline are not. This is derived, not measured:
# without recomputation our count exceeds the card, while the paper reports training without it, after freeing tensors
# early that this count keeps.
#
# ## 6. Turn the knobs
#
# Predict first: for Llama 3 8B on one H100, which single control, model and card left as they are, brings the bar below
# the line? Then take 64 GPUs with ZeRO-3, and say what the bar still consists of.

# %%
from course_lib import widgets

widgets.explore_memory(model="llama-3-8b")
everything = predict(llama, zero=3, gpus=64)
assert 0.9 < (everything.activations + everything.other) / everything.total

# %% [markdown]
# None alone. With master weights the model states of AdamW exceed the card by themselves; bf16 alone, or an optimizer
# with less state, leaves too little for activations. On 64 GPUs it fits, and nine tenths of the bar are activations and
# the loss, which no stage of ZeRO shards.
#
# ## 7. How it breaks
#
# **Losses in a list.** "It keeps every graph alive." Measure before you believe it. Bytes gained per step:

# %%
losses, tiny = [], replace(gpt2, layers=2, vocab=256)


def collect(model, batch):
    losses.append(next_token_loss(model, batch))
    return losses[-1]


def evaluate(model, batch):
    losses.append(next_token_loss(model, batch))      # no backward pass will ever free this one
    return next_token_loss(model, batch)


def evaluate_without_graph(model, batch):
    with torch.no_grad():
        losses.append(next_token_loss(model, batch))
    return next_token_loss(model, batch)


for loss_fn in (next_token_loss, collect, evaluate, evaluate_without_graph):
    run = watch(tiny, 8, 64, steps=4, loss_fn=loss_fn)
    ends = [sum(run.after(step, "zero_grad").values()) for step in range(4)]
    print(f"{loss_fn.__name__:22} {ends[3] - ends[2]:12,} bytes a step, peak {run.peak_total / 1e6:6.1f} MB")

# %% [markdown]
# A backward pass frees what the graph has saved; a loss kept after it costs 4 bytes of tensors (and its nodes, in the
# host's memory). A loss kept *without* one, as in an evaluation without `no_grad`, costs all its activations each
# time: in the timeline a staircase, in the log an out-of-memory error some evaluations later. Even with nothing
# collected, such an evaluation holds the activations of a forward pass, as training does.
#
# **`zero_grad(set_to_none=False)`** (the default before torch 2.0):

# %%
for keep in (False, True):
    run = watch(gpt2, 1, 1024, keep=keep)
    left = run.after(0, "zero_grad")["gradients"]
    print(f"gradients kept: {keep!s:5}  between steps {left / 1e9:.2f} GB, peak {run.peak_total / 1e9:.2f} GB")
assert left == 4 * gpt2.parameters

# %% [markdown]
# The peak rises by all of them, because it lies where backward begins, when there would be none yet. (Gradient
# accumulation has to keep them.)
#
# **A checkpoint loaded twice.** `torch.load` onto the GPU makes a second copy of what the model already holds, and it
# lives as long as the name it is bound to:

# %%
def bytes_of(*things):
    kept = {t.untyped_storage() for t in tree_leaves(things) if torch.is_tensor(t)}
    return sum({storage.data_ptr(): storage.nbytes() for storage in kept}.values())


(model, optimizer), (fresh, resumed) = ((m, adamw(m.parameters())) for m in (lm.ByteLM(), lm.ByteLM()))
next_token_loss(model, (tokens, tokens)).backward()
optimizer.step()
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file := io.BytesIO())
file.seek(0)
checkpoint = torch.load(file)
fresh.load_state_dict(checkpoint["model"])
resumed.load_state_dict(checkpoint["optimizer"])
for name, held in {"in use": (), "with the checkpoint": checkpoint}.items():
    found = bytes_of(list(fresh.parameters()), resumed.state_dict(), held)
    print(f"{name:20} {found / sum(sizes):.1f} bytes per parameter")

# %% [markdown]
# The weights are there twice: 16 bytes instead of 12. (The state is not: `load_state_dict` of an optimizer takes the
# tensors over, that of a model copies.) Load with `map_location="cpu"`, or `mmap=True`, and `del checkpoint`.
#
# | mistake | in a log or timeline |
# |---|---|
# | evaluation without `no_grad`, losses collected | a staircase; out of memory some evaluations later |
# | `set_to_none=False` | between steps the floor is higher by the gradients |
# | checkpoint bound to a name | a resumed run needs more than the run that wrote it |
# | optimizer over bf16 weights | the plateau is 4P instead of 12P; small updates are lost (notebook 11) |
# | master copy forgotten in the estimate | 84 GB planned; out of memory where the optimizer is made or first steps |
# | batch size tried on one backward pass | out of memory in the second step |
# | GiB read as GB | "112" that is 104.3; a plan 7% off |
#
# ## 8. Your turn
#
# In `exercises/10_memory_accounting.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `model_state_gb` | weights, gradients and optimizer for any recipe |
# | `zero_bytes` | what one GPU holds under each stage |
# | `largest_model` | a number: what fits eight cards |
# | `activation_bytes` | what a block keeps, eager and flash |
# | `eight_bit_bytes` | a number: 8-bit state with its constants |
# | `logits_gb` | a number: the logits alone |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("memory-seven-answers")
questions.show("memory-mixed-halves")

# %% tags=["evidence-memory-seven-answers", "evidence-memory-mixed-halves"]
for kind in ("fp32", "both"):
    setups[f"{kind} gradients"] = (lambda p, kind=kind: MasterWeights(p, adamw, gradients=kind), torch.bfloat16)
count = {name: sum(states(*setup)[0].values()) // sum(sizes) for name, setup in setups.items()}
assert list(count.values()) == [16, 16, 16, 8, 18, 20]
print("bytes per parameter:", count)

# %%
questions.show("memory-first-step")
questions.show("memory-cross-entropy")

# %% tags=["evidence-memory-first-step", "evidence-memory-cross-entropy"]
small, large = (watch(tiny, batch, 64) for batch in (4, 8))
assert small.after(0, "step") == large.after(0, "step")
first, second = (sum(large.after(step, "forward").values()) for step in (0, 1))
loss = sum(holding.nbytes for holding in crowded.live()[:3]) / 4      # section 3.6 watched four sequences
assert second - first == large.after(0, "step")["optimizer"] and round(loss / 1e9, 1) == 12.6
print(f"whatever the batch, step() adds {(second - first) / 1e6:.1f} MB for good; the loss holds {loss / 1e9:.1f} GB")

# %%
questions.show("memory-largest-batch")
questions.show("memory-405b")

# %% tags=["evidence-memory-largest-batch", "evidence-memory-405b"]
xl, huge = find("gpt2-1.5b"), find("llama-3-405b")
peaks = {batch: predict(xl, batch=batch, precision="fp32", attention="eager").total / 1e9 for batch in (5, 6)}
shard, everyone = predict(huge.parameters, zero=3, gpus=16_384).total, 16_384 * 8192
assert peaks[5] < 80 < peaks[6] and round(shard / 1e6) == 396
print(f"GPT-2 XL: {peaks[5]:.1f} or {peaks[6]:.1f} GB; 405B: {shard / 1e6:.0f} MB a GPU, {everyone / 1e6:.0f}M tokens")

# %% [markdown]
# ## 10. Sources
#
# - Rajbhandari et al. 2020, *ZeRO* (1910.02054): 16 bytes and $K=12$, section 3.1; the stages, section 5.
# - Micikevicius et al. 2018, *Mixed Precision Training* (1710.03740): master weights, section 3.1.
# - Korthikanti et al. 2022 (2205.05198): activations, equation 2; recomputation, section 5. Chen et al. 2016
#   (1604.06174) for checkpointing in general; Dao et al. 2022, FlashAttention (2205.14135).
# - Dettmers et al. 2022, *8-bit Optimizers* (2110.02861). Shazeer & Stern 2018, *Adafactor* (1804.04235). Chen et al.
#   2023, Lion (2302.06675).
# - DeepSeek-AI 2024, DeepSeek-V3 (2412.19437): formats, section 3.3. Grattafiori et al. 2024, Llama 3 (2407.21783).
# - Wijmans et al. 2024, a cross-entropy that never holds all logits (2411.09009).
# - What torch says of a card's memory: GitHub, hpcaitech/Open-Sora issue 697 (T4), TianheWu/CoSeR issue 10 and
#   levihsu/OOTDiffusion issue 235 (A100).
# - Code: Megatron-LM `theoretical_memory_usage.py` (18, or 6 + 12/N with its distributed optimizer); DeepSpeed pull
#   request 5099, where its own estimate went from 4 to 2 bytes for gradients.
#
# Where they disagree: whether gradients count 2, 4 or 6 bytes is a question of the implementation and not of
# principle. "12 bytes" for Adam is ZeRO's K, and nothing else should be compared with it.
