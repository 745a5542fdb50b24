# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The mock interview
#
# ## 1. The question
#
# > *You have 45 minutes. Explain Adam to me. Good. Now: how many bytes? Which line is wrong? And what is this curve?*
#
# You know the subject now. An interview asks something else of you: to say it aloud, in a minute, with a number, while
# somebody looks at a clock. That is a skill of its own, and it comes from doing it.
#
# Afterwards you can build an answer of a minute, grade it as an interviewer would, say which three areas cost you most,
# and you will have sat through the interview once before it counts.
#
# Know first: whatever you want to be asked about; 01 to 05 and 10 carry most of it. Time: 30 minutes to read, 45 for
# the interview, ten a day from then on.

# %%
import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from IPython.display import Markdown, display

from course_lib import journal, plots, questions, widgets
from course_lib.practice import anki, choose, interview, paper, proving, report, schedule
from course_lib.practice.asking import SECONDS, Asked
from course_lib.questions.drawn import draw
from course_lib.questions.schema import LEVELS, spoken_length

bank = questions.bank()

# %% [markdown]
# ## 2. The picture
#
# What is asked? Seventeen interview reports of 2024 and 2025, collected in public by candidates for language-model
# posts in China, name ZeRO or DeepSpeed in five and memory, precision or accumulation in four. A report on ByteDance,
# March 2025, has "how does Adam work?" and "what do ZeRO 1, 2 and 3 do?" in one round. OpenAI's screen is reported as:
# find the bugs in this small GPT, then derive and write the backward pass of a matrix product. These are reports, few
# and chosen by those who wrote them. They agree on the direction: less "write Adam", more *compute*, *debug*, *predict
# the curve*, *why does this bug not show*.
#
# Three rounds return under many names. The **screen** asks whether you can say it and count it. The **onsite** asks
# for derivations, bugs, curves and trade-offs. The **research** round asks what is contested, and how you would find
# out. The bank of this course is built from that:

# %%
GROUPS = {
    "descent,\nmomentum,\nrates": "gradient_descent,momentum,adaptive_rates", "Adam,\nAdamW": "adam,adamw,why_adam",
    "schedules,\nbatch": "schedules,large_batch", "stability,\nclipping": "stability,accumulation",
    "memory,\nsharding": "memory,sharding,communication", "precision,\nkernels": "mixed_precision,numerics,kernels",
    "successors": "small_state,beyond_adam,benchmarking", "scaling,\nfine-\ntuning": "scaling,averaging,fine-tuning",
}
counts = {group: {name: sum(one.level == level for one in choose.choose(areas)) for level, name in LEVELS.items()}
          for group, areas in GROUPS.items()}
plots.show(plots.stacked_bars(counts, title="Every part of the subject is asked about in all three rounds", fmt=".0f",
                              ylabel="questions in the bank", size=(8.0, 4.2)),
           alt="Stacked bars of the bank's questions in eight groups of areas, split into screen, onsite and research. "
               "Every bar has all three parts; the onsite part is the largest of most.")
assert all(min(levels.values()) > 0 for levels in counts.values()) and len(bank) >= 200

# %% [markdown]
# An interview mixes kinds: about a fifth each to explain and to compute, then bugs, verdicts, derivations, curves and
# designs, and code from an empty page where there are 40 minutes. Each kind has its time, grading included. A plan for
# 45 minutes, drawn from a seed; areas take turns, and what you had in earlier interviews comes last:

# %% tags=["nbval-ignore-output"]
plan = interview.plan(45, level=2, seed=7)
for name, _ in plan:
    print(f"{SECONDS[bank[name].kind] / 60:3g} min  {bank[name].kind:10} {name}")
assert 40 * 60 < sum(SECONDS[bank[name].kind] for name, _ in plan) <= 45 * 60

# %% [markdown]
# ## 3. An answer of a minute
#
# A minute is 150 to 170 words. It has room for four things, in this order:
#
# 1. **The claim.** Answer the question in the first sentence.
# 2. **A number.** One, with its unit. It shows that you have computed and not read.
# 3. **Why.** The one step of reasoning that the claim hangs on.
# 4. **The limit.** Where it stops being true. Say it before you are asked.
#
# Then stop. What you left out is the interviewer's next question, and you have just chosen it.
#
# "Explain Adam to me." Two candidates:

# %%
asked = Asked(bank["adam-in-words"], None)
weak, strong = bank["adam-in-words"].weak.says.en, bank["adam-in-words"].answer.en
display(Markdown(f"**Weak.** {weak}\n\n**Strong.** {strong}"))

# %% [markdown]
# The strong one begins with what Adam *keeps*, turns it into a sentence of meaning ("about lr per step however large
# they are"), then the five lines, then the price (8 bytes per parameter), then two things it is *not*. Spoken answers
# are graded by points, ticked one by one. Nobody gets a point for sounding right:

# %%
for number, (weight, point) in enumerate(asked.rubric, start=1):
    print(f"{number}. [{weight}] {point}")
for name, text, made in (("weak", weak, set()), ("strong", strong, {1, 2, 3, 4})):
    grade = asked.grade(made)
    print(f"{name:7} {spoken_length(text, 'en'):4} words, {grade.score:.0%}, good enough: {grade.enough}")
assert asked.grade({1, 3}).score == 4 / 7 and not asked.grade({1, 3}).enough      # the formula without its corrections

# %% [markdown]
# When you grade yourself, tick only what you *said*. "I knew that" is how one fails.
#
# ## 4. How it is graded
#
# **A number** is drawn anew each time, so it can be practised for ever. Do each in your head before you look:

# %%
memory = bank["adam-memory"]
for seed in (1, 6, 7):
    drawn = draw(memory, seed)
    print(f"{drawn.choices['parameters']:>4} billion parameters: {drawn.answer():7,.1f} GB")
    assert drawn.answer() == 16 * float(drawn.choices["parameters"].replace(",", ""))

# %% [markdown]
# Your notation is free; your unit counts. GB and GiB are told apart, and a wrong number that a usual slip gives is
# called by its name. That is what an interviewer hears, too:

# %%
for said in ("112 GB", "1.12e11 bytes", "104.3 GiB", "104.3 GB", "56", "7 * 12", "896 GB"):
    grade = Asked(memory, None).grade(said)
    print(f"{said:13} {'right' if grade.enough else 'wrong'}: {grade.remarks[0].en}")

# %% [markdown]
# **A verdict** is right, wrong, or it depends, and then it is run. Decide before you go on:

# %%
verdict = Asked(bank["adam-two-percent"], None)
print("The claim:", verdict.claim)
print({said: verdict.grade(said).score for said in ("right", "wrong", "it depends")})
for proof in proving.demonstrate(verdict.question):
    print(f"{proof.name} holds: {proof.holds}")
    assert proof.holds

# %% [markdown]
# **A bug** is graded by its line. Find it before you read the grades:

# %%
bug = Asked(bank["gd-mean-of-means"], None)
print(bug.prompt, bug.code, sep="\n\n")

# %%
for line in ("6", "line 9"):
    print(f"{line:7} {bug.grade(line).score:.0f}  {bug.grade(line).remarks[0].en}")

# %% [markdown]
# Production had this very bug until 2024 (notebook 08). No test with equal pieces can see it.
#
# **A run** is read from its curves. A run with `CosineAnnealingLR` and `T_max = 10,000` was extended to 20,000 updates.
# Over-fitting?

# %%
run = Asked(bank["schedules-loss-rises-at-end"], 1)
(panel,) = run.curves.panels
curves = {name: (run.curves.x, values) for name, values in panel.series.items()}
plots.show(plots.lines(curves, xlabel=run.curves.x_label, ylabel=panel.y, title="Read the run: what is the cause?"),
           alt="Training and validation loss against the update. Both fall until update 10,000, then rise together "
               "until update 20,000, where they are as high as at the left edge.")

# %%
for letter, cause in zip("abcd", run.causes):
    print(letter, f"{run.grade(letter).score:.0f}", cause)

# %% [markdown]
# Say *why not* the others: over-fitting would part the two curves, and here they rise together.
#
# ## 5. Why it comes again
#
# A question that you got right today is forgotten at a rate that can be modelled. FSRS (Ye, Su & Cao 2022; the package
# `fsrs`) estimates for each question how long you will remember it, and asks again when the chance of recall has fallen
# to 90%. Here are six answers to one question, each given when it falls due:

# %%
START = datetime(2026, 1, 1, tzinfo=UTC)


def pauses(ratings, name="adam-memory"):
    """Days from each answer to the next, if each is given when it falls due."""
    events, when, days = [], START, []
    for rating in ratings:
        details = json.dumps({"rating": rating})
        events.append(journal.Event(name, journal.ANSWERED, passed=rating > 1, time=when.isoformat(), details=details))
        due = schedule.memories(events, when)[name].due
        days.append((due - when) / timedelta(days=1))
        when = due
    return days

GOOD, AGAIN, EASY = 3, 1, 4
curves = {"always good": [GOOD] * 6, "forgotten at the third": [GOOD, GOOD, AGAIN, GOOD, GOOD, GOOD],
          "easy": [EASY] * 6}
curves = {name: pauses(ratings) for name, ratings in curves.items()}
for name, days in curves.items():
    print(f"{name:23}", *(f"{1440 * each:.0f} min" if each < 1 else f"{each:.0f} d" for each in days), sep="  ")

