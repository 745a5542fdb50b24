# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here
#
# ## 1. The question
#
# > *Why does everyone train large models with Adam, and what does it cost?*
#
# This course is built around that one interview question. It sounds easy. The usual answer, "Adam adapts the learning
# rate, so it converges faster", invites follow-ups that it cannot survive: adapts to what? Faster than which SGD, tuned
# how, at which batch size? How many bytes does it take for 7 billion parameters, and who gives them back?
#
# By the end you can derive the algorithm, write it without looking, name a bug from its symptom, count its memory, and
# say which explanations are proved, which are plausible and which are folklore. You need Python, some PyTorch, and to
# know what a gradient is.
#
# Run the cells from top to bottom with Shift+Enter. In the next three minutes you train a language model three times.

# %%
import numpy as np
import torch

from course_lib import live, plots
from course_lib.checks import check, hint
from course_lib.kernels.bench import describe_device
from course_lib.optim import REGISTRY, AdamW, SGD
from course_lib.problems import lm, text
from course_lib.train import pick_device, train

# %% [markdown]
# Nothing here needs a GPU; if there is one, it is used. This is what you are working on:

# %% tags=["nbval-ignore-output"]
print(describe_device())
assert torch.ones(4, device=pick_device()).sum().item() == 4

# %% [markdown]
# ## 2. A race
#
# The text is already on your disk. Every Python interpreter carries its own language reference, which is what
# `help("while")` prints; together that is almost half a megabyte. The last tenth is held out, to measure on:

# %%
train_text, held_out = text.split(text.corpus(), held_out=0.1)
start = text.corpus().index(b'The "while" statement is used')
print(text.corpus()[start : start + 66].decode())

# %% [markdown]
# The model is a small transformer of the GPT-2 kind that reads bytes and predicts the next one:

# %%
model = lm.ByteLM(lm.LMConfig(layers=2, width=64, heads=4, context=64), seed=0)
count = sum(param.numel() for param in model.parameters())
inputs, targets = next(text.batches(train_text, batch=48, length=64, steps=1, seed=1))
print(f"{count:,} parameters; inputs {tuple(inputs.shape)} -> logits {tuple(model(inputs).shape)}")

# %% [markdown]
# Untrained, it has no opinion: its loss is that of a uniform guess among 256 values, $\ln 256$ nats:

# %%
untrained = lm.next_byte_loss(model, (inputs, targets)).item()
uniform = np.log(256)
print(f"a uniform guess loses {uniform:.3f} nats; the untrained model is within 0.1 of it: {abs(untrained - uniform) < 0.1}")
assert abs(untrained - uniform) < 0.1

# %% [markdown]
# Three optimizers enter. A race is only worth watching if each runner is at its best, so each was tried at four learning
# rates, a factor of two apart. These are the held-out losses of those trials, recorded once with the settings below. If
# the best rate lay at the end of its grid, the grid would be too short and the comparison unfair:

# %%
TRIALS = {
    "SGD": {0.5: 2.500, 1.0: 2.496, 2.0: 2.667, 4.0: 3.269},
    "SGD with momentum": {0.1: 2.518, 0.2: 2.465, 0.4: 2.428, 0.8: 2.534},
    "AdamW": {0.002: 2.379, 0.004: 2.273, 0.008: 2.291, 0.016: 2.532},
}
BEST = {name: min(losses, key=losses.get) for name, losses in TRIALS.items()}
print(BEST)
assert all(lr in list(TRIALS[name])[1:-1] for name, lr in BEST.items())

# %% [markdown]
# All else is shared: initial weights, batches, warmup and linear decay of the learning rate, and clipping of the
# gradient to norm 1. Clipping is in SGD's favour here: without it, SGD with momentum came out worse at its best rate.

# %%
SETTINGS = dict(steps=120, batch=48, warmup=12, clip=1.0)
MAKE = {
    "SGD": lambda params: SGD(params, lr=BEST["SGD"]),
    "SGD with momentum": lambda params: SGD(params, lr=BEST["SGD with momentum"], momentum=0.9),
    "AdamW": lambda params: AdamW(params, lr=BEST["AdamW"], betas=(0.9, 0.95), weight_decay=0.1),
}


def schedule(step):
    """Multiplier of the learning rate: up in a straight line, then down in a straight line."""
    up, down = (step + 1) / SETTINGS["warmup"], (SETTINGS["steps"] - step) / (SETTINGS["steps"] - SETTINGS["warmup"])
    return min(1.0, up, down)

