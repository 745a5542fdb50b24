# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Beyond Adam
#
# ## 1. The question
#
# > *Lion, Sophia, SOAP, Muon: each was announced as twice as fast as AdamW. Which of them would you train with, and
# > what would you want to see first?*
#
# Afterwards you can derive Muon from Shampoo in two lines, and its Newton-Schulz from a polynomial, say which tensors
# stay with AdamW and why, compute what a step costs, name a bug in production code, and take a speedup claim apart.
#
# Know first: notebooks 04, 05 and 06; it helps to have seen 07's averages. Time: 60 minutes.

# %%
import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib import plots
from course_lib.benchmark import records, runner, settings, summary
from course_lib.compare import compare
from course_lib.groups import describe, muon_groups
from course_lib.kernels import bench
from course_lib.optim import SGD, SOAP, AdamW, Lion, Muon, ScheduleFreeAdamW, Shampoo, Sophia
from course_lib.optim.curvature import gauss_newton_bartlett
from course_lib.optim.muon import ADJUSTMENTS, adjusted_lr, newton_schulz
from course_lib.optim.qk_clip import max_attention_logits, qk_clip_
from course_lib.optim.shampoo import inverse_root
from course_lib.problems import lm, text
from course_lib.problems.noisy_quadratic import NoisyQuadratic
from course_lib.problems.turned import TurnedQuadratic
from course_lib.train import train

# %% [markdown]
# ## 2. The picture
#
# A sound engineer has a desk with a fader for every microphone. Adam levels the microphones: each comes out equally
# loud. But the band stands close together, and most microphones hear mostly the drummer. Muon levels the *musicians*.
#
# In a weight matrix the musicians are singular vectors. Train the small language model for 40 steps, and take one
# matrix apart: the momentum, the step that Adam makes of it, and what Muon makes of it:

# %%
data, _ = text.split(text.corpus())
model = lm.ByteLM()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
train(model, optimizer, text.batches(data, 16, 64, 40, seed=0), loss_fn=lm.next_byte_loss, device="cpu", progress=False)
state = optimizer.state[model.blocks[0].mlp_in.weight]
m, v = state["exp_avg"] / (1 - 0.9**40), state["exp_avg_sq"] / (1 - 0.95**40)
updates = {"momentum": m, "AdamW": m / (v.sqrt() + 1e-8), "Lion": m.sign(), "Muon": newton_schulz(m)}
values = {name: torch.linalg.svdvals(u) for name, u in updates.items()}
plots.show(plots.lines({name: s / s[0] for name, s in values.items()}, xlabel="singular value, the largest first",
                       ylabel="size / largest", title="Adam's step has a few loud directions, Muon's has most of them"),
           alt="Singular values of a 256 x 64 matrix over the largest. Momentum falls to a tenth within six values, "
               "AdamW within eight, the sign within about thirty; Muon stays above 0.6 for over thirty of the 64.")
loud = {name: int((s > 0.3 * s[0]).sum()) for name, s in values.items()}
print("fewer than ten above 0.3 of the largest:", {name: count < 10 for name, count in loud.items()})
assert loud["Muon"] > 4 * loud["AdamW"]

# %% [markdown]
# The loss of a language model depends on many directions, most of them quiet. That is the hope behind every matrix
# optimizer. Whether it pays is a question for section 5.
#
# ## 3. The derivation
#
# ### 3.1 Steepest, for which ruler?
#
# "Downhill" needs a measure of how far one may go: maximise the gain $\langle G,D\rangle$ over all $D$ of length 1.
# With the Frobenius norm the best $D$ is $G/\|G\|$. If no *element* may exceed 1 (max norm), each element should do its
# best by itself: $D=\operatorname{sign}G$, gain $\sum|G_{ij}|$. If no *direction* may be stretched by more than 1
# (spectral norm), write $G=USV^\top$. Then $\langle G,D\rangle=\sum_is_i\,u_i^\top Dv_i\le\sum_is_i$, and $D=UV^\top$
# reaches it. Try each direction under each ruler, and 5,000 random ones:

# %%
rng = np.random.default_rng(0)
G = rng.standard_normal((6, 4)) * [10, 3, 1, 0.3]
U, S, Vt = np.linalg.svd(G, full_matrices=False)
rulers = {"Frobenius": np.linalg.norm, "max": lambda D: abs(D).max(), "spectral": lambda D: np.linalg.norm(D, 2)}
gains = {name: [(G * D).sum() / norm(D) for norm in rulers.values()]
         for name, D in {"G": G, "sign G": np.sign(G), "U V^T": U @ Vt}.items()}