# %%
plots.show(plots.lines({name: (np.arange(1, 7), days) for name, days in curves.items()}, logy=True, xlabel="answer",
                       ylabel="days until it comes again", hlines={"longest pause": schedule.LONGEST_PAUSE},
                       title="What you know goes away for weeks, what you forgot comes back in minutes"),
           alt="Days until a question comes again, log axis, for six answers. Always good: ten minutes, then two days, "
               "eleven, and thirty. Easy: eight days, then thirty. Forgotten at the third answer: back to minutes, "
               "then a slower climb.")
assert curves["forgotten at the third"][2] < 0.02 and max(curves["always good"]) == schedule.LONGEST_PAUSE

# %% [markdown]
# FSRS would go on to months; here 30 days is the longest, because your interview is near. Only your answers are
# stored, never the schedule. So two windows, or an import from another machine, need no merging.
#
# ## 6. Turn the knobs
#
# Ten questions, those due first, then something new. Nothing is remembered before *Begin*. Rate honestly: *hard* is
# for what came slowly.

# %%
widgets.quiz()

# %% [markdown]
# And this is the door. Close the other tabs, put the phone away, speak aloud. The clock runs while a question is open
# and rests while you read the answer. An interview that is cut short goes on where it stopped, here or in a terminal.

# %%
widgets.interview(minutes=45, level=2)

# %% [markdown]
# ## 7. How it breaks
#
# The report at the end says where. Here is one of a candidate who knew the algorithms and had never counted (made by
# hand; nothing of it is remembered):

# %%
SCORES = {"adam-in-words": (1.0, 150), "adam-memory": (0.0, 200), "memory-zero-one": (0.0, 170),
          "adamw-vs-l2": (0.86, 160), "sharding-wrong-order": (0.0, 30), "accumulation-bug-divide-late": (1.0, 100),
          "mixed-fp16-vs-bf16": (0.7, 240)}
one = interview.Interview("by hand", 30, 1, ("adam", "memory"), "en", tuple((name, 1) for name in SCORES))
for place, (score, seconds) in enumerate(SCORES.values()):
    one.answers[place] = interview.Answer(score, seconds)
made = report.report(one, events=[])
display(Markdown(made.markdown(folder="")))
assert {"memory", "sharding"} <= set(made.revisit) and "accumulation" in made.strengths

# %% [markdown]
# | what goes wrong | what the interviewer writes down | what to do |
# |---|---|---|
# | the answer begins with history | did not answer | claim first; the rest is why |
# | no number in four minutes | has read about it | one number per answer, with its unit |
# | "it adapts the learning rate" | a slogan | say what is divided by what |
# | silence over the bug | cannot debug | say what each line should leave behind, in order |
# | "I would lower the learning rate" | guesses | what would I look at, what would each answer tell me |
# | no limit named | overclaims | where does it stop being true? |
# | bluffing at a gap | not to be trusted with a cluster | "I don't know. I would find out by ..." |
#
# The last one is worth a rehearsal of its own: *I don't know* is a button above, and costs less than a wrong line.
#
# ## 8. Your turn
#
# The same in a terminal, over the same memory:
#
# ```
# course quiz --areas memory,amp --kinds compute
# course interview --minutes 45 --level 2 --areas memory,amp --lang zh --out report.md
# course questions memory-zero-one --prove
# course paper --seed 7 --level 2 --out papers
# course anki --out course.apkg
# ```
#
# A paper and its key for a study group follow from the seed to the byte; the deck for Anki keeps its ids, so that a
# later one updates the cards and leaves your schedule alone. Written
# into a folder that is gone after the cell:

# %%
with tempfile.TemporaryDirectory() as folder:
    files = paper.write(paper.paper(seed=7, minutes=30, level=2), Path(folder))
    print(sorted(file.name for file in files if file.suffix != ".png"))
    count = anki.export(choose.choose("adam"), Path(folder, "adam.apkg"))
    assert count == len(choose.choose("adam")) and paper.paper(seed=7, minutes=30, level=2) == {
        file.name: file.read_bytes() for file in files}

# %% [markdown]
# **In Chinese.** Every question has prompt, answer and rubric in both languages, with the English terms that engineers
# in Beijing keep. If your interview is in Chinese, practise in Chinese: the words come slower than the thought.

# %%
for language in ("en", "zh"):
    print(Asked(bank["adam-in-words"], None, language).prompt)
chinese = Asked(bank["adam-memory"], None, "zh")
print(chinese.say(chinese.grade("104.3 GB").remarks[0]))
print(report.report(replace(one, language="zh"), events=[]).markdown(folder="").split("\n\n")[1])

