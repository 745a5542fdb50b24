"""What a learner might type into the AdamW exercise: once right, once with the best-known mistake."""

_ADAMW = '''import torch

class AdamW:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        params = list(params)
        groups = params if params and isinstance(params[0], dict) else [{{"params": params}}]
        defaults = {{"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}}
        self.param_groups = [defaults | group | {{"params": list(group["params"])}} for group in groups]
        self.state = {{}}

    def zero_grad(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            lr, eps = group["lr"], group["eps"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state.setdefault(p, {{"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)}})
                state["t"] += 1
                p.mul_(1 - lr * group["weight_decay"])
                state["m"].mul_(beta1).add_(p.grad, alpha=1 - beta1)
                state["v"].mul_(beta2).add_(p.grad**2, alpha=1 - beta2)
                m_hat = state["m"] / (1 - beta1 ** state["t"])
                v_hat = state["v"] / (1 - beta2 ** state["t"])
                p.sub_(lr * m_hat / {denominator})
'''

RIGHT = _ADAMW.format(denominator="(v_hat.sqrt() + eps)")
EPS_INSIDE_ROOT = _ADAMW.format(denominator="(v_hat + eps).sqrt()")