noise = [max((G * D).sum() / norm(D) for D in rng.standard_normal((5000, 6, 4))) for norm in rulers.values()]
print(f"{'gain under':16}", *(f"{name:>10}" for name in rulers))
for name, row in (gains | {"best of noise": noise}).items():
    print(f"{name:16}", *(f"{gain:10.2f}" for gain in row))
assert compare("diagonal", np.diag(list(gains.values())), [np.linalg.norm(G), abs(G).sum(), S.sum()])

# %% [markdown]
# Each wins under its own. Adam with its averages switched off is the second, Shampoo without its is the third
# (Bernstein & Newhouse 2024). So the family question is: which norm suits a tensor, and how much memory of the past.
#
# ### 3.2 Lion: the sign of an interpolation
#
# The sign of one gradient is mostly noise; the sign of a slow average is late. Lion reads one average and keeps
# another: $c=\beta_1m+(1-\beta_1)g$ decides, $m\leftarrow\beta_2m+(1-\beta_2)g$ remembers. How late, and how noisy, for
# a signal that turns from +1 to -1:

# %%
k = np.arange(1, 2000)
for name, now, keep in (("sign, beta 0.9", 0.9, 0.9), ("sign, beta 0.99", 0.99, 0.99), ("Lion (0.9, 0.99)", 0.9, 0.99)):
    c = now * (2 * keep ** (k - 1) - 1) - (1 - now)      # in the k-th step after the turn
    spread = math.sqrt((1 - now) ** 2 + now**2 * (1 - keep) / (1 + keep))
    print(f"{name:17} turns after {np.argmax(c < 0) + 1:2} steps, noise {spread:.2f} of a gradient's")
weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
weight.grad = torch.tensor([1e-9, 1.0, -1e9], dtype=torch.float64)
Lion([weight], lr=0.1).step()
print("first step, gradients of 1e-9, 1 and -1e9:", weight.tolist())

# %% [markdown]
# Somewhat earlier than the slow sign, and half as noisy as the fast one. Each element moves by lr exactly, so the
# update's RMS is 1, and lr has to be 3 to 10 times below AdamW's, the decay as much above. Notebook 13 has Lion's bytes
# and traps.
#
# ### 3.3 Sophia: a curvature, clipped
#
# Adam divides by $\sqrt{v}$, which measures the gradient's size. Newton divides by the curvature $h$. Two troubles: $h$
# is expensive, and where it is tiny or negative the step explodes or climbs. Sophia estimates $h$ every tenth step, and
# clips: $\operatorname{clip}(m/\max(\rho h,\epsilon),\pm1)$.
#
# The cheap estimate (Gauss-Newton-Bartlett): draw labels $\hat y$ from the model itself. Gradients of single
# predictions then have the mean zero, so of the squared mean over $B$ of them only the squares survive, and $B\,\mathbb
# E[\hat g^2]$ is the diagonal of the Gauss-Newton matrix. For a linear softmax that is the Hessian:

# %%
X = torch.from_numpy(rng.standard_normal((64, 8)))
W, y = torch.from_numpy(rng.standard_normal((5, 8))).requires_grad_(), torch.zeros(64, dtype=torch.long)
P = (X @ W.T).softmax(-1).detach()
exact = torch.einsum("bc,bf->cf", P * (1 - P), X**2) / 64
sampled = sum(gauss_newton_bartlett(X @ W.T, [W], rng)[0] for _ in range(1000)) / 1000
of_the_data = 64 * torch.autograd.grad(F.cross_entropy(X @ W.T, y), W)[0] ** 2
for name, estimate in {"labels of the model": sampled, "labels of the data": of_the_data}.items():
    ratio = estimate / exact
    print(f"{name:20} estimate / Hessian from {ratio.min():.2g} to {ratio.max():.2g}")

# %% [markdown]
# With the data's labels it is the squared gradient times $B$, and no curvature. Now the rule, on curvatures of 100, 1,
# 0.01 and -1; the last is a saddle, which a good method leaves:

# %%
h = torch.tensor([100.0, 1.0, 0.01, -1.0], dtype=torch.float64)
start = torch.tensor([1.0, 1.0, 1.0, 0.1], dtype=torch.float64)

def walk(make):
    w = start.clone().requires_grad_()
    run = make([w])
    for step in range(200):
        w.grad = h * w.detach()
        if isinstance(run, Sophia) and step % 10 == 0:
            run.update_hessian(estimate=[h])
        run.step()
    return w.detach().numpy().round(3)

print("Newton, 1 step  ", (start - h * start / h).numpy())
print("SGD, lr 1/100   ", walk(lambda p: SGD(p, lr=0.01)))
print("Sophia, lr 0.01 ", walk(lambda p: Sophia(p, lr=0.01, betas=(0.9, 0.9), rho=1.0, weight_decay=0.0)))