# %% [markdown]
# **The last week**
#
# - [ ] Seven days before: one interview of 45 minutes, aloud. Do what its report says first.
# - [ ] Every day: `course quiz`, ten questions, before anything else.
# - [ ] Day 6 and 5: the two weakest areas, their section 3 with a pen, their exercises.
# - [ ] Day 4: Adam, AdamW and global-norm clipping from a blank page, ten minutes each (`adam_blank`, `adamw_blank`).
# - [ ] Day 3: a second interview, with somebody who interrupts you. Give them the key.
# - [ ] Day 2: only numbers: 16 bytes per parameter, 112 GB, ZeRO 1 to 3, 6.57 lr, 33,333 steps, 65,504.
# - [ ] Day 1: read section 7 of three notebooks. Prepare two stories of a run that broke, with what you looked at.
# - [ ] The day itself: sleep. Water. Claim, number, why, limit.
#
# ## 9. In the interview
#
# Four that open, and close, real ones. Say each aloud before you unfold it.

# %%
questions.show("adam-in-words")
questions.show("sharding-wrong-order")

# %% tags=["evidence-adam-in-words", "evidence-sharding-wrong-order"]
gradients = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 4)))
spoken, weight = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64, requires_grad=True)
m, v, adam = torch.zeros(4), torch.zeros(4), torch.optim.Adam([weight], lr=0.01)
for t, weight.grad in enumerate(gradients, start=1):
    m, v = 0.9 * m + 0.1 * weight.grad, 0.999 * v + 0.001 * weight.grad**2
    spoken -= 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    adam.step()
assert torch.allclose(spoken, weight, rtol=0, atol=1e-12)

for order in ("optimizer gradients weights", "weights gradients optimizer"):
    parts, left = {"optimizer": 12, "gradients": 2, "weights": 2}, []
    for part in order.split():
        parts[part] /= 64
        left.append(round(7 * sum(parts.values()), 2))
    print(f"{order}: {left} GB on each of 64 GPUs")

# %%
questions.show("accumulation-bug-divide-late")
questions.show("stab-roll-back")

# %% tags=["evidence-accumulation-bug-divide-late", "evidence-stab-roll-back"]
pieces, norms = torch.randn(8, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), []
for code in (bank["accumulation-bug-divide-late"].bug.code, bank["accumulation-bug-divide-late"].bug.fixed):
    exec(code, names := {})
    model = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)
    torch.nn.init.ones_(model.weight)
    loss = names["train_step"](model, torch.optim.SGD(model.parameters(), lr=0.0),
                               lambda out, target: (out.squeeze(1) - target).square().mean(),
                               [(piece, piece.sum(1) - 1) for piece in pieces])
    norms.append(model.weight.grad.norm().item())
print(f"the gradient is {norms[0] / norms[1]:.6f} times as large")

def walk(gradients, state=(0.0, 0.0, 0.0), done=0):
    w, m, v = state
    for t, g in enumerate(gradients, start=done + 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - m / (1 - 0.9**t) / np.sqrt(v / (1 - 0.999**t))
    return w, m, v

steady = np.random.default_rng(1).uniform(0.5, 1.5, 400)
saved = walk(steady[:100])
skipped, through = walk(steady[100:], saved, 100), walk([1000.0, *steady[100:]], saved, 100)
print("going back and skipping is the run without the spike, bit for bit:", bool(skipped[0] == walk(steady)[0]))
print("300 steps after the spike v is over 100 times too large:", bool(through[2] > 100 * skipped[2]))
assert abs(norms[0] / norms[1] - 8) < 1e-9 and skipped[0] == walk(steady)[0] and through[2] > 100 * skipped[2]

# %% [markdown]
# ## 10. Sources
#
# - Interview reports: github.com/aceliuchanghong/FAQ_Of_LLM_Interview (17 logs, 2024-25); nowcoder.com, post
#   810272844167872512 (Alibaba); prachub.com (questions by company). Read for what is asked. Their answers were not
#   taken over.
# - Closest in kind: github.com/duoan/TorchCode (auto-graded exercises); github.com/stas00/ml-engineering (real loss
#   curves); Stanford CS336, assignments 1 and 2.
# - Ye, Su & Cao 2022, *A Stochastic Shortest Path Algorithm for Optimizing Spaced Repetition Scheduling* (KDD). The
#   package fsrs, github.com/open-spaced-repetition/py-fsrs.
# - Of the questions shown: Kingma & Ba 2015 (1412.6980); Rajbhandari et al. 2020, ZeRO (1910.02054); Chowdhery et al.
#   2022, PaLM (2204.02311), section 5.1; Zhang et al. 2022, OPT (2205.01068).
#
# Contested: how far self-graded answers agree with an interviewer's grades; nothing was measured here. Which share of
# interviews asks what, since all counts rest on reports that candidates chose to write.