# %% [markdown]
# `train` is the one training loop of this course, short enough to read in `course_lib/train.py`. `race` draws while it
# runs.

# %%
race = live.LiveLoss(
    "Training loss in nats against the step, for the optimizers trained so far. All start at the loss of a uniform guess. "
    "During warmup AdamW falls more slowly than SGD; soon after it is the lowest, and stays so to the last step.",
    title="One model, one text, three optimizers", xlabel="step", ylabel="training loss (nats per byte)",
    ylim=(2.2, 5.8), hlines={"uniform guess": uniform},
)


def run(name):
    """Train a fresh model under the optimizer ``name``, drawing its loss; return model, optimizer and history."""
    model = lm.ByteLM(lm.LMConfig(), seed=0).to(pick_device())
    optimizer = MAKE[name](model.parameters())
    data = text.batches(train_text, SETTINGS["batch"], 64, SETTINGS["steps"], seed=1)
    with race.follow(name) as callback:
        history = train(model, optimizer, data, loss_fn=lm.next_byte_loss, schedule=schedule,
                        clip=SETTINGS["clip"], callback=callback, progress=False)
    return model, optimizer, history

# %% [markdown]
# SGD with momentum goes first. **Predict before you run:** where will its loss be after 120 steps?

# %% tags=["nbval-ignore-output"]
runs = {"SGD with momentum": run("SGD with momentum")}
assert runs["SGD with momentum"][2].loss[-10:].mean() < 3.3

# %% [markdown]
# Now AdamW, on the same batches in the same order:

# %% tags=["nbval-ignore-output"]
runs["AdamW"] = run("AdamW")
assert runs["AdamW"][2].loss[-10:].mean() < runs["SGD with momentum"][2].loss[-10:].mean() - 0.05

# %% [markdown]
# And SGD without momentum, which remembers nothing between steps:

# %% tags=["nbval-ignore-output"]
runs["SGD"] = run("SGD")
assert runs["SGD"][2].loss[-10:].mean() > runs["AdamW"][2].loss[-10:].mean() + 0.1

# %% [markdown]
# ## 3. What the models write
#
# A loss is a number. Let two of the models go on from the same words, with the same random draws:

# %% tags=["nbval-ignore-output"]
for name in ("SGD with momentum", "AdamW"):
    written = lm.generate(runs[name][0], b"The statement ", 180, temperature=0.8, seed=3)
    print(f"--- {name}\n{written.decode(errors='replace')}\n")
    assert written.startswith(b"The statement ") and len(written) == 14 + 180

# %% [markdown]
# Neither writes English after 120 steps. Compare the lengths of words, the endings and the whole short words: which of the
# two has more that you recognise?
#
# ## 4. Where the difference is
#
# A lower mean can hide anything, so we take the loss apart. Byte values differ enormously in how often they
# occur, as words do in any language:

# %%
counts = np.sort(np.bincount(np.frombuffer(train_text, dtype=np.uint8), minlength=256))[::-1]
counts = counts[counts > 0]
assert counts[:10].sum() > 0.5 * counts.sum() and counts[40:].sum() < 0.1 * counts.sum()
plots.show(
    plots.lines({"byte values": (np.arange(1, len(counts) + 1), counts)}, logy=True,
                title="Ten byte values make up more than half of the text",
                xlabel="rank of the byte value", ylabel="occurrences in the training text"),
    alt="Occurrences of each byte value against its rank, on a logarithmic vertical axis. The curve falls by more than four "
    "powers of ten: a few values occur tens of thousands of times, dozens of others a few hundred times or less.",
)

# %% [markdown]
# Three groups, then: the few *frequent* values that make up half of the text, the many *rare* ones that share
# at most its last twentieth, and the *middle*. The letter e is frequent, Q is rare:

# %%
groups = text.frequency_groups(train_text, frequent=0.5, rare=0.05)
print("space, e and t are frequent:", {*b" et"} <= {*groups["frequent"]})
print("Q, Z and @ are rare:        ", {*b"QZ@"} <= {*groups["rare"]})
assert len(groups["rare"]) > 5 * len(groups["frequent"])

# %% [markdown]
# On the held-out text, each model's mean loss over the places where the next byte belongs to a group. **Predict:** in which
# group is AdamW's lead the largest?

# %%
by_group = {}
for name, (model, _, _) in runs.items():
    total, places = lm.loss_by_byte(model, text.pages(held_out, batch=64, length=64))
    by_group[name] = lm.loss_by_group(total, places, groups) | {"all": total.sum() / places.sum()}