# %% [markdown]
# Newton jumps *onto* the saddle. Sophia goes at one pace in all curvatures, and away from the saddle. Where most
# elements are clipped, it is sign descent. The state is AdamW's, 8 bytes. The paper reports half of AdamW's steps;
# equally tuned comparisons find it level with AdamW (2407.07972, 2507.08472).
#
# ### 3.4 Shampoo, and what is left of it without memory
#
# AdaGrad's full matrix, $(\sum gg^\top)^{-1/2}g$, would need $(mn)^2$ numbers: for 1024 x 4096, 70 TB. Shampoo takes
# one matrix for each *side*: $L=\sum GG^\top$, $R=\sum G^\top G$, step $L^{-1/4}GR^{-1/4}$.
#
# Drop the sums. With $G=USV^\top$ we have $(GG^\top)^{-1/4}=US^{-1/2}U^\top$, so
#
# $$(GG^\top)^{-1/4}\,G\,(G^\top G)^{-1/4}=US^{-1/2}\,S\,S^{-1/2}V^\top=UV^\top.$$
#
# SOAP runs Adam in the eigenbases of $L$ and $R$, $G'=U^\top GV$. Without memory $G'$ is the diagonal $S$; Adam without
# memory takes its sign, the identity; turned back that is $UV^\top$ again:

# %%
G = torch.from_numpy(rng.standard_normal((5, 5)))
left, S, right = torch.linalg.svd(G)
in_basis = left.T @ G @ right.T
assert compare("Shampoo's", inverse_root(G @ G.T, 4, 1e-14) @ G @ inverse_root(G.T @ G, 4, 1e-14), left @ right)
assert compare("SOAP's", left @ (in_basis / (in_basis.abs() + 1e-8)) @ right, left @ right)
assert compare("cubic Muon's", newton_schulz(G, 60, (1.5, -0.5, 0.0)), left @ right)

# %% [markdown]
# One family, and each member's memory is its difference: Shampoo remembers both factors, SOAP also $v$ in the turned
# space (so that the basis may be stale: refreshed every ten steps), Muon only the momentum.
#
# What do they share? They do not care how rows and columns are turned; Adam does. Fit a matrix whose curvatures lie
# along the axes, then the same problem turned:

# %%
aligned, turned = (TurnedQuadratic(np.logspace(0, -3, 8), np.logspace(0, -1, 8), turned=each) for each in (False, True))
makers = {"AdamW": lambda p: AdamW(p, lr=0.05, weight_decay=0.0), "SOAP": lambda p: SOAP(p, lr=0.05, weight_decay=0.0),
          "Shampoo": lambda p: Shampoo(p, lr=0.3, eps=1e-6, grafting=None),
          "Muon": lambda p: Muon(p, lr=0.2, weight_decay=0.0)}
ratio = {name: turned.final_loss(make) / aligned.final_loss(make) for name, make in makers.items()}
print("turned ends within a factor of 2 of aligned:", {name: 0.5 < each < 2 for name, each in ratio.items()})
assert ratio["AdamW"] > 1000

# %% [markdown]
# AdamW is hurt by the turn; the others do not see it. (Muon to the rounding of its bf16. Shampoo is run without its
# usual grafting, which gives the step the length of Adam's and so brings the axes back.) That real gradients are turned
# is the bet.
#
# ### 3.5 Newton-Schulz
#
# Muon needs $UV^\top$ of the momentum at each step, without a decomposition, on hardware that likes products. An *odd*
# polynomial does it: $XX^\top X=US^3V^\top$, so $aX+b(XX^\top)X+c(XX^\top)^2X$ maps every singular value to
# $p(s)=as+bs^3+cs^5$ and leaves the vectors alone. Divide by the Frobenius norm, so that all $s\le1$; then repeat $p$
# until they are near 1.
#
# Convergence asks for $p(1)=1$ and $p'(1)=0$. With $c=0$: $a+b=1$, $a+3b=0$, so $(1.5,-0.5)$. With $p''(1)=0$ too:
# $(15,-10,3)/8$. But a tiny $s$ only grows by $a$ a step, and 1.5 is slow. Jordan's coefficients give up $p(1)=1$ for
# slope:

# %%
jordan, cubic, quintic = (3.4445, -4.7750, 2.0315), (1.5, -0.5, 0.0), (15 / 8, -10 / 8, 3 / 8)

def p(s, coefficients, steps=5):
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s

