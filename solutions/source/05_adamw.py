# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: AdamW
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("adamw")` gives one hint at a time.
# From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: AdamW
#
# The answers to `exercises/05_adamw.ipynb`, each with its reasons. Try the exercise first: what you
# have worked out yourself is there in the interview.

# %%
import math

import torch

from course_lib.checks import check, hint

# %% tags=["solution-only"]
from course_lib import progress

progress.pause()      # what is checked from here on does not count as your own work

# %% [markdown]
# ## 1. AdamW, guided
#
# *Level 1, 15 minutes, id `adamw`.* The walk is written; the rule is yours. The decay works on the weight, scaled by the learning rate
# as in torch; the moments see the bare gradient:
#
# $$ p \leftarrow (1 - \text{lr}\,\lambda)\, p, \quad m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2, \quad
# p \leftarrow p - \text{lr}\,\frac{m/(1-\beta_1^t)}{\sqrt{v/(1-\beta_2^t)} + \epsilon} $$


# %% tags=["exercise:adamw"]
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2), eps, wd = group["lr"], group["betas"], group["eps"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["t"], state["m"], state["v"] = 0, torch.zeros_like(p), torch.zeros_like(p)
                state["t"] += 1
                t, m, v = state["t"], state["m"], state["v"]
                p *= 1 - lr * wd
                m.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                m_hat = m / (1 - beta1**t)
                v_hat = v / (1 - beta2**t)
                p -= lr * m_hat / (v_hat.sqrt() + eps)
                ### END SOLUTION
        return loss


# %% tags=["check:adamw"]
check("adamw", AdamW)

# %% [markdown] tags=["solution-only"]
# One line moved: in Adam `wd * p` was added to the gradient, went through $m$ and $v$ and was divided by $\sqrt{\hat v}$; here
# it touches the weight only. Decaying first, as torch does, or subtracting both terms from the old weight, as the paper writes,
# is the same; decaying the *new* weight differs by $\text{lr}^2\lambda$ times the update.

# %% [markdown]
# ## 2. AdamW, blank page
#
# *Level 2, 25 minutes, id `adamw_blank`.* Only the name is given. A class used as torch's is: `AdamW(params, lr=1e-3, betas=(0.9, 0.999),
# eps=1e-8, weight_decay=0.01, maximize=False)` over parameters or groups, with `step(closure=None)`, `zero_grad()`, `param_groups`,
# `state_dict()` and `load_state_dict()`. A run that is saved and resumed must be the run that never stopped.


# %% tags=["exercise:adamw_blank"]
AdamW = None  # a blank page: the class above does not count here
### BEGIN SOLUTION
class AdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, maximize=False):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = -p.grad if group["maximize"] else p.grad
                state = self.state[p]
                if not state:
                    state.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["t"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["m"].lerp_(g, 1 - beta1)
                state["v"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
                root = math.sqrt(1 - beta2 ** state["t"])
                step_size = group["lr"] / (1 - beta1 ** state["t"])
                p.addcdiv_(state["m"], state["v"].sqrt().div_(root).add_(group["eps"]), value=-step_size)
        return loss
### END SOLUTION


# %% tags=["check:adamw_blank"]
check("adamw_blank", AdamW)

# %% [markdown] tags=["solution-only"]
# This is torch's own arrangement: the correction of $m$ goes into the step size, that of $v$ into the denominator *before*
# $\epsilon$ is added, so that $\epsilon$ keeps its meaning. Each big operation is one pass over memory; notebook 12 counts them.

# %% [markdown]
# ## 3. A bug to find
#
# *Level 2, 15 minutes, id `adamw_bug`.* This AdamW passed its author's test, which trained one tensor. On a real model the
# loss jumps within the first fifty steps and then recovers. Find the fault and mend it: copy the class into the answer cell,
# call it `RepairedAdamW`, and change as little as you can.

# %% tags=["exercise-only"]
class SuspiciousAdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, t=0))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
                group["t"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["m"].lerp_(p.grad, 1 - beta1)
                state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                m_hat = state["m"] / (1 - beta1 ** group["t"])
                v_hat = state["v"] / (1 - beta2 ** group["t"])
                p.sub_(group["lr"] * m_hat / (v_hat.sqrt() + group["eps"]))
        return loss

# %% tags=["exercise:adamw_bug"]
RepairedAdamW = None  # your mended class
### BEGIN SOLUTION
class RepairedAdamW(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"], state["v"], state["t"] = torch.zeros_like(p), torch.zeros_like(p), 0
                state["t"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                state["m"].lerp_(p.grad, 1 - beta1)
                state["v"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                m_hat = state["m"] / (1 - beta1 ** state["t"])
                v_hat = state["v"] / (1 - beta2 ** state["t"])
                p.sub_(group["lr"] * m_hat / (v_hat.sqrt() + group["eps"]))
        return loss
### END SOLUTION


# %% tags=["check:adamw_bug"]
check("adamw_bug", RepairedAdamW)

# %% [markdown] tags=["solution-only"]
# The step count belonged to the group and advanced once for every tensor: in a group of 100 tensors the last one finds
# $t = 100$ at its first step, 200 at its second. To the correction the run looks old while the moments are young, so it corrects
# too little. For a constant gradient the right step is 1 lr throughout; the last tensor's is

# %% tags=["solution-only"]
beta1, beta2, tensors = 0.9, 0.999, 100
sizes = []
for n in range(1, 51):  # after n steps of a constant gradient m = 1 - beta1^n and v = 1 - beta2^n
    t = tensors * n
    m_hat, v_hat = (1 - beta1**n) / (1 - beta1**t), (1 - beta2**n) / (1 - beta2**t)
    sizes.append(m_hat / math.sqrt(v_hat))
print(f"first step {sizes[0]:.2f} lr, largest {max(sizes):.2f} lr at step {sizes.index(max(sizes)) + 1}, step 50 {sizes[-1]:.2f} lr")
assert max(sizes) > 5

# %% [markdown] tags=["solution-only"]
# With one tensor the two counts are the same, so the author's test could not fail. The bug is a real one: in 2020 in
# flashlight's Adam (issue 143), in 2021 in DiffSharp's (issue 292).

# %% [markdown]
# ## 4. How long weight decay takes
#
# *Level 1, 5 minutes, id `decay_steps`.* With lr = 3e-4 and weight_decay = 0.1 in torch's AdamW, how many steps does it take until a weight
# whose gradient is always zero has shrunk to $1/e$ of its value?

# %% tags=["exercise:decay_steps"]
steps = ...
### BEGIN SOLUTION
steps = -1 / math.log(1 - 3e-4 * 0.1)
### END SOLUTION

# %% tags=["check:decay_steps"]
check("decay_steps", steps)

# %% [markdown] tags=["solution-only"]
# $(1 - \text{lr}\,\lambda)^n = 1/e$ gives $n = -1/\ln(1-\text{lr}\,\lambda) \approx 1/(\text{lr}\,\lambda)$: about 33,333 steps.
# A short fine-tuning run of a few thousand steps hardly decays anything, whatever `weight_decay=0.1` looks like.

# %% [markdown]
# ## 5. Which parameters decay
#
# *Level 2, 15 minutes, id `decay_groups`.* Write a function that returns two parameter groups for torch: parameters with two or more
# dimensions decay by `weight_decay`, the rest (norm gains, biases) by 0.0. Every trainable parameter is in exactly one group; frozen ones
# are in none. Tied weights have two names and are one tensor.


# %% tags=["exercise:decay_groups"]
def decay_groups(model, weight_decay):
    ### BEGIN SOLUTION
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    ### END SOLUTION


# %% tags=["check:decay_groups"]
check("decay_groups", decay_groups)

# %% [markdown] tags=["solution-only"]
# `model.parameters()` yields a tied tensor once. Going by names goes wrong twice: a gain can be called `weight`, as LayerNorm's is, and
# a matrix can be called `bias_table`. Embeddings are matrices here and decay, as in GPT-2 style code; whether they should is
# disputed, see notebook 05.