lead = {group: by_group["SGD with momentum"][group] - by_group["AdamW"][group] for group in [*groups, "all"]}

# %%
plots.show(
    plots.bars({group: {name: by_group[name][group] for name in MAKE} for group in groups}, fmt=".2f",
               title="AdamW's lead is largest on rare bytes", ylabel="held-out loss (nats per byte)",
               xlabel="bytes to be predicted, by their frequency in the training text"),
    alt="Held-out loss of SGD, SGD with momentum and AdamW for frequent, middle and rare bytes. On frequent bytes the three "
    "bars differ little. On rare bytes all are about three times as high, and AdamW's is about one nat below the others.",
)

# %%
print("AdamW leads SGD with momentum on the whole text:            ", lead["all"] > 0.05)
print("its lead on rare bytes is more than 0.4 nats:               ", lead["rare"] > 0.4)
print("and more than three times its lead on frequent bytes:       ", lead["rare"] > 3 * lead["frequent"])
print("SGD with momentum on rare bytes is worse than a blind guess:", by_group["SGD with momentum"]["rare"] > uniform)
assert lead["all"] > 0.05 and lead["rare"] > 0.4 and lead["rare"] > 3 * lead["frequent"]
assert by_group["SGD with momentum"]["rare"] > uniform

# %% [markdown]
# Worse than blind: SGD has learned that rare bytes are rare, but not yet when they come. How can an optimizer be good at
# the common and poor at the rare? One step shows what is at stake. The head has a row of weights for each byte value; we
# ask how far the first step moves the rows of frequent and of rare bytes:

# %%
def rows_moved(optimizer_class, **hyper):
    """Mean distance by which one step from the initial weights moves the head's rows, by group."""
    model = lm.ByteLM(seed=0)
    before = model.head.weight.detach().clone()
    lm.next_byte_loss(model, (inputs, targets)).backward()
    optimizer_class(model.parameters(), **hyper).step()
    moved = (model.head.weight.detach() - before).norm(dim=1)
    return {name: moved[values].mean().item() for name, values in groups.items()}

# %%
sgd_rows, adamw_rows = rows_moved(SGD, lr=1.0), rows_moved(AdamW, lr=0.004, weight_decay=0.0)
print("SGD moves the rows of frequent bytes over 10 times as far:", sgd_rows["frequent"] > 10 * sgd_rows["rare"])
print("AdamW moves both equally far, within 5%:                  ", abs(adamw_rows["frequent"] / adamw_rows["rare"] - 1) < 0.05)
assert sgd_rows["frequent"] > 10 * sgd_rows["rare"] and abs(adamw_rows["frequent"] / adamw_rows["rare"] - 1) < 0.05

# %% [markdown]
# SGD moves a weight in proportion to its gradient, and what is rarely seen has a small mean gradient. Adam divides by the
# gradient's usual size, so at first every weight moves by about the learning rate. That is the heart of one explanation
# (Kunstner et al. 2024). Notebook 04 derives why the first step is exactly so.
#
# ## 5. What this picture does not show
#
# An interviewer who knows the subject will push on each of these. Better that you do it first.
#
# - **It is small and short.** One model far below a million parameters, 120 steps, one seed. It shows a mechanism, not
#   a ranking. Two further seeds, for weights and batches together, passed the same assertions for SGD with momentum.
# - **The grids are coarse.** Four rates each, chosen by the held-out loss itself. Schedule, clipping and betas were not tuned
#   for each optimizer apart. A claim "A beats B" is a claim about the tuning of both.
# - **The lead in the mean is modest**, because rare bytes are few. And it depends on the batch: towards full batches the
#   gap between SGD and Adam grows rather than shrinks, so noise is not its main cause (Kunstner et al. 2023); with small
#   batches, well-tuned SGD with momentum can come close to Adam (Srećković et al. 2025).
# - **A gap on rare bytes is no proof that rarity is the cause.** Other explanations have evidence too: curvature
#   that differs between blocks of a transformer (Zhang et al. 2024), heavy-tailed noise (Zhang et al. 2020). Notebook 06 will
#   switch them on and off one at a time.
# - **The rates cannot be compared.** SGD's best rate is hundreds of times AdamW's because they have different units:
#   SGD's multiplies a gradient, Adam's is about the length of a step.
#
# **Turn the knobs.** Change one number in `SETTINGS` (`batch=8`, `steps=300`, `clip=None`) or a rate in `BEST`, run from
# there on, and see which printed `True` turns into an error. Predict first.
#
# ## 6. What it costs
#
# AdamW's lead is not free. Look into what each optimizer remembered at the end of its run:

# %%
for name, (_, optimizer, _) in runs.items():
    held = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value))
    print(f"{name:<18} {held:>9,} bytes of state, {held // count} per parameter")
    assert held == {"SGD": 0, "SGD with momentum": 4, "AdamW": 8}[name] * count

# %% [markdown]
# The registry of the course knows this for every optimizer; scaled up to 7 billion parameters:

# %%
for key in ("sgd", "momentum", "adamw"):
    gigabytes = REGISTRY[key].state_bytes_per_param * 7e9 / 1e9
    print(f"{REGISTRY[key].name:<18} {gigabytes:>4.0f} GB of optimizer state for 7 billion float32 parameters")
assert REGISTRY["adamw"].state_bytes_per_param * 7e9 == 56e9

# %% [markdown]
# Weights in 16 bits would take a quarter of that last number. So the second half of the question, what it costs, is not
# small change: it is why optimizers are sharded, quantised and factored.
#
# ## 7. Your first check
#
# Each exercise ends in a cell that checks your answer and, where it can, names the mistake. Here is one to try: *how many
# bytes does Adam remember for 7 billion float32 parameters?* Somebody answered from memory:

# %%
from course_lib import progress

progress.pause()      # a rehearsal: nothing that is checked in this notebook counts as your work
report = check("adam_state_bytes", 4 * 7e9)
print(report)
assert not report.passed

# %% [markdown]
# It says what went wrong, not merely that something did. If you are stuck, ask for a hint. The first is a question:

# %%
hint("adam_state_bytes")

