"""What is alive during a backward pass, in bytes by name, and the highest it ever was."""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.memory import kept
from course_lib.memory.kept import Run


@dataclass(frozen=True)
class Peak:
    """The moment of a forward and backward pass at which most is held.

    Attributes:
        saved: bytes kept since the forward pass, by tensor, all layers together.
        working: bytes of everything else beside the model's states: gradients of activations, a weight's gradient
            before it is added to ``.grad``, what recomputation made again.
        moment: where this is: "cross-entropy", "head", "block 12 of 12: MLP", ..., "embedding".
        gradients: bytes of weight gradients that exist at this moment; 0 where gradients are kept between steps,
            because they are then part of the model's states at all times.
    """

    saved: dict[str, int]
    working: dict[str, int]
    moment: str
    gradients: int = 0

    @property
    def total(self) -> int:
        """All of it in bytes."""
        return sum(self.saved.values()) + sum(self.working.values()) + self.gradients


class Tape:
    """What is alive, and the highest it ever was. Gradients of weights come and go, or stay until the end."""

    def __init__(self, run: Run, keep_gradients: bool) -> None:
        self.run, self.keep_gradients = run, keep_gradients
        a = run.architecture
        # Of two kinds of layer at most; each is asked for once.
        kinds = {dense: kept.of_layer(run, 0 if dense else -1) for dense in {run.is_dense(0), run.is_dense(-1)}}
        self.layers = [kinds[run.is_dense(number)] for number in range(a.layers)]
        self.outside = kept.of_model(run)
        self.saved = dict(self.outside)
        for dense, layer in kinds.items():
            copies = sum(run.is_dense(number) == dense for number in range(a.layers))
            for name, nbytes in layer.items():
                self.saved[name] = self.saved.get(name, 0) + copies * nbytes
        self.working: dict[str, int] = {}
        self.gradients = 0
        self.now = sum(self.saved.values())
        self.moment = ""
        self.peak = Peak({}, {}, "")
        self._highest = -1

    def make(self, name: str, nbytes: int) -> None:
        self.working[name] = nbytes
        self._rise(nbytes)

    def drop(self, *names: str) -> None:
        self.now -= sum(self.working.pop(name) for name in names)

    def rename(self, old: str, new: str) -> None:
        self.working[new] = self.working.pop(old)

    def free(self, layer: dict[str, int], *names: str) -> None:
        """Let go of what was kept of a layer, or of what recomputation made in its stead."""
        for name in names:
            if f"{name}, again" in self.working:
                self.drop(f"{name}, again")
            elif name in layer and self.saved[name]:
                self.saved[name] -= layer[name]
                self.now -= layer[name]

    def free_cast(self, nbytes: int) -> None:
        """Let go of autocast's 16-bit copy of a weight."""
        where = self.working if "16-bit weights, again" in self.working else self.saved
        where["16-bit weights, again" if where is self.working else "16-bit weights"] -= nbytes
        self.now -= nbytes

    def weight(self, elements: int) -> None:
        """The gradient of a weight appears, in the weight's own format."""
        if self.keep_gradients:
            self.make("weight gradient", self.run.residual * elements)
        else:
            self.gradients += self.run.residual * elements
            self._rise(self.run.residual * elements)

    def add(self) -> None:
        """The gradient of a weight is added to the one that was kept, and goes."""
        if self.keep_gradients:
            self.drop("weight gradient")

    def linear(
        self,
        layer: dict[str, int],
        matrix: int,
        bias: int,
        given: str,
        makes: str,
        nbytes: int,
        *frees: str,
        wide: bool = False,
    ) -> None:
        """A linear layer's way back. ``add`` follows, once the gradient of its input has been used.

        Args:
            layer, frees: what was kept for it.
            matrix, bias: elements of its weights.
            given: the gradient of its output, which goes.
            makes, nbytes: the gradient of its input.
            wide: under autocast the input was cast from 32 bits, and its gradient goes back to them.
        """
        self.make(makes, nbytes)
        if not self.run.autocast:
            self.weight(matrix + bias)
        else:
            self.make("weight gradient, 16 bits", 2 * (matrix + bias))
        self.drop(given)
        self.free(layer, *frees)
        if self.run.autocast:
            self.free_cast(2 * matrix)
            if wide:
                self.make("wide", 2 * nbytes)
                self.drop(makes)
                self.rename("wide", makes)
            self.weight(matrix + bias)
            self.drop("weight gradient, 16 bits")

    def narrow(self) -> str:
        """The gradient of the residual stream as a branch gets it; its name. Under autocast a copy in 16 bits."""
        name = "gradient, 16 bits" if self.run.autocast else "gradient, as it is"
        self.make(name, self.working["gradient"] // 2 if self.run.autocast else 0)
        return name

    def _rise(self, nbytes: int) -> None:
        self.now += nbytes
        if self.now > self._highest:
            self._highest = self.now
            alive = [{name: size for name, size in part.items() if size} for part in (self.saved, self.working)]
            self.peak = Peak(*alive, self.moment, self.gradients)
