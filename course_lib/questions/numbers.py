"""Numbers as people write them: "112GB", "104 GiB", "4*7 + 84/64 = 29.3 GB", "1.12×10¹¹", "1/√0.1 lr", "约 3.3 万步"."""

from __future__ import annotations

import ast
import math
import operator
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
    units = {name: Unit("bytes", 1) for name in ("b", "byte", "字节")} | {name: Unit("bytes", 1 / 8) for name in ("bit", "比特")}
    for power, (prefix, chinese) in enumerate(zip(("kilo", "mega", "giga", "tera"), "千兆吉太", strict=True), start=1):
        for name in (f"{prefix[0]}b", f"{prefix[0]}byte", f"{prefix}byte", f"{chinese}字节"):
            units[name] = Unit("bytes", 1000**power)
        units |= {name: Unit("bytes", 1024**power) for name in (f"{prefix[0]}ib", f"{prefix[:2]}bibyte")}
        units |= {name: Unit("bytes", 1000**power / 8) for name in (f"{prefix[0]}bit", f"{prefix}bit")}
    seconds = {1e-9: "ns nanosecond 纳秒", 1e-6: "us μs usec microsecond 微秒", 1e-3: "ms msec millisecond 毫秒",
               1: "s sec second 秒", 60: "min minute 分钟", 3600: "h hour 小时", 86400: "day 天"}
    return (units | {name: Unit("time", factor) for factor, names in seconds.items() for name in names.split()}
            | {name: Unit("share", 0.01) for name in ("%", "percent", "pct")} | {"成": Unit("share", 0.1)}
            | {"千兆字节": Unit("bytes", 1e9), "‰": Unit("share", 0.001), "lr": Unit("lr", 1), "η": Unit("lr", 1)}
            | {name: Unit("steps", 1) for name in ("step", "步")})


UNITS = _units()
"""Units by their names in lower case, in the singular."""

COUNTS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "k": 1e3, "m": 1e6, "bn": 1e9, "百": 1e2,
          "千": 1e3, "万": 1e4, "百万": 1e6, "千万": 1e7, "亿": 1e8, "十亿": 1e9, "万亿": 1e12}
"""Words for powers of ten that may follow a number."""

_N = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_CHINESE = "[零〇一二两三四五六七八九十百千][零〇一二两三四五六七八九十百千点万亿]*"
_LEAD = r"^((?:大?约|大概|差不多|一?共|总共?|答案|是|为|lr\s*的|根号下?|[\s√=≈~:])*)"
_FUNCTIONS = {"sqrt": math.sqrt, "ln": math.log, "log": math.log, "log2": math.log2, "log10": math.log10, "exp": math.exp}
_CALL = r"(?:sqrt|log10|log2|log(?!10\(|2\()|ln|exp)"
_COUNT = "|".join(sorted(COUNTS, key=len, reverse=True))
_SPELLINGS = [(re.compile(pattern, re.IGNORECASE), to) for pattern, to in (
    (r"[−–—]", "-"), (r"[✕⋅·•∙]", "*"), (r"[÷⁄]", "/"), (r"[{\[]", "("), (r"[}\]]", ")"), ("per cent", "percent"),
    (r"(?<![\d.,])([1-9]\d{0,2})((?:(?P<apart>[,'’_ ])\d{3})(?:(?P=apart)\d{3})*)(?![\d,])",
     lambda found: found[1] + re.sub(r"[^\d]", "", found[2])),
    (r"^[x×](?=\s*\d)", ""),
    (rf"({_N})\s*的平方根", r"√\1"), (rf"({_N})\s*的\s*(-?{_N})\s*次方", r"(\1)^(\2)"),
    (r"根号下?|(?<![a-z])(?:the )?(?:square )?root (?:of )?", "√"), (r"√|sqrt\s", "sqrt"),
    (rf"[×*]\s*(?=(?:lr|η)(?![a-z]))|(?<=[\d)])\s*[x×](?!\s*(?:[\d(.+-]|{_CALL}))(?![a-z])", " times "),
    (rf"×|(?<=[\d)])\s*x(?=\s*(?:[\d(.]|{_CALL}))", "*"), (r"(?<![a-z])(?:lr|η)(?=\s*[*/])|^lr$", "1"),
    (rf"(?<![a-z])({_CALL})\s*({_N})", r"\1(\2)"), (rf"(?<=[\d)])\s*(?={_CALL}\()", "*"),
    (r"(?<![a-z\d.])e\s*(?=\^|\*\*)", repr(math.e)), (r"\^", "**"), (r"(?<=\d)\s+e(?=[+-]?\d)", "e"),
    (rf"(?<![\d.e])(\d+/\d+|{_N})\s*({_COUNT}|b(?=\s*[*/+)]))(?:(?<=[一-龥])|(?![a-z]))(?!兆|(?<=千)字节)",
     lambda found: f"({found[1]}*{COUNTS.get(found[2].lower(), 1e9)!r})"),
)]
"""What becomes what, in turn, until only a formula and words are left."""

