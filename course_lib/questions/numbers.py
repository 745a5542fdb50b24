"""Numbers as people write them: "112GB", "1.12e11", "104 GiB", "28 + 84/64 GB", "1.12×10^11", "一百一十二 GB"."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from course_lib.questions.schema import Text


class BadAnswer(ValueError):
    """An answer that cannot be read. The message says what was written and what can be read, in ``text``'s languages."""

    def __init__(self, text: Text) -> None:
        super().__init__(text.en)
        self.text = text


@dataclass(frozen=True)
class Unit:
    """A unit: what it measures, and how many of the base unit it is."""

    measures: str
    factor: float


def _units() -> dict[str, Unit]:
    units = {"b": Unit("bytes", 1), "byte": Unit("bytes", 1), "bytes": Unit("bytes", 1), "字节": Unit("bytes", 1),
             "bit": Unit("bytes", 1 / 8), "bits": Unit("bytes", 1 / 8), "比特": Unit("bytes", 1 / 8),
             "%": Unit("share", 0.01), "percent": Unit("share", 0.01), "per cent": Unit("share", 0.01)}
    for power, letter in enumerate("kmgtp", start=1):
        units[f"{letter}b"] = Unit("bytes", 1000**power)
        units[f"{letter}ib"] = Unit("bytes", 1024**power)
        units[f"{letter}bit"] = Unit("bytes", 1000**power / 8)
    seconds = {"ns": 1e-9, "us": 1e-6, "μs": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "sec": 1, "second": 1, "seconds": 1,
               "秒": 1, "毫秒": 1e-3, "微秒": 1e-6, "min": 60, "minutes": 60, "分钟": 60, "h": 3600, "hours": 3600,
               "小时": 3600, "days": 86400, "天": 86400}
    return units | {name: Unit("time", factor) for name, factor in seconds.items()}


UNITS = _units()
"""Units by their names in lower case. A bare letter for bytes (G, T) is read as GB, TB where bytes are asked for."""

COUNTS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "k": 1e3, "m": 1e6, "bn": 1e9,
          "万": 1e4, "百万": 1e6, "千万": 1e7, "亿": 1e8, "十亿": 1e9, "万亿": 1e12}
"""Words for powers of ten that may follow a number."""

_CHINESE = "零〇一二两三四五六七八九十百千"
_NUMBER = r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?"
_SUM = re.compile(rf"(?:[\s()+\-*/]|{_NUMBER})+")


def unit_of(name: str) -> Unit | None:
    """The unit of that name, None where it is none of :data:`UNITS`: steps, lr, a ratio."""
    return UNITS.get(name.strip().lower())


def read(text: str) -> tuple[float, str]:
    """A number and the words behind it, which may be its unit.

    Sums and fractions such as "4*7 + 84/64" are worked out; thousands may be set apart by commas.

    Raises:
        BadAnswer: there is no number at the beginning.
    """
    plain = unicodedata.normalize("NFKC", text).strip().replace("−", "-").replace("×", "*").replace("·", "*")
    plain = re.sub(r"^(?:about|approximately|roughly|around|约|大约|大概|差不多|~|≈|=)\s*", "", plain, flags=re.IGNORECASE)
    plain = re.sub(r"\*?\s*10\s*(?:\^|\*\*)\s*\(?(-?\d{1,3})\)?", r"e\1", _chinese(plain))
    plain = re.sub(r"(?<=\d)\s+e(?=-?\d)", "e", plain)
    plain = re.sub(r"^e(?=-?\d)", "1e", plain)
    found = _SUM.match(plain.lower())
    if not found or not re.search(r"\d", found.group()):
        raise _unreadable(text)
    value = _work_out(found.group().replace(",", "").strip(), text)
    rest = plain[found.end() :].strip()
    for word in sorted(COUNTS, key=len, reverse=True):
        if match := re.match(rf"{re.escape(word)}(?![a-zA-Z])\s*", rest, flags=re.IGNORECASE):
            return value * COUNTS[word], rest[match.end() :].strip()
    return value, rest


def _work_out(formula: str, text: str) -> float:
    import sympy  # torch brings it

    try:
        value = complex(sympy.sympify(formula))
    except (sympy.SympifyError, SyntaxError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise _unreadable(text) from None
    if value.imag or value.real - value.real != 0:  # an infinity or no number at all
        raise _unreadable(text)
    return value.real


def _chinese(text: str) -> str:
    """The number in Chinese characters at the beginning, if there is one, in digits."""
    found = re.match(rf"[{_CHINESE}][{_CHINESE}点万亿]*", text)
    if not found:
        return text
    try:
        import cn2an
    except ImportError:
        raise BadAnswer(Text(en=f"{text!r} is in characters. Allowed: digits, as in 112 GB.",
                             zh=f"“{text}”是汉字数字。请用阿拉伯数字，比如 112 GB。")) from None
    try:
        return f"{cn2an.cn2an(found.group(), 'smart')}{text[found.end():]}"
    except ValueError:
        raise _unreadable(text) from None


def _unreadable(text: str) -> BadAnswer:
    return BadAnswer(Text(
        en=f"{text.strip()!r} is no number that can be read. Allowed: a number, and a unit if you like, as in 112 GB, "
           "1.12e11 or 28 + 84/64.",
        zh=f"“{text.strip()}”读不出数字。请写一个数，可以带单位，比如 112 GB、1.12e11 或 28 + 84/64。"))
