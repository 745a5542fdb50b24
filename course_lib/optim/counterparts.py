"""Production counterparts of what torch.optim lacks: other packages' optimizers behind the course's argument names.

Each function takes the arguments of the course's own class, where the package has them, with the same defaults;
further ones are passed on. The package is imported when the function is called, so that importing the registry costs
nothing.

pytorch_optimizer differs in two habits from torch.optim. It writes into gradients (``maximize`` negates them in place,
some rules use them as scratch space), so give it gradients that nothing else needs. And it counts steps by group, not
by parameter, so that a parameter without a gradient ages.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from course_lib.optim.adam_mini import count_blocks


def package(name: str, what: str) -> ModuleType:
    """Import the package ``name`` for the counterpart of the optimizer ``what``.

    Raises:
        ModuleNotFoundError: it is not installed; the message says how to get it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModuleNotFoundError(
            f"The production counterpart of {what} needs the package {name}: pip install 'course_lib[references]'",
            name=name,
        ) from error


def lars(
    params: ParamsT,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's LARS: without ``eps``, and vectors and scalars go by plain momentum without decay."""
    return package("pytorch_optimizer", "LARS").LARS(
        params, lr=lr, momentum=momentum, weight_decay=weight_decay, trust_coefficient=trust_coefficient, **more
    )


def lamb(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's Lamb, with decay and step as near to the paper's as its options allow.

    It has no bias correction and cuts weight norms at 10. Its defaults would take the decay out of the normalised
    update, and divide the normalised step by 1 - beta1^t: ten times lr at first.
    """
    return package("pytorch_optimizer", "LAMB").Lamb(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
        **{"weight_decouple": False, "adam_debias": True} | more,
    )


def lion(
    params: ParamsT,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's Lion."""
    return package("pytorch_optimizer", "Lion").Lion(params, lr=lr, betas=betas, weight_decay=weight_decay, **more)


def stable_adamw(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's StableAdamW, without the Kahan summation that it adds for 16-bit weights."""
    return package("pytorch_optimizer", "StableAdamW").StableAdamW(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, **{"kahan_sum": False} | more
    )


def ademamix(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    alpha: float = 5.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    alpha_warmup: int | None = None,
    beta3_warmup: int | None = None,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's AdEMAMix with decoupled decay.

    Raises:
        ValueError: the two warmups differ, for which it has one argument.
    """
    if alpha_warmup != beta3_warmup:
        raise ValueError(
            f"Invalid alpha_warmup: {alpha_warmup!r} beside beta3_warmup={beta3_warmup!r}. "
            "Allowed: the same for both; pytorch_optimizer's AdEMAMix has one warmup for alpha and beta3."
        )
    return package("pytorch_optimizer", "AdEMAMix").AdEMAMix(
        params, lr=lr, betas=betas, alpha=alpha, eps=eps, weight_decay=weight_decay, t_alpha_beta3=alpha_warmup,
        **{"weight_decouple": True} | more,
    )


def schedule_free(
    params: ParamsT,
    lr: float = 0.0025,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    warmup_steps: int = 0,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's ScheduleFreeAdamW; it takes a step in evaluation mode too, and adds 1e-15 to v_hat."""
    return package("pytorch_optimizer", "Schedule-Free AdamW").ScheduleFreeAdamW(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, warmup_steps=warmup_steps, **more
    )


def soap(
    params: ParamsT,
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10_000,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's SOAP."""
    return package("pytorch_optimizer", "SOAP").SOAP(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, precondition_frequency=precondition_frequency,
        max_precondition_dim=max_precondition_dim, **more,
    )


def came(
    params: ParamsT,
    lr: float = 2e-4,
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
    eps: tuple[float, float] = (1e-30, 1e-16),
    clip_threshold: float = 1.0,
    weight_decay: float = 0.0,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's CAME."""
    return package("pytorch_optimizer", "CAME").CAME(
        params, lr=lr, betas=betas, eps1=eps[0], eps2=eps[1], clip_threshold=clip_threshold,
        weight_decay=weight_decay, **more,
    )


def adam_mini(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    blocks: int | None = None,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's AdamMini with the blocks of the course's: a group for each tensor, state in float32.

    It takes a model and tells the blocks from names. Here every tensor of several blocks goes by the name of a query,
    in whose heads it is cut; such a tensor must be a contiguous matrix.

    Raises:
        ValueError: a tensor of several blocks is no matrix, or the blocks do not divide it.
    """
    mini = package("pytorch_optimizer", "Adam-mini").AdamMini
    given = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "blocks": blocks}
    named, own = [], []
    for group in groups:
        group = settings | group
        for param in [group["params"]] if isinstance(group["params"], torch.Tensor) else group["params"]:
            count = count_blocks(tuple(param.shape), group["blocks"])
            if count > 1 and param.dim() != 2:
                raise ValueError(
                    f"Invalid shape: {tuple(param.shape)} in {count} blocks. Allowed: matrices, or one block; "
                    "pytorch_optimizer's AdamMini cuts nothing else."
                )
            named.append(("q_proj.weight" if count > 1 else "whole", param))
            heads = {"parameter_per_head": param.numel() // count} if count > 1 else {}
            own.append(group | {"params": [param]} | heads)
    optimizer = mini(SimpleNamespace(named_parameters=lambda: named), lr=lr, betas=betas, eps=eps, **more)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    return optimizer


def adamw8bit(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    block: int = 256,
    min_size: int = 4096,
    **more: Any,
) -> torch.optim.Optimizer:
    """bitsandbytes' AdamW8bit; its kernel for the CPU stores no exact zeros.

    Raises:
        ValueError: ``block`` is not 256, which it has built in.
    """
    if block != 256:
        raise ValueError(f"Invalid block: {block!r}. Allowed: 256; bitsandbytes' 8-bit optimizers have no other.")
    return package("bitsandbytes", "8-bit AdamW").optim.AdamW8bit(
        params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, min_8bit_size=min_size, **more
    )


def sophia(
    params: ParamsT,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.965, 0.99),
    rho: float = 0.04,
    weight_decay: float = 0.1,
    eps: float = 1e-12,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's SophiaH, with estimates given to it: ``step(hessian=[...])`` instead of update_hessian.

    It clips at rho where the course's clips at one, so that its lr is larger by 1 / rho, and it rescales by that.
    """
    return package("pytorch_optimizer", "Sophia").SophiaH(
        params, lr=lr / rho, betas=betas, p=rho, weight_decay=weight_decay * rho, eps=eps / rho,
        **{"update_period": sys.maxsize} | more,
    )


def shampoo(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.0, 1.0),
    eps: float = 1e-12,
    weight_decay: float = 0.0,
    precondition_frequency: int = 1,
    grafting: None = None,
    **more: Any,
) -> torch.optim.Optimizer:
    """pytorch_optimizer's Shampoo, which is the paper's Algorithm 1 alone, with decoupled decay.

    Its ScalableShampoo has blocks, averages and grafting, but none that agrees with Shi et al. 2023.

    Raises:
        ValueError: averages, grafting, or roots that are not computed at each step are asked for.
    """
    if tuple(betas) != (0.0, 1.0) or grafting is not None or precondition_frequency != 1:
        raise ValueError(
            f"Invalid arguments: betas={betas!r}, grafting={grafting!r}, precondition_frequency="
            f"{precondition_frequency!r}. Allowed: (0.0, 1.0), None and 1; pytorch_optimizer's Shampoo is Algorithm 1."
        )
    return package("pytorch_optimizer", "Shampoo").Shampoo(
        params, lr=lr, matrix_eps=eps, weight_decay=weight_decay, **{"weight_decouple": True} | more
    )
