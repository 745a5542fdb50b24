"""What became of a rank that did not end well: how it says so itself, and how the run's error tells it.

A rank that raises writes a :class:`Failure` into the run's folder; for one that dies without a word, the launcher makes
one from its exit code. Frames travel as (file, line, function), so that the launcher, which knows the cells of its
notebook, adds the source. Nothing here imports torch: the command supervises its ranks without it.
"""

from __future__ import annotations

import json
import linecache
import os
import re
import signal
import sysconfig
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

Frame = tuple[str, int, str]
"""File, line and function of one call."""

MOST_FRAMES = 8
MOST_CAUSES = 3

# What gloo, NCCL and torch's stores say on a rank whose partner is gone or does not answer.
_LOST = re.compile(
    r"connection (was )?(closed|reset|refused|aborted|lost)|broken pipe|timed out|did not meet|connectFullMesh|"
    r"recvValue failed|sendBytes failed|ncclRemoteError|remote process exited|communicator was aborted", re.IGNORECASE
)
_LIBRARIES = tuple(
    {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
_TORCH = os.path.join("torch", "distributed", "")
_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
_COMM, _OWN = os.path.join(_HERE, "comm.py"), {os.path.join(_HERE, name) for name in ("child.py", "failures.py")}
_BLOCK = re.compile(r"most recent call first\):\n((?:  File .*\n?)+)")
_LINE = re.compile(r'  File "(.*)", line (\d+) in (.*)')


class RankError(RuntimeError):
    """A run on several ranks did not end well. The message begins with the rank that failed first.

    Attributes:
        rank: that rank; None where the time was up before any rank had failed.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


@dataclass(frozen=True)
class Failure:
    """Why one rank ended.

    Attributes:
        what: what it did, as "raised ValueError: no such layer"; goes after "Rank 1 of 2".
        when: seconds since 1970.
        lost: whether this is what a rank sees when another one is gone: a consequence, if any rank failed otherwise.
        causes: the error and those that it came from, the first one first: frames, text, and the
            sentence that leads to the next one.
    """

    what: str
    when: float = field(default_factory=time.time)
    lost: bool = False
    causes: Sequence[tuple[Sequence[Frame], str, str]] = ()

    def write(self, path: Path) -> None:
        """Write this as JSON; readers see all of it or nothing."""
        write_whole(path, json.dumps(asdict(self)).encode())

    @staticmethod
    def read(path: Path) -> Failure:
        """What :meth:`write` wrote."""
        return Failure(**json.loads(path.read_text()))

    def traceback(self, rank: int) -> str:
        """The error's last frames, the innermost last, as Python prints them; empty where nothing is known."""
        shown = []
        for frames, text, sentence in self.causes:
            own = _without_libraries(frames)
            if own:
                shown.append("\n".join([f"Rank {rank}, most recent call last:", *_source(own), text]))
            elif "\n" in text:  # a script that cannot be parsed; of one line, the message begins with it
                shown.append(text)
            if sentence and shown:
                shown.append(sentence)
        return "\n\n".join(shown)


def raised(error: BaseException, what: str = "") -> Failure:
    """The failure of a rank in which ``error`` was raised; ``what`` says it otherwise than "raised ...".

    Call it where the error was caught: its frames are those that it passed through.
    """
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, SyntaxError):
        first = error.msg
    chain, sentences = [error], [""]
    while len(chain) < MOST_CAUSES:
        last = chain[-1]
        cause = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if cause is None or cause in chain:
            break
        chain.append(cause)
        sentences.append("From this came:" if last.__cause__ else "While this was handled, there came:")
    causes = [(_frames(one.__traceback__), "".join(traceback.format_exception_only(one)).strip(), sentence)
              for one, sentence in zip(chain, sentences, strict=True)]
    lost = any(isinstance(one, (RuntimeError, OSError)) and bool(_LOST.search(str(one))) for one in chain)
    if lost:  # gloo puts a path of its own before what happened, and advice after it
        first = re.sub(r"^\[[^]]*\.cc:\d+\] ", "", first).partition(". This is typically")[0]
    return Failure(what or f"raised {_name(error)}{': ' * bool(first)}{first}", lost=lost, causes=causes[::-1])


def died(code: int, before: str, dump: str = "") -> Failure:
    """The failure of a process that ended with ``code`` (negative: the signal's number) and left no word.

    Args:
        code: as ``subprocess`` has it.
        before: what it had yet to do, as "before it returned".
        dump: the stack that Python wrote as the process crashed, if it did.
    """
    if code >= 0:
        return Failure(f"exited with code {code} {before}".strip())
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown here"
    what = f"was killed by signal {-code} ({name}){'; the system does so where memory runs out' if code == -9 else ''}"
    frames = frames_of(dump)
    return Failure(what, causes=[(frames[::-1], f"Signal {-code}: {name}", "")] if frames else ())


def root(failures: dict[int, Failure]) -> int:
    """The rank that failed first, and not because another one was gone."""
    return min(failures, key=lambda rank: (failures[rank].lost, failures[rank].when, rank))


def frames_of(dump: str) -> list[Frame]:
    """The main thread's frames, the innermost first, in the last of what faulthandler wrote."""
    blocks = _BLOCK.findall(dump)  # the main thread, being the oldest, comes last
    return [(file, int(line), name) for file, line, name in _LINE.findall(blocks[-1])] if blocks else []


def doing(frames: Sequence[Frame], tense: str = "is") -> str:
    """Where a rank is, in half a sentence: "waits at file.py:12 in all_reduce", "is at file.py:30 in f".

    Args:
        frames: the innermost first, as :func:`frames_of` returns them.
        tense: "is" or "was".
    """
    waits = "waits" if tense == "is" else "was waiting"
    call = ""
    for file, line, name in frames:
        if file in _OWN:
            break
        if not _is_library(file) and file != _COMM:
            place = f"{_short(file)}:{line}"
            return f"{waits} at {place} in {call}" if call else f"{tense} at {place} in {name}"
        if (file == _COMM or _TORCH in file) and name not in ("<module>", "_meeting", "wrapper"):
            call = name
    return f"{waits} for the others to start" if call else f"{'has' if tense == 'is' else 'had'} not begun"


def stack(frames: Sequence[Frame], rank: int) -> str:
    """The same frames as :meth:`Failure.traceback` shows those of an error; empty where there is none to show."""
    own = _without_libraries(frames[::-1])
    return "\n".join([f"Rank {rank}, most recent call last:", *_source(own)]) if own else ""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is there with all its content, or not at all."""
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content)
    os.replace(draft, path)


def _name(error: BaseException) -> str:
    kind = type(error)
    known = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"


def _frames(trace: TracebackType | None) -> list[Frame]:
    return [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_tb(trace)]


def _is_library(file: str) -> bool:
    return file.startswith("<frozen") or os.path.realpath(file).startswith(_LIBRARIES) and not file.startswith(_HERE)


def _without_libraries(frames: Sequence[Frame]) -> list[Frame]:
    """Frames, the outermost first, without those of Python, of packages and of the launcher."""
    begin = max((place + 1 for place, frame in enumerate(frames) if frame[0] in _OWN), default=0)
    return [frame for frame in frames[begin:] if not _is_library(frame[0])][-MOST_FRAMES:]


def _source(frames: Sequence[Frame]) -> list[str]:
    shown = []
    for file, line, name in frames:
        shown.append(f'  File "{_short(file, whole=True)}", line {line}, in {name}')
        if text := linecache.getline(file, line).strip():
            shown.append(f"    {text}")
    return shown


def _short(file: str, whole: bool = False) -> str:
    """A file's name as one reads it: of a notebook's cell, which bears a number of the process, "cell"; of the course
    alike wherever it lies."""
    if re.search(r"ipykernel_\d+|<ipython-input", file):
        return "cell"
    if not whole:
        return os.path.basename(file)
    return os.path.relpath(file, _ROOT) if file.startswith(os.path.join(_ROOT, "course_lib", "")) else file
