# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["exercise-only"]
# # Exercises: adaptive rates
#
# Each answer has a cell of its own, with `raise NotImplementedError` where your code goes, and a cell below it that
# checks it. The check says what is wrong and where it first shows. Stuck? `hint("rmsprop")` gives one hint at a time.
# From a terminal, `course check` runs all your answers.

# %% [markdown] tags=["solution-only"]
# # Solutions: adaptive rates
#
# The answers to `exercises/03_adaptive_rates.ipynb`, each with its reasons. Try the exercise first: what you
# have worked out yourself is there in the interview.

# %%
import torch

from course_lib.checks import check, hint

# %% [markdown]
# ## 1. RMSProp
#
# *Level 1, 15 minutes, id `rmsprop`.* Write RMSProp in torch's convention. With $\alpha$ the decay of the average and
# $\lambda$ the weight decay (an L2 penalty, so it enters the gradient):
#
# $$ g \leftarrow g + \lambda\, p, \qquad v \leftarrow \alpha\, v + (1 - \alpha)\, g^2, \qquad p \leftarrow p - \text{lr}\, \frac{g}{\sqrt{v} + \epsilon} $$
#
# $v$ starts at zero and is not corrected for it; $\epsilon$ stands outside the root.


# %% tags=["exercise:rmsprop"]
class RMSprop(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]  # a dict of this parameter's own, empty before its first gradient
                ### BEGIN SOLUTION
                if not state:
                    state["v"] = torch.zeros_like(p)
                g = p.grad + group["weight_decay"] * p
                state["v"].mul_(group["alpha"]).addcmul_(g, g, value=1 - group["alpha"])
                p -= group["lr"] * g / (state["v"].sqrt() + group["eps"])
                ### END SOLUTION
        return loss


# %% tags=["check:rmsprop"]
check("rmsprop", RMSprop)

# %% [markdown] tags=["solution-only"]
# Without a correction the first step is $\text{lr}/\sqrt{1-\alpha}$ long: ten times lr at $\alpha = 0.99$, as the next
# cell shows. That is one of the two things Adam adds; the other is the average in the numerator.

# %% tags=["solution-only"]
p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
p.grad = torch.ones_like(p)
RMSprop([p], lr=0.01).step()
print(f"first step: {-p.item() / 0.01:.4f} times lr")

# %% [markdown] tags=["solution-only"]
# TensorFlow's RMSProp adds $\epsilon$ inside the root, and some codes start $v$ at $g_1^2$. Both are specifications of their own;
# the check recognises them and tells you that they are not the one asked for here.
