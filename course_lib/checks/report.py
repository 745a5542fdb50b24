"""What a check says: findings, and how they read as text and as HTML."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass, field
from typing import Any

MISTAKE = "mistake"
OTHER_SPECIFICATION = "other specification"
REMARK = "remark"


@dataclass(frozen=True)
class Finding:
    """One thing a check found.

    Attributes:
        code: stable name of the finding, such as ``eps-inside-root``.
        what: what happened, with the first step and parameter where it shows, expected and got.
        hint: where to look; never the answer itself.
        kind: ``mistake``; ``other specification`` for numbers that are right elsewhere but not what the
            exercise states; ``remark`` for what does not stand in the way of passing.
    """

    code: str
    what: str
    hint: str = ""
    kind: str = MISTAKE


@dataclass(frozen=True)
class Report:
    """The outcome of a check: ``passed``, and ``findings`` with the most important first."""

    exercise: str
    findings: tuple[Finding, ...] = ()
    advice: str = field(default="", compare=False)

    @property
    def passed(self) -> bool:
        """True if nothing but remarks was found."""
        return all(finding.kind == REMARK for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types."""
        return {
            "exercise": self.exercise,
            "passed": self.passed,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines = [f"{self.exercise}: {'passed' if self.passed else 'not yet'}"]
        for number, finding in enumerate(self.findings, 1):
            label = finding.code if finding.kind == MISTAKE else f"{finding.code} ({finding.kind})"
            lines += [f"{number}. [{label}] {finding.what}"]
            lines += [f"   Hint: {finding.hint}"] if finding.hint else []
        return "\n".join(lines + ([self.advice] if self.advice else []))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colour = "#0a7d4f" if self.passed else "#b85c00"
        items = []
        for finding in self.findings:
            kind = "" if finding.kind == MISTAKE else f" <em>({finding.kind})</em>"
            hint = f"<br><strong>Hint:</strong> {_inline(finding.hint)}" if finding.hint else ""
            items.append(f"<li><code>{html.escape(finding.code)}</code>{kind}<br>{_inline(finding.what)}{hint}</li>")
        body = f'<ol style="margin:.4em 0 0 1.4em;padding:0">{"".join(items)}</ol>' if items else ""
        advice = f'<div style="margin-top:.4em">{_inline(self.advice)}</div>' if self.advice else ""
        return (
            f'<div style="border-left:5px solid {colour};padding:.3em .8em"><strong>{html.escape(self.exercise)}: '
            f"{'passed' if self.passed else 'not yet'}</strong>{body}{advice}</div>"
        )


def _inline(text: str) -> str:
    """Escape, and set what stands between backticks as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
