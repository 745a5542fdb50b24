"""The language model with a window on its attention, and with QK-norm to choose."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.problems.lm import Block, ByteLM, LMConfig


class WatchedBlock(Block):
    """A :class:`~course_lib.problems.lm.Block` that notes its largest attention logit at each forward pass.

    Args:
        config: the size.
        qk_norm: normalise each head's queries and keys to root mean square 1, times a learned gain that starts at 1,
            before the product (RMSNorm; Henry et al. 2020, arXiv 2010.04245, normalise to length 1; Dehghani et al.
            2023, 2302.05442, use LayerNorm). At gain 1 no logit is larger than sqrt(width / heads).

    Attributes:
        largest_logit: of the last forward pass: the largest |q . k| / sqrt(width / heads) over batch, heads and the
            pairs of positions that the causal mask leaves; NaN if one of them is.
    """

    def __init__(self, config: LMConfig, qk_norm: bool) -> None:
        super().__init__(config)
        size = config.width // config.heads
        # The eps is explicit: torch's default is that of the input's dtype, so it would change under autocast.
        self.query_norm = nn.RMSNorm(size, eps=1e-6) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(size, eps=1e-6) if qk_norm else nn.Identity()
        self.largest_logit = 0.0

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = self.attention_in(self.attention_norm(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, key = self.query_norm(query), self.key_norm(key)
        with torch.no_grad():
            logits = query.float() @ key.float().transpose(-1, -2) / math.sqrt(width // self.heads)
            self.largest_logit = logits.tril().abs().amax().item()
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))


class WatchedLM(ByteLM):
    """A :class:`~course_lib.problems.lm.ByteLM` of watched blocks: the same weights for a seed, the same outputs.

    Args:
        config: the size.
        seed: of the weights.
        qk_norm: see :class:`WatchedBlock`; adds 2 * layers * width / heads parameters.
    """

    def __init__(self, config: LMConfig = LMConfig(), seed: int = 0, qk_norm: bool = False) -> None:
        super().__init__(config, seed)
        blocks = nn.ModuleList(WatchedBlock(config, qk_norm) for _ in range(config.layers))
        blocks.load_state_dict(self.blocks.state_dict(), strict=False)  # gains of QK-norm are not in it
        self.blocks = blocks

    @property
    def largest_logit(self) -> float:
        """The largest attention logit of any block in the last forward pass."""
        logits = [block.largest_logit for block in self.blocks]
        return math.nan if any(map(math.isnan, logits)) else max(logits)