s = np.geomspace(1e-4, 1, 4001)
curves = {name: (s, p(s, of)) for name, of in {"Jordan's": jordan, "cubic": cubic, "quintic": quintic}.items()}
plots.show(plots.lines(curves, title="Jordan's polynomial lifts a hundredth in five steps, and never settles",
                       logx=True, xlabel="singular value / Frobenius norm", ylabel="after 5 steps", hlines={"": 1.0}),
           alt="What five steps make of a singular value, log axis from 1e-4 to 1. Jordan's passes 0.68 before 0.01, "
               "then wanders between 0.68 and 1.13. The cubic reaches 0.08 at 0.01, the quintic 0.23; both end at 1.")
print("Jordan's on [0.01, 1]:", p(s[s >= 0.01], jordan).min().round(2), "to", p(s[s >= 0.01], jordan).max().round(2))
print("1 goes to", *(round(p(1.0, jordan, n), 2) for n in range(1, 7)), "...; tiny ones grow by", round(jordan[0] ** 5))

# %% [markdown]
# It need not converge, and cannot: at its fixed point, 0.87, the slope is -1.6, so values are pushed away and stay in a
# band around 1. How wrong is that? Against $UV^\top$, and in bf16, which is what torch uses:

# %%
for name, matrix in {"noise": torch.from_numpy(rng.standard_normal((256, 512))), "momentum": m.double()}.items():
    U, _, Vt = torch.linalg.svd(matrix, full_matrices=False)
    exact, five, half = U @ Vt, newton_schulz(matrix), newton_schulz(matrix.bfloat16()).double()
    off, rounding = (five - exact).norm() / exact.norm(), (half - five).norm() / five.norm()
    print(f"{name:8} off U V^T by 10-30%: {0.1 < off < 0.3}, more: {off > 0.3}; bf16 adds under 3%: {rounding < 0.03}")

# %% [markdown]
# So a test that holds Newton-Schulz to the SVD with a small tolerance must fail; bf16 is the smaller error. The
# momentum's quietest directions do not come up to 1, and bf16 fills them with rounding. It may not matter: they are
# mostly noise.
#
# ### 3.6 The size of the step
#
# $UV^\top$ has $\min(m,n)$ singular values of 1, so $\|UV^\top\|_F^2=\min(m,n)$, spread over $mn$ elements: an RMS of
# $1/\sqrt{\max(m,n)}$. It depends on the shape, where AdamW's is about 0.2 to 0.4 for all. Two cures: `original`
# multiplies by $\sqrt{\max(1,m/n)}$; `match_rms_adamw` by $0.2\sqrt{\max(m,n)}$, so that AdamW's lr and decay can be
# kept:

# %%
for shape in ((64, 64), (64, 256), (256, 64), (256, 512)):
    flat = newton_schulz(torch.from_numpy(rng.standard_normal(shape)), 60, cubic)
    rms = flat.square().mean().sqrt().item()
    print(f"{shape!s:10} {rms:.4f}", {mode: round(adjusted_lr(rms, shape, mode), 4) for mode in ADJUSTMENTS})
    assert math.isclose(rms, max(shape) ** -0.5, rel_tol=1e-6)

# %% [markdown]
# A learning rate without its mode says nothing: for 4096 x 4096 the factors are 1 and $0.2\cdot64=12.8$. Without decay
# weights grew too large in long runs (Liu et al. 2025); 0.1 is usual.
#
# ### 3.7 AdamW for the rest
#
# Norms and biases are no matrices. Embedding and head are, but a row there is a *token*, and tokens come as Zipf says.
# Take a gradient whose row $k$ is of size $1/k$, and ask how far each row moves:

# %%
zipf = torch.from_numpy(rng.standard_normal((512, 64)) / np.arange(1, 513)[:, None])
moves = {"SGD": zipf, "Adam (its sign)": zipf.sign(), "Muon": newton_schulz(zipf)}
for name, update in moves.items():
    row = update.square().mean(1).sqrt()
    print(f"{name:16} row 10: {row[9] / row[0]:.3f}  row 100: {row[99] / row[0]:.3f}  row 512: {row[511] / row[0]:.3f}")
print(describe(muon_groups(lm.ByteLM(), lr=0.02, adamw_lr=3e-3, weight_decay=0.1)))

# %% [markdown]
# Muon's singular directions are taken by frequent tokens; rare ones hardly move, as under SGD (notebook 06). That is
# our reading of a rule that was found by trial; Bernstein & Newhouse derive another norm for embeddings. `muon_groups`
# follows the rule.
#
# ### 3.8 QK-clip
#
# Nothing bounds $q\cdot k$. Kimi K2 saw attention logits pass 1,000 under Muon. The clip acts on weights, after the
# step: where head $h$ had a largest logit $S_h>\tau$, multiply its query and key weights by $\sqrt{\tau/S_h}$ each:

# %%
x = torch.from_numpy(rng.standard_normal((2, 16, 32)))
query, key = (torch.from_numpy(rng.standard_normal((32, 32)) / 32**0.5) for _ in range(2))
query[8:16] *= 100      # the second of four heads has run away
logits = lambda: max_attention_logits(*((x @ w.T).unflatten(-1, (4, 8)).transpose(1, 2) for w in (query, key)))
before = logits()
factors = qk_clip_(query, key, before, tau=100.0)
print("before", before.numpy().round(1), " after", logits().numpy().round(1))
assert torch.allclose(logits(), before.clamp(max=100)) and (factors == 1).sum() == 3

# %% [markdown]
# The other heads keep every bit. It is no cap on the logits of this pass, and it needs the largest logit of each head,
# which fused attention does not return by itself. QK-norm would do the same earlier, but multi-head latent attention
# never forms the keys that it would normalise.
#
# ### 3.9 Schedule-Free: three points
#
# A decaying lr averages the noise away, at an end fixed beforehand. Averaging the *path* does so at any time.
# Schedule-Free takes Adam's steps with $z$, keeps the mean $x$ of all $z$, and takes gradients between, at
# $y=(1-\beta_1)z+\beta_1x$. A noisy quadratic, one learning rate for all:

# %%
problem = NoisyQuadratic(np.logspace(0, -2, 50), noise=0.3)

def noisy(make, schedule=lambda share: 1.0, steps=1000):
    """True losses after every tenth step, mean of 16 runs: of the parameters, and of Schedule-Free's x and z."""
    param, draws, log = problem.parameter(16), np.random.default_rng(0), []
    run = make([param], lr=0.05)
    for step in range(steps):
        run.param_groups[0]["lr"] = 0.05 * schedule(step / steps)
        problem.backward(param, 1, draws)
        run.step()
        if step % 10 == 9:
            points = [param.detach().clone()]
            if hasattr(run, "eval"):
                run.eval()
                points += [param.detach().clone(), run.state[param]["z"]]
                run.train()
            log.append([problem.loss(point.numpy()).mean() for point in points])
    return np.array(log).T

# %%
cosine = lambda share: (1 + math.cos(math.pi * share)) / 2
curves = dict(zip(("y: gradients", "x: evaluate", "z: steps"), noisy(ScheduleFreeAdamW)))
curves |= {"AdamW, constant": noisy(AdamW)[0], "AdamW, cosine": noisy(AdamW, cosine)[0]}
plots.show(plots.lines({name: (10 * np.arange(1, 101), c) for name, c in curves.items()}, logy=True, xlabel="step",
                       ylabel="loss", title="x is good at any time; the cosine wins later, with a known end"),
           alt="Loss over 1,000 steps, log axis. z stays near 1. AdamW at a constant rate stays at 0.2. x falls "
               "steadily to 0.07, y ends slightly above. The cosine is above x at step 300, below it from 550 on.")
print("at step 300 x below the cosine:", bool(curves["x: evaluate"][29] < curves["AdamW, cosine"][29]),
      "  at the end z ten times above x:", bool(curves["z: steps"][-1] > 10 * curves["x: evaluate"][-1]))

# %% [markdown]
# Two more in a sentence each. **AdEMAMix** adds a second, very slow momentum (12 bytes; Apertus trained 70B with it).
# **StableAdamW** divides lr by how far a gradient exceeds what $v$ expects (notebook 08).
#
# ## 4. The whole
#
# Muon in the order of the paper:

# %%
class TinyMuon:
    def __init__(self, params, lr=1e-3, momentum=0.95, weight_decay=0.1):
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.buffers = {p: torch.zeros_like(p) for p in params}

    @torch.no_grad()
    def step(self):
        for p, B in self.buffers.items():
            B.lerp_(p.grad, 1 - self.momentum)
            u = p.grad.lerp(B, self.momentum)                      # Nesterov's look-ahead
            p.mul_(1 - self.lr * self.weight_decay)
            p.add_(newton_schulz(u.bfloat16()), alpha=-adjusted_lr(self.lr, p.shape))

weights = [torch.zeros(48, 16), torch.zeros(48, 16), torch.zeros(48, 16)]
runs = [make([w], lr=0.02) for make, w in zip((TinyMuon, Muon, torch.optim.Muon), weights)]
for gradient in torch.from_numpy(rng.standard_normal((60, 48, 16))).float():
    for w, run in zip(weights, runs):
        w.grad = gradient
        run.step()
assert compare("tiny", weights[0], weights[2], tol=0.01) and compare("library", weights[1], weights[2], tol=0.01)
print("bit for bit, after 60 steps:", torch.equal(weights[0], weights[2]) and torch.equal(weights[1], weights[2]))