_FORMULA = re.compile(rf"(?:[\s)+\-*/]|(?<![a-z])\(|(?<![a-z\d.]){_N}|(?<![a-z]){_CALL}\()+", re.IGNORECASE)
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
              ast.Pow: math.pow, ast.USub: operator.neg, ast.UAdd: operator.pos}


def unit_of(name: str) -> Unit | None:
    """The unit of that name, None where it is none of :data:`UNITS`: a ratio, micro-batches."""
    word = unicodedata.normalize("NFKC", name).strip().lower()
    return UNITS.get(word) or (UNITS.get(word[:-1]) if word.endswith("s") and len(word) > 3 else None)


def read(text: str) -> tuple[float, str]:
    """A number and the words behind it, which may be its unit.

    Formulas such as "4*7 + 84/64" or "1/sqrt(1 - 0.9)" are worked out; of "4*7 = 28 GB" the end counts. Words before
    the number are skipped.

    Raises:
        BadAnswer: there is no number, or more than one.
    """
    plain = re.sub("[⁺⁻⁰¹²³⁴-⁹]+", lambda found: f"^({found.group()})", text[:400])
    plain = unicodedata.normalize("NFKC", re.sub("[¼-¾⅐-⅞]", r"+\g<0>", plain)).strip()
    plain = re.sub(r"^(half|一半|半个?)(?![a-z])|(?<=的)一半", "0.5 ", plain, flags=re.IGNORECASE)
    plain = _chinese(re.sub(rf"百分之\s*({_N})", r"\1%", plain), text)
    for pattern, to in _SPELLINGS:
        plain = pattern.sub(to, plain)
    if re.search(r"\d,\d", plain):
        raise _bad(text, "has a comma that may be a decimal point. Write 0.5 for a half, 1,000 for a thousand.",
                   "里的逗号看不出是不是小数点。小数请写 0.5，一千请写 1,000。")
    said = [part for part in re.split(r"[-=]>|[=≈≅→⇒]|(?<!or )\bso\b|所以|[一总]?共", plain) if re.search(r"\d", part)]
    found = [one for one in _FORMULA.finditer(said[-1]) if re.search(r"\d", one.group())] if said else []
    if not found:
        raise _unreadable(text)
    formula = found[0].group().lstrip(") \n\t").rstrip("( \n\t")
    rest = said[-1][found[0].end() :]
    if formula.endswith("-") and rest[:1].isalpha():
        formula = formula[:-1]
    ends = re.fullmatch(rf"({_N})\s*-\s*({_N})", formula)
    if len(found) > 1 or ends and float(ends[1]) < float(ends[2]):
        raise _bad(text, "holds more than one number. Write only the one that is asked for; after a calculation write = and "
                         "the result.", "里不止一个数。只写题目要的那一个；写了算式的话，最后用 = 写出结果。")
    try:
        value = float(_work_out(ast.parse(formula.strip().lower(), mode="eval").body))
    except (SyntaxError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError, MemoryError):
        raise _unreadable(text) from None
    if not math.isfinite(value):
        raise _unreadable(text)
    return value, rest.strip()


def _work_out(node: ast.expr) -> float:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_work_out(node.left), _work_out(node.right))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_work_out(node.operand))
    if isinstance(node, ast.Call):
        return _FUNCTIONS[node.func.id](*map(_work_out, node.args))
    return float(node.value)


def _chinese(plain: str, text: str) -> str:
    """The number in Chinese characters at the beginning, if there is one, in digits."""
    if not (pattern := re.compile(rf"{_LEAD}(?!一共)((?:万|{_CHINESE})分之)?({_CHINESE})")).match(plain):
        return plain
    try:
        import cn2an
    except ImportError:  # Colab, where its installation failed
        raise _bad(text, "is in characters. Allowed here: digits, as in 112 GB.", "是汉字数字。这里请写阿拉伯数字，比如 112 GB。") from None

    def digits(word: str) -> str:
        return f"{COUNTS[word]:g}" if word in COUNTS else f"{cn2an.cn2an(word, 'smart')}"

    def number(found: re.Match) -> str:
        part = found[2] and ("%" if found[2] == "百分之" else f"/{digits(found[2][:-2])}")
        return found[1] + digits(found[3]) + (part or "")

    try:
        return pattern.sub(number, plain)
    except ValueError:
        raise _unreadable(text) from None


def _unreadable(text: str) -> BadAnswer:
    return _bad(text, "is no number that can be read. Allowed: a number in digits or a formula, and a unit if you like, as in "
                      "112 GB, 1.12e11 or 28 + 84/64.", "读不出数字。请写一个数或算式，可以带单位，比如 112 GB、1.12e11 或 28 + 84/64。")


def _bad(text: str, english: str, chinese: str) -> BadAnswer:
    return BadAnswer(Text(en=f"{text.strip()!r} {english}", zh=f"“{text.strip()}”{chinese}"))