# %% [markdown]
# Now correct the number in the cell with `check` and run it again. The `assert` below it will then object, because it
# expects the wrong answer: the only place in this course where success raises an error.
#
# ## 8. The map
#
# | | notebook | asks | state |
# |---|---|---|---|
# | 00 | start_here | what is this course, and is the gap real? | you are here |
# | 01 | [gradient_descent](01_gradient_descent.ipynb) | what sets the learning rate, and why do mini-batches work? | ready |
# | 02 | [momentum](02_momentum.ipynb) | what does memory buy, and when nothing? | ready |
# | 03 | [adaptive_rates](03_adaptive_rates.ipynb) | why should each weight have its own rate? | ready |
# | 04 | [adam](04_adam.ipynb) | could you have invented it? | ready |
# | 05 | [adamw](05_adamw.ipynb) | why is L2 not weight decay? | ready |
# | 06 | [why_adam](06_why_adam.ipynb) | which explanations survive an experiment? | ready |
# | 07 | [schedules](07_schedules.ipynb) | what does warmup cure, and what does decay buy? | ready |
# | 08 | [stability](08_stability.ipynb) | the loss jumps: what do you look at first? | ready |
# | 09 | [large_batch](09_large_batch.ipynb) | how does the rate scale with the batch, and how far? | ready |
# | 10 | [memory_accounting](10_memory_accounting.ipynb) | where do 16 bytes per parameter go? | ready |
# | 11 | [mixed_precision](11_mixed_precision.ipynb) | what do fp16 and bf16 break? | ready |
# | 12 | [production_kernels](12_production_kernels.ipynb) | what makes a fused step fast? | ready |
# | 13 | [small_state](13_small_state.ipynb) | what does AdamW lose when its state shrinks? | ready |
# | 14 | [beyond_adam](14_beyond_adam.ipynb) | Lion, Sophia, SOAP, Muon: what beats a tuned AdamW? | ready |
# | 15 | [sharding](15_sharding.ipynb) | what do ZeRO 1, 2 and 3 shard, and what does each send? | ready |
# | 16 | regularisation_and_data | what else prevents overfitting? | coming |
# | 17 | attention_and_objectives | what is being optimised? | coming |
# | 18 | [folklore_on_trial](18_folklore_on_trial.ipynb) | what do interview posts get wrong? | ready |
# | 19 | [mock_interview](19_mock_interview.ipynb) | can you say it aloud? | ready |
#
# ## 9. How to work
#
# 1. **Predict, run, explain.** Before a cell that makes a figure, say what you expect. A wrong prediction is the moment
#    of learning.
# 2. **Derive with a pen.** Each step of mathematics is followed by the cell that does exactly that step.
# 3. **Do the exercises** in the folder `exercises`, one notebook for each topic, such as
#    [exercises/01_gradient_descent](../exercises/01_gradient_descent.ipynb). The blank-page versions are what an
#    interviewer asks for.
# 4. **Check.** In the notebook with `check(...)`, or all at once in a terminal: `course check` prints a table of passed,
#    not yet and untouched; `course check adamw` looks at one exercise.
# 5. **Take hints in order.** `hint("adamw")` goes from a question to nearly the answer. The folder `solutions` has the
#    answers explained: after an honest try.
# 6. **Speak.** Each notebook closes with questions as they are asked. Answer aloud, one minute by the clock, before you
#    open the answer.
# 7. **Repeat.** `course quiz` in a terminal, or the quiz in [19_mock_interview](19_mock_interview.ipynb), asks questions of
#    the bank, in English or Chinese, and asks again, days later, what you did not know. `course interview` is a mock
#    interview against the clock.
#
# Every verdict and every hint is remembered, on your own disk alone: `course progress` shows how far you are and what to
# do next, and so does `progress.show()` in a notebook, after `from course_lib import progress`. An answer that you want
# to write again is made blank by `course reset adamw`, which keeps a copy.
#
# If a run was interrupted or a cell looks odd: *Kernel → Restart Kernel and Run All Cells*.
#
# **Two weeks, two hours a day**, with what is ready now. 01 to 05 tell one story, from one step downhill to AdamW: take them
# in order. The others stand on them, not on each other.
#
# | day | do |
# |---|---|
# | 1 | this notebook with its knobs, 01_gradient_descent, its exercises |
# | 2 | 02_momentum with a pen, its exercises |
# | 3 | 03_adaptive_rates, its exercises |
# | 4-5 | 04_adam: sections 1 to 4 with a pen, the rest, its exercises, guided |
# | 6 | 05_adamw, its exercises |
# | 7 | 06_why_adam: predict each experiment before you run it; its exercises |
# | 8 | 07_schedules, its exercises; 09_large_batch |
# | 9 | 08_stability, its exercises; the decision tree from memory |
# | 10 | 10_memory_accounting with a pen, its exercises |
# | 11 | 11_mixed_precision, its exercises |
# | 12 | 15_sharding, its exercises up to `zero1_step` |
# | 13 | 12_production_kernels, with `adamw_kernel`; 13_small_state and 14_beyond_adam, with Lion and Newton-Schulz |
# | 14 | Adam and AdamW from a blank page, against the clock; 18_folklore_on_trial; a mock interview of 45 minutes from 19_mock_interview; then the question below |
#
# From day 2 on, begin with ten minutes of `course quiz --areas` and the areas you have read. A mock interview at level 1 on
# day 7 shows early what does not hold.
#
# With one hour a day, read all of them and do the exercises of 01, 04, 05, 08, 10 and 15: they are asked most.
#
# ## 10. In the interview
#
# > *Why does everyone train large models with Adam?*
#
# Two minutes, aloud, now. Write down where you stopped, and where you said something that you could not prove. This is
# your baseline; the honest two-minute answer comes by the end of the course. What you can already defend with what you ran
# here: on a small transformer, each rate tuned on a small grid, AdamW led SGD with momentum, most of all on rare bytes; the
# lead cost 8 bytes of state per parameter instead of 4; and you can name reasons not to trust a single small picture.
#
# ## 11. Sources
#
# - Kingma & Ba 2015, *Adam: A Method for Stochastic Optimization*, arXiv 1412.6980.
# - Loshchilov & Hutter 2019, *Decoupled Weight Decay Regularization*, arXiv 1711.05101.
# - Kunstner et al. 2024, *Heavy-Tailed Class Imbalance and Why Adam Outperforms Gradient Descent on Language Models*,
#   arXiv 2402.19449: the loss by frequency, at full scale and in linear models.
# - Kunstner et al. 2023, *Noise Is Not the Main Factor Behind the Gap Between SGD and Adam on Transformers, but Sign Descent
#   Might Be*, arXiv 2304.13960.
# - Srećković et al. 2025, *Is your batch size the problem? Revisiting the Adam-SGD gap in language modeling*,
#   arXiv 2506.12543.
# - Zhang et al. 2024, *Why Transformers Need Adam: A Hessian Perspective*, arXiv 2402.16788.
# - Zhang et al. 2020, *Why are Adaptive Methods Good for Attention Models?*, arXiv 1912.03194.
# - Radford et al. 2019, *Language Models are Unsupervised Multitask Learners* (GPT-2): the model's form.
#
# What disagrees: how much of the gap is left after tuning SGD at small batches, and which of the explanations carries it at scale.