# %% [markdown]
# ## 5. Against production
#
# ### 5.1 What a step costs
#
# AdamW does a dozen operations per parameter for 28 bytes moved: memory sets its time. Newton-Schulz is products. For
# $m\le n$ a step takes $2m^2n$ for $XX^\top$, $2m^3$ for its square, $2m^2n$ for the last product; five steps take
# $5(4m+2m^2/n)$ FLOPs per parameter. Forward and backward take 6 per parameter and *token*, so with a batch of $B$
# tokens:

# %%
for name, small, large, tokens in (("ByteLM here", 32, 128, 16 * 32), ("GPT-2 124M", 768, 3072, 2**19),
                                   ("Llama 3 405B", 16_384, 53_248, 2**24)):
    flops = 5 * (4 * small + 2 * small**2 / large)
    print(f"{name:13} {small:6} x {large:<6} {flops:9,.0f} FLOPs per parameter, {flops / (6 * tokens):7.2%} of a step")

# %% [markdown]
# Next to nothing beside a large batch: if the ranks divide the matrices among them. If each of 64 repeats all of it,
# its share is 64 times larger. And $X$ must be whole, which flat shards (ZeRO) cut up. On this processor:

# %% tags=["nbval-ignore-output"]
for shape in ((64, 64), (64, 256), (256, 512)):
    variants = {make.__name__: bench.step_variants([shape], device="cpu", own=make)["from scratch"]
                for make in (AdamW, Muon, Shampoo, SOAP)}
    times = bench.step_times(variants, repeats=10, warmup=2, device="cpu")
    print(shape, {name: f"{1e3 * seconds:.2f} ms" for name, seconds in times.items()}, bench.describe_device("cpu"))
    assert times["Muon"] > times["AdamW"] > 0

# %% [markdown]
# (Shampoo and SOAP decompose every tenth step; the median leaves that out.)
#
# ### 5.2 Claims, and what was left of them
#
# | claimed | measured by others |
# |---|---|
# | Sophia: half of AdamW's steps (2305.14342) | level with AdamW, both tuned (2407.07972, 2507.08472) |
# | Muon: about twice AdamW's efficiency (2502.16982) | 1.4 times at 0.1B, 1.1 times at 1.2B (2509.02046) |
# | "over AdamW", as GPT-3 set it | tuning AdamW's lr alone: up to 2 times at 0.1B (2509.02046) |
# | Shampoo, Schedule-Free | 28% and 8% less time over AlgoPerf's workloads (2502.15015) |
# | Muon halves the state | 9% of all GPU memory, Qwen2.5-3B (DeepSpeed 2026) |
#
# Both sides are contested: the studies stop at about a billion parameters, and those who train a thousand times more
# chose Muon, with AdamW for embeddings, head and norms: Kimi K2 (1T), GLM-5 (744B, each head orthogonalised by itself),
# DeepSeek-V4 (1.6T). Llama 3 and DeepSeek-V3 took AdamW. We know of no such run that was repeated with a tuned AdamW.
#
# A fair comparison, as a checklist:
#
# 1. the same number of tuning runs for each, every optimum inside its grid;
# 2. nothing carried over: lr, decay and warmup that suit one handicap another;
# 3. compared at the end of each one's own schedule, never halfway;
# 4. several seeds, an interval, paired where the seed draws data and weights;
# 5. steps, time and bytes, each named;
# 6. more than one size and length, and the trend.
#
# ### 5.3 Our own
#
# `course compare` runs the whole registry on a language model of 40 thousand parameters. It holds to 1, 3, 4 and 5;
# decay, warmup and betas are fixed ($\beta_2=0.95$ was AdamW's best of three; the others inherit it), which breaks 2, and
# there is one size. As **recorded**:

# %%
results = records.load(records.RECORDED)
made, rows = results.sessions[-1], summary.rows(results)
print(f"{made['command']}: {made['device']}, torch {made['torch']}, {made['date']}")
print(summary.table(results))
print("AdamW by seed:", [f"{loss:.2f}" for row in rows if row.key == "adamw" for loss in row.losses.values()])
points = {row.key: (round(row.bytes_per_parameter), row.loss.mean, row.loss.half) for row in rows if row.loss}
plots.show(plots.columns(points, title="Muon and SOAP end lowest, with 4 and 42 bytes per parameter",
                         xlabel="bytes of state per parameter of a 1024 x 4096 matrix, rounded",
                         ylabel="held-out loss (nats per byte)"),
           alt="Held-out loss with 95% intervals for every optimizer, in columns by bytes of state; the table above "
               "has the numbers. Muon (4 bytes) and SOAP (42) are lowest, then Shampoo (24) and Schedule-Free (8).")
ahead = {row.key for row in rows if row.difference and row.difference.mean + row.difference.half < 0}
assert {"muon", "soap"} == set(list(points)[:2]) and ahead == {"muon", "soap", "shampoo", "schedule_free"}

