"""The number asked for in the exercises of notebook 12."""

from __future__ import annotations

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import OTHER_SPECIFICATION

_LAUNCH, _BANDWIDTH = 5e-6, 3.35e12  # seconds, bytes per second
_MOVED = _LAUNCH * _BANDWIDTH  # bytes that are moved while one launch is made
_RIGHT = _MOVED / 28
_BYTES = "Which tensors does a fused AdamW read, and which does it write? Four bytes an element each."
_UNITS = "5 microseconds are 5e-6 s, and 3.35 TB/s are 3.35e12 bytes per second."
_LAUNCHES = "A fused step makes one launch for each tensor."


def _bytes(count: int, code: str, what: str) -> Slip:
    return Slip(_MOVED / count, code, f"That is right for {count} bytes an element: {what}.", _BYTES)


ANSWERS: dict[str, Answer] = {
    "crossing_elements": Answer(
        _RIGHT,
        1e-3,
        "elements",
        (
            _bytes(12, "sgd", "a plain SGD's, or what AdamW writes"),
            _bytes(14, "half-the-bytes", "all numbers in bfloat16, or a bandwidth that was doubled"),
            _bytes(16, "reads-alone", "what AdamW reads, or what it holds, each counted once"),
            _bytes(20, "momentum", "SGD's with momentum, or one of AdamW's two moments forgotten"),
            _bytes(24, "gradient-missing", "the gradient is forgotten, or something else that is moved once"),
            _bytes(32, "gradient-written", "the gradient is read and written, and it is only read"),
            _bytes(80, "not-fused", "those of eight separate kernels, whose intermediate results go through memory"),
            _bytes(112, "four-times-four", "28 are bytes already, and were multiplied by four"),
            _bytes(4, "one-float", "one number of float32"),
            _bytes(8, "parameter-alone", "the parameter alone is read and written"),
            Slip(_MOVED, "bytes", "That many bytes are moved in 5 microseconds.", "How many bytes has an element?"),
            Slip(_MOVED / 7, "floats-for-bytes", "That divides by 7 numbers an element.",
                 "Each of the 7 has four bytes."),
            Slip(_MOVED / 28 / 8, "bits", "That counts 28 bits, or 224 bytes, an element.", _BYTES),
            Slip(8 * _MOVED / 28, "eight-launches", "That is right for eight launches a tensor.", _LAUNCHES),
            Slip(8 * _MOVED / 80, "loop", "That is right for eight launches and 80 bytes: a step that is not fused.",
                 _LAUNCHES),
            Slip(_RIGHT * 1e3, "thousand-too-large", "That is a thousand times too large: milliseconds, or PB/s.",
                 _UNITS),
            Slip(_RIGHT / 1e3, "thousand-too-small", "That is a thousand times too small: nanoseconds, or GB/s.",
                 _UNITS),
            Slip(_RIGHT * 1e6, "microseconds-as-seconds", "That takes 5 microseconds for 5 seconds.", _UNITS),
            Slip(_LAUNCH * 3.35 * 2**40 / 28, "tebibytes", "That is right where a TB is 2^40 bytes.",
                 "1 TB is 1e12 bytes.", OTHER_SPECIFICATION),
            Slip(28 / _MOVED, "upside-down", "That is the inverse.",
                 "The launch takes 5e-6 s. How many elements are moved in that time?"),
            Slip(_LAUNCH / _BANDWIDTH * 28, "divided-by-bandwidth", "That divides the launch by the bandwidth.",
                 "n * 28 / 3.35e12 seconds for the bytes: set it equal to 5e-6 and solve for n."),
        ),
    ),
}  # fmt: skip
