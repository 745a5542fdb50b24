"""The engines that production uses, each behind the methods of this course's own ones.

Used on every rank alike, like :class:`course_lib.parallel.base.Engine`, but for the optimizer, which is one of
``torch.optim``::

    engine = FSDP2(model, comm, torch.optim.AdamW, lr=1e-3)
    loss_of(engine.model, batch).backward()
    engine.clip_grad_norm_(1.0)
    engine.step()
    engine.zero_grad()
"""

from course_lib.parallel.production.ddp import TorchDDP, TorchZero
from course_lib.parallel.production.deepspeed import DeepSpeedEngine
from course_lib.parallel.production.fsdp2 import FSDP2

__all__ = ["FSDP2", "DeepSpeedEngine", "TorchDDP", "TorchZero"]