# %% [markdown]
# Four lead AdamW by more than the paired interval; Muon with half its bytes and 1.3 times its time per step. From RAdam
# to Adam-mini nothing is separated. But look at AdamW's own interval: one seed of five ended far off. Its rate was the
# best for the *one* tuning seed, and one seed picks the daring rate. A lead over such a baseline may well shrink.
# AdEMAMix, with a memory of 10,000 steps in a run of 700, shows that a fixed setting is what gets judged.
#
# **Live**, 50 steps, one seed, rates not tuned for that length:

# %% tags=["nbval-ignore-output"]
live = {key: runner.run_one(key, settings.find(key).rate, seed=1, steps=50) for key in ("adamw", "muon", "lion")}
print({key: f"loss {run.loss:.3f}, {run.state_bytes:,} bytes, {run.seconds:.1f} s" for key, run in live.items()})
assert live["muon"].loss < live["adamw"].loss and live["muon"].state_bytes < live["adamw"].state_bytes

# %% [markdown]
# 40 thousand parameters prove nothing about 7B: the batch is 512 bytes, training ends long before convergence, and an
# advantage that shrinks with size is largest here. What transfers are the bytes, the formulas for time, that best rates
# differ by orders of magnitude, and the procedure.
#
# ## 6. Turn the knobs
#
# Predict: which of the three polynomials has the smallest singular value nearest to 1 after five steps, at a condition
# of 10, and of 100,000? Then give each ten steps.

# %%
from course_lib import widgets

widgets.explore_newton_schulz()

# %% [markdown]
# At a condition of 10 the quintic is best: it converges. At 100,000 only Jordan's gets off the ground.
#
# ## 7. How it breaks
#
# **A bug in production.** `torch.optim.Muon` of 2.9 to 2.13 normalises Newton-Schulz's input in place. `u.bfloat16()`
# of a tensor that *is* bf16 is that tensor; without Nesterov it is the momentum itself:

# %% tags=["nbval-ignore-output"]
for make in (Muon, torch.optim.Muon):
    w = torch.zeros(8, 5, dtype=torch.bfloat16, requires_grad=True)
    w.grad = torch.ones_like(w)
    run = make([w], lr=0.02, nesterov=False)
    run.step()
    norm = run.state[w]["momentum_buffer"].float().norm().item()
    print(f"{make.__module__:24} |B| = {norm:.3f}, to be {0.05 * 40**0.5:.3f}")
    assert abs(norm - 0.05 * 40**0.5) < 2e-3 or (make is torch.optim.Muon and abs(norm - 1) < 0.02)

# %% [markdown]
# The buffer has norm 1 after every step, so old gradients weigh too much or too little, by their size. The loss still
# falls. (Pull request 194664 repairs it: a copy. Float32 weights, or Nesterov, which is the default, never had it.)
#
# **Quiet losses.** Three projections in one matrix, of which one is loud; and Schedule-Free evaluated without `eval()`,
# or trained without `train()`:

# %%
qkv = torch.cat([size * torch.from_numpy(rng.standard_normal((48, 48))) for size in (0.1, 0.1, 10)])
for name, parts in {"fused": newton_schulz(qkv).chunk(3), "split": map(newton_schulz, qkv.chunk(3))}.items():
    rms = [part.square().mean().sqrt().item() for part in parts]
    print(f"q, k, v {name}: v moves over five times farther than q: {rms[2] > 5 * rms[0]}")
print("loss at y above that at x, at the end:", bool(curves["y: gradients"][-1] > 1.03 * curves["x: evaluate"][-1]))
try:
    (run := ScheduleFreeAdamW([torch.zeros(1)])).eval()
    run.step()
except RuntimeError as refusal:
    print("ours:", str(refusal).split(":")[0])

# %% [markdown]
# **A speedup.** AdamW against AdamW, the first at a rate someone once used:

# %% tags=["nbval-ignore-output"]
untuned, tuned = runner.run_one("adamw", 0.001, 0, steps=120), runner.run_one("adamw", 0.004, 0, steps=40)
print(f"lr 0.001, 120 steps: {untuned.loss:.2f}   lr 0.004, 40 steps: {tuned.loss:.2f}   'three times faster'")
assert tuned.loss < untuned.loss

