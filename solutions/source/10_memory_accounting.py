# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: memory accounting
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("model_state_gb")` gives one hint at a time.
# From a terminal, `course check` runs all your answers. 1 GB is 1e9 bytes and 1 GiB is $2^{30}$ bytes throughout.

# %% [markdown] tags=["solution-only"]
# # Solutions: memory accounting
#
# The answers to `exercises/10_memory_accounting.ipynb`, each with its reasons. Try the exercise first: what you
# have worked out yourself is there in the interview.

# %%
from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress
from course_lib.memory.models import find

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. Bytes of the model states
#
# *Level 2, 15 minutes, id `model_state_gb`.* Return how many GB the weights, the gradients and everything that the optimizer
# keeps take together. `parameters` is a multiple of 256. `recipe` is one of
#
# - `"fp32"`: everything in float32.
# - `"mixed"`: 16-bit weights and gradients; the optimizer keeps a float32 master copy of the weights and float32 state.
# - `"mixed, fp32 gradients"`: the same, but the gradients are float32. There are no 16-bit ones beside them.
# - `"bf16"`: everything in bf16, the state too, and no master copy.
#
# `optimizer` is one of `"sgd"` (plain), `"momentum"` (SGD with it), `"adamw"`, `"lion"` and `"adamw8bit"`. The last is AdamW with one byte for
# each element of its state and, in every recipe, a float32 for each block of 256 elements of a state; weights, gradients and
# master copy are as the recipe says. Some of the sizes that the check calls your function with are drawn anew each time.


# %% tags=["exercise:model_state_gb"]
def model_state_gb(parameters, recipe, optimizer):
    ### BEGIN SOLUTION
    weights, gradients, master, element = {  # bytes per parameter; of the last, per element of a state
        "fp32": (4, 4, 0, 4),
        "mixed": (2, 2, 4, 4),
        "mixed, fp32 gradients": (2, 4, 4, 4),
        "bf16": (2, 2, 0, 2),
    }[recipe]
    if optimizer == "adamw8bit":
        state = 2 * (1 + 4 / 256)
    else:
        state = {"sgd": 0, "momentum": 1, "adamw": 2, "lion": 1}[optimizer] * element
    return parameters * (weights + gradients + master + state) / 1e9
    ### END SOLUTION


# %% tags=["check:model_state_gb"]
check("model_state_gb", model_state_gb)

# %% [markdown] tags=["solution-only"]
# Two answers are worth knowing by heart: with AdamW both `fp32` and `mixed` take 16 bytes per parameter. Mixed precision does not
# make the model states smaller: what 16-bit weights and gradients save, the master copy takes. It makes the *activations*
# smaller, and the arithmetic faster.

# %% tags=["solution-only"]
recipes, optimizers = ("fp32", "mixed", "mixed, fp32 gradients", "bf16"), ("sgd", "momentum", "lion", "adamw", "adamw8bit")
print(f"{'GB for 7e9 parameters':24}" + "".join(f"{name:>11}" for name in optimizers))
for recipe in recipes:
    print(f"{recipe:24}" + "".join(f"{model_state_gb(7e9, recipe, name):11.2f}" for name in optimizers))

# %% [markdown] tags=["solution-only"]
# The other answers that one hears for 7B and AdamW leave something out, or count other gradients:

# %% tags=["solution-only"]
weights, gradients, master, state = 2, 2, 4, 8
heard = {
    "two moments alone": state,
    "weights and moments": weights + state,
    "no master copy": weights + gradients + state,
    "all of it": weights + gradients + master + state,
    "float32 gradients": weights + 4 + master + state,
    "8-bit states": weights + gradients + master + 2,
}
for what, size in heard.items():
    print(f"{what:20} {size:2} bytes per parameter, {7 * size:3} GB for 7e9")

# %% [markdown] tags=["solution-only"]
# 8-bit states make 10 bytes of the 16 (and 0.03 for the constants), not 8: they shrink the 8 bytes of m and v to 2, and nothing else.

# %% [markdown]
# ## 2. What ZeRO divides
#
# *Level 1, 10 minutes, id `zero_bytes`.* Mixed precision and AdamW: per parameter 2 bytes of weights, 2 of gradients and 12 that the
# optimizer keeps. Return the bytes of model states that **one** GPU holds under ZeRO stage `stage`, from 0 (plain data parallelism)
# to 3. `gpus` divides `parameters`. What a GPU gathers for a moment and lets go again does not count.


# %% tags=["exercise:zero_bytes"]
def zero_bytes(parameters, gpus, stage):
    ### BEGIN SOLUTION
    optimizer = 12 * parameters / (gpus if stage >= 1 else 1)
    gradients = 2 * parameters / (gpus if stage >= 2 else 1)
    weights = 2 * parameters / (gpus if stage >= 3 else 1)
    return weights + gradients + optimizer
    ### END SOLUTION


# %% tags=["check:zero_bytes"]
check("zero_bytes", zero_bytes)

# %% [markdown] tags=["solution-only"]
# ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) starts with the largest part, which is also needed least often: master copy, m and v
# are read once per step, and only by whoever updates those parameters. Gradients come next, weights last: those are needed
# in every forward and backward pass, so stage 3 pays for its memory with communication.

# %% tags=["solution-only"]
for gpus in (1, 8, 64):
    print(f"{gpus:2} GPUs:", "  ".join(f"stage {stage} {zero_bytes(7e9, gpus, stage) / 1e9:8.4f} GB" for stage in range(4)))

# %% [markdown] tags=["solution-only"]
# Stage 1 cannot go below 4 bytes per parameter, and stage 2 not below 2, however many GPUs there are.

# %% [markdown]
# ## 3. The largest model
#
# *Level 1, 5 minutes, id `largest_model`.* 8 GPUs with 80 GB each (80e9 bytes), mixed precision, AdamW, ZeRO-2. How many parameters
# may a model have whose states just fit? Count model states alone: no activations, nothing else.

# %% tags=["exercise:largest_model"]
parameters = ...
### BEGIN SOLUTION
parameters = 80e9 / (2 + (2 + 12) / 8)
### END SOLUTION

# %% tags=["check:largest_model"]
check("largest_model", parameters)

# %% [markdown] tags=["solution-only"]
# On each GPU a parameter takes 2 bytes for itself and an eighth of 14. The function of exercise 2 gives the bytes of one parameter,
# and with them the other stages:

# %% tags=["solution-only"]
for stage in range(4):
    each = zero_bytes(1, 8, stage)
    print(f"stage {stage}: {each:5.2f} bytes per parameter and GPU, {80 / each:5.2f} billion parameters")

# %% [markdown] tags=["solution-only"]
# Activations, the logits above all, want their part of the card as well: see exercises 4 and 6.

# %% [markdown]
# ## 4. What a block keeps for backward
#
# *Level 2, 15 minutes, id `activation_bytes`.* One block of GPT-2 runs forward in 16 bits, without dropout. Until backward it keeps
#
# - the input and the output of each of its two norms,
# - Q, K and V,
# - the attention's output, all heads side by side: the input of the projection,
# - the MLP's hidden layer, four times as wide as the block, before and after GELU,
# - and what attention needs besides: eager attention keeps the output of the softmax, all (sequence, sequence) of it for each head,
#   in 16 bits; FlashAttention keeps none of that, only the logsumexp of each row of scores, in float32.
#
# Return the bytes. `heads` heads share `width`; `flash` is a bool. Leave out the statistics of the norms, the weights and the causal mask.


# %% tags=["exercise:activation_bytes"]
def activation_bytes(batch, sequence, width, heads, flash):
    ### BEGIN SOLUTION
    norms, qkv, attended, hidden = 4, 3, 1, 2 * 4  # in tensors of (batch, sequence, width)
    rows = 2 * (norms + qkv + attended + hidden) * batch * sequence * width
    if flash:
        return rows + 4 * batch * heads * sequence
    return rows + 2 * batch * heads * sequence**2
    ### END SOLUTION


# %% tags=["check:activation_bytes"]
check("activation_bytes", activation_bytes)

# %% [markdown] tags=["solution-only"]
# $32\,s\,b\,h$, and $2\,a\,s^2 b$ or $4\,a\,s\,b$. Korthikanti et al. (2022, arXiv 2205.05198) have $s\,b\,h\,(34 + 5\,a\,s/h)$: their block has
# dropout, which adds a one-byte mask in three places ($s\,b\,h$ twice, $a\,s^2 b$ once) and one more 16-bit matrix of scores. The output
# of a residual addition is in the list already: it is the input of the next norm. For GPT-2 124M, 12 blocks, batch 8:

# %% tags=["solution-only"]
print(f"weights in 16 bits {2 * find('gpt2-124m').parameters / 1e9:.2f} GB")
for sequence in (1024, 4096, 16384):
    eager, flash = (12 * activation_bytes(8, sequence, 768, 12, flash) / 1e9 for flash in (False, True))
    print(f"sequence {sequence:5}: eager {eager:7.2f} GB, flash {flash:6.2f} GB")

# %% [markdown] tags=["solution-only"]
# Activations grow with the batch and the sequence, and soon outgrow the weights; in eager attention they grow with the square
# of the sequence. (GPT-2's own context ends at 1024; the longer ones are arithmetic.)

# %% [markdown]
# ## 5. The state of an 8-bit AdamW
#
# *Level 1, 5 minutes, id `eight_bit_bytes`.* A weight matrix of 1024 x 4096. How many bytes of state does an 8-bit AdamW keep for it,
# with blocks of 256 elements and a float32 for each? Count m and v and their constants; no master copy, no table of codes.

# %% tags=["exercise:eight_bit_bytes"]
state_bytes = ...
### BEGIN SOLUTION
elements = 1024 * 4096
state_bytes = 2 * (elements + 4 * elements // 256)
### END SOLUTION

# %% tags=["check:eight_bit_bytes"]
check("eight_bit_bytes", state_bytes)

# %% [markdown] tags=["solution-only"]
# 8,519,680 bytes, where float32 takes 33,554,432. The constants add 4/256, or 1.6%, to each state: the price of blocks that small,
# which keep one outlier from spoiling more than 255 neighbours (Dettmers et al. 2022, arXiv 2110.02861, who had blocks of 2048).

# %% tags=["solution-only"]
print(f"{state_bytes:,} bytes, {state_bytes / elements:.5f} per parameter; with blocks of 2048 {2 * (1 + 4 / 2048):.5f}")

# %% [markdown]
# ## 6. The logits alone
#
# *Level 1, 5 minutes, id `logits_gb`.* Llama 3 has a vocabulary of 128,256. A micro-batch of 4 sequences of 8192 tokens; the loss takes the
# logits in float32. How many GB do these logits take, by themselves?

# %% tags=["exercise:logits_gb"]
logits_gb = ...
### BEGIN SOLUTION
logits_gb = 4 * 8192 * 128_256 * 4 / 1e9
### END SOLUTION

# %% tags=["check:logits_gb"]
check("logits_gb", logits_gb)

# %% [markdown] tags=["solution-only"]
# 16.81 GB: more than the 16-bit weights of Llama 3 8B. The 16-bit logits that they are made from and the gradients of both come on top
# of it. So a long sequence with a large vocabulary runs out of memory in the loss, not in the model; computing the loss in chunks of
# the sequence is the remedy.

# %% tags=["solution-only"]
weights = 2 * find("llama-3-8b").parameters / 1e9
print(f"logits {logits_gb:.2f} GB, weights in 16 bits {weights:.2f} GB")
assert logits_gb > weights