# %% [markdown]
# | mistake | in the log |
# |---|---|
# | Muon on embedding and head | the loss of rare tokens lags behind |
# | lr carried from one scaling to the other | steps 3 to 25 times off, from the first step |
# | fused q, k, v under Muon | quiet projections stand still; split them, or each head |
# | bf16, no Nesterov, torch to 2.13 | the buffer's norm is exactly 1 |
# | Schedule-Free without `eval()` | validation somewhat worse than the run is, and y is shipped |
# | Sophia's estimate from the data's labels | steps shrink like $1/g^2$, nothing is clipped |
# | baseline at its paper's lr, compared halfway | a speedup |
#
# ## 8. Your turn
#
# In `exercises/14_beyond_adam.ipynb`; each checks itself and names your mistake:
#
# | exercise | build |
# |---|---|
# | `newton_schulz` | five steps, tall and wide |
# | `muon_scale` | the factor for a shape, both modes |
# | `schedule_free_walk` | x, y and z of schedule-free SGD |
# | `muon_bug` | find the bug of section 7 and repair it |
# | `fair_speedup` | a number: what is left of a speedup after tuning the baseline |

# %% [markdown]
# ## 9. In the interview
#
# Six questions from the bank, two at a time. Say your answer aloud first, in a minute, then unfold theirs; the cell
# after each pair proves both.

# %%
from course_lib import questions

questions.show("beyond-one-family")
questions.show("beyond-newton-schulz-floor")

# %% tags=["evidence-beyond-one-family", "evidence-beyond-newton-schulz-floor"]
W = torch.zeros_like(G, requires_grad=True)
W.grad = G.clone()
Shampoo([W], lr=1.0, betas=(0.0, 1.0), eps=1e-14, grafting=None).step()
assert compare("Shampoo's step", -W, left @ right)
print("five steps make of 0.01 to 1 at least", p(np.geomspace(0.01, 1, 100_001), jordan).min().round(4))
assert 0.681 < p(np.geomspace(0.01, 1, 100_001), jordan).min() < 0.682

# %%
questions.show("beyond-muon-rate")
questions.show("beyond-newton-schulz-flops")

# %% tags=["evidence-beyond-muon-rate", "evidence-beyond-newton-schulz-flops"]
matched, original = (adjusted_lr(3e-4, (4096, 1024), mode) for mode in ("match_rms_adamw", "original"))
print(f"lr in mode original: {3e-4 * matched / original:.5f}; the reverse shape: "
      f"{3e-4 * matched / adjusted_lr(3e-4, (1024, 4096)):.5f}")
share = 5 * (2 + 2 + 2) * 768**3 / (6 * 768**2 * 2**19)
print(f"Newton-Schulz at width 768: {share:.3%}")
assert math.isclose(share, 5 * 768 / 2**19) and math.isclose(matched / original, 6.4)

# %%
questions.show("beyond-twice-as-fast")
questions.show("beyond-three-points")

# %% tags=["evidence-beyond-twice-as-fast", "evidence-beyond-three-points"]
assert tuned.loss < untuned.loss      # AdamW against AdamW, in a third of the steps
w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
run, z = ScheduleFreeAdamW([w], lr=0.1), []
for _ in range(50):
    w.grad = w.detach() - 1
    run.step()
    z.append(run.state[w]["z"].item())
y = w.item()
run.eval()
assert np.isclose(w.item(), np.mean(z)) and np.isclose(y, 0.1 * z[-1] + 0.9 * w.item())

# %% [markdown]
# ## 10. Sources
#
# - Chen et al. 2023, Lion (2302.06675). Liu et al. 2023, Sophia (2305.14342).
# - Gupta et al. 2018, Shampoo (1802.09568); Shi et al. 2023 (2309.06497); Vyas et al. 2024, SOAP (2409.11321).
# - Jordan et al. 2024, *Muon* (kellerjordan.github.io/posts/muon); Liu et al. 2025, *Muon is Scalable* (2502.16982),
#   section 2.2: scaling; Bernstein & Newhouse 2024, *Old Optimizer, New Norm* (2409.20325).
# - Kimi Team 2025, Kimi K2 (2507.20534), section 2.1: QK-clip. GLM-5 Team 2026 (2602.15763). DeepSeek-AI 2026,
#   DeepSeek-V4, report. Apertus 2025 (2509.14233).
# - Defazio et al. 2024, *The Road Less Scheduled* (2405.15682). Pagliardini et al. 2024, AdEMAMix (2409.03137).
# - Comparisons: Wen et al. 2025, *Fantastic Pretraining Optimizers* (2509.02046); Semenov et al. 2025 (2509.01440);
#   Zhao et al. 2024 (2407.07972); Schlotthauer et al. 2025 (2507.08472); Kasimbeg et al. 2025, AlgoPerf (2502.15015).
# - *Using Muon Optimizer with DeepSpeed*, 2026 (blog). pytorch/pytorch, pull request 194664.
#
# Contested: whether Muon's gain survives scale (5.2); why orthogonalising helps at all; whether a model that AdamW
# trained may be fine-tuned with Muon (2605.10468 finds it worse unless confined to LoRA).
