"""What a mock interview showed: strengths, what to revisit and where, and a plan; as data and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from course_lib import journal
from course_lib.checks.exercises import EXERCISES
from course_lib.practice.asking import SECONDS
from course_lib.practice.interview import Interview
from course_lib.practice.words import area as area_name
from course_lib.practice.words import word
from course_lib.questions import Question
from course_lib.questions.schema import LEVELS

STRONG, WEAK = 0.75, 0.6
"""Scores from which an area is a strength, and below which it is to be revisited."""
MOST_AREAS = 3
"""Areas that a plan takes up at once, the weakest first."""

NOTEBOOKS = {
    "gradient_descent": "01_gradient_descent", "momentum": "02_momentum", "adaptive_rates": "03_adaptive_rates",
    "adam": "04_adam", "adamw": "05_adamw", "why_adam": "06_why_adam", "schedules": "07_schedules",
    "stability": "08_stability", "large_batch": "09_large_batch", "memory": "10_memory_accounting",
    "mixed_precision": "11_mixed_precision", "numerics": "11_mixed_precision", "accumulation": "08_stability",
    "sharding": "15_sharding", "communication": "15_sharding", "kernels": "12_production_kernels",
    "small_state": "13_small_state", "beyond_adam": "14_beyond_adam", "scaling": "09_large_batch",
    "averaging": "08_stability", "fine-tuning": "07_schedules", "benchmarking": "14_beyond_adam",
}
"""The notebook on each area."""

SECTIONS = {
    3: "3. The derivation", 5: "5. Against production", 6: "6. Turn the knobs", 7: "7. How it breaks",
    9: "9. In the interview",
}
"""Headings that every notebook of the course has."""
SECTION_OF = {"explain": 3, "derive": 3, "compute": 3, "verdict": 9, "bug": 7, "read-run": 7, "design": 6, "implement": 3}
"""The section that helps with a kind of question."""


@dataclass(frozen=True)
class Part:
    """How an area or a kind went: its name, the mean score, how many questions."""

    name: str
    score: float
    count: int


@dataclass(frozen=True)
class Report:
    """A report on an interview.

    Attributes:
        interview: the interview.
        score: the mean over the questions that were answered; None where none was.
        areas, kinds: the same by area and by kind, the best first.
        strengths, revisit: names of areas, the best and the weakest first.
        sections: for each area to revisit, notebook and section numbers.
        exercises: for each area to revisit, exercises of its notebook that are not passed yet.
        slow: ids of questions that took longer than their kind's time.
    """

    interview: Interview
    score: float | None
    areas: tuple[Part, ...]
    kinds: tuple[Part, ...]
    strengths: tuple[str, ...]
    revisit: tuple[str, ...]
    sections: dict[str, tuple[str, tuple[int, ...]]]
    exercises: dict[str, tuple[str, ...]]
    slow: tuple[str, ...]

    def markdown(self, folder: str = "notebooks/") -> str:
        """The report as Markdown, in the interview's language; ``folder`` goes before the names of notebooks in links."""
        return _markdown(self, folder)


def report(interview: Interview, events: Iterable[journal.Event] | None = None) -> Report:
    """Report on an interview; ``events`` say which exercises are passed (default: the journal's)."""
    answered = [(interview.asked(place).question, interview.answers[place]) for place in sorted(interview.answers)]
    scores = [(question, answer.score) for question, answer in answered]
    areas, kinds = _by(scores, "area"), _by(scores, "kind")
    revisit = tuple(part.name for part in reversed(areas) if part.score < WEAK)
    events = journal.recall() if events is None else events
    passed = {event.exercise for event in events if event.kind == journal.CHECKED and event.passed}
    sections, exercises = {}, {}
    for area in revisit[:MOST_AREAS]:
        missed = [question for question, score in scores if question.area == area and score < WEAK]
        sections[area] = NOTEBOOKS[area], tuple(sorted({SECTION_OF[question.kind] for question in missed}))
        exercises[area] = tuple(name for name, exercise in EXERCISES.items()
                                if exercise.notebook == NOTEBOOKS[area] and name not in passed)
    return Report(
        interview=interview,
        score=_mean([score for _, score in scores]) if scores else None,
        areas=areas,
        kinds=kinds,
        strengths=tuple(part.name for part in areas if part.score >= STRONG),
        revisit=revisit,
        sections=sections,
        exercises=exercises,
        slow=tuple(question.id for question, answer in answered if answer.seconds > SECONDS[question.kind]),
    )


def _by(scores: list[tuple[Question, float]], field: str) -> tuple[Part, ...]:
    """Mean score by a field of the questions, the best first."""
    groups: dict[str, list[float]] = {}
    for question, score in scores:
        groups.setdefault(getattr(question, field), []).append(score)
    parts = [Part(name, _mean(values), len(values)) for name, values in groups.items()]
    return tuple(sorted(parts, key=lambda part: (-part.score, part.name)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _markdown(report: Report, folder: str) -> str:
    one, language = report.interview, report.interview.language

    def say(key: str, **values: object) -> str:
        return word(key, language, **values)

    blocks = [f"## {say('report')}"]
    if report.score is None:
        return "\n\n".join([*blocks, say("nothing_answered")]) + "\n"
    blocks.append(say("overall", score=report.score, count=len(one.answers), planned=len(one.items), limit=one.minutes,
                      minutes=one.seconds_used / 60, level=one.level, round=say(LEVELS[one.level])))
    for key, parts in (("area", report.areas), ("kind", report.kinds)):
        head = f"| {say(key)} | {say('questions')} | {say('share')} |\n| --- | ---: | ---: |\n"
        names = {part.name: say(part.name) if key == "kind" else area_name(part.name, language) for part in parts}
        rows = "\n".join(f"| {names[part.name]} | {part.count} | {part.score:.0%} |" for part in parts)
        blocks += [f"### {say('by_' + key)}", head + rows]
    strengths = _listed(report.strengths, language) or say("no_strengths", bar=STRONG)
    blocks += [f"### {say('strengths')}", strengths, f"### {say('revisit')}"]
    blocks.append(_listed(report.revisit, language) or say("nothing_to_revisit", bar=WEAK))
    blocks += [f"### {say('plan')}", "\n".join(f"- {line}" for line in _plan(report, folder))]
    rows = [
        f"| {question.id} | {say(question.kind)} | {answer.score:.0%} | {answer.seconds / 60:.1f} |"
        for question, answer in ((one.asked(place).question, one.answers[place]) for place in sorted(one.answers))
    ]
    head = f"| {say('question')} | {say('kind')} | {say('share')} | {say('minutes')} |\n| --- | --- | ---: | ---: |"
    blocks += [f"### {say('each')}", "\n".join([head, *rows])]
    if report.slow:
        blocks.append(say("over_time", names=", ".join(report.slow)))
    return "\n\n".join(blocks) + "\n"


def _listed(areas: tuple[str, ...], language: str) -> str:
    return ("、" if language == "zh" else ", ").join(area_name(area, language) for area in areas)


def _plan(report: Report, folder: str) -> list[str]:
    """What to do next, a sentence each."""
    one, language = report.interview, report.interview.language
    comma = "、" if language == "zh" else ", "
    lines = []
    for area, (notebook, numbers) in report.sections.items():
        links = [f"[{notebook} · {SECTIONS[number]}]({folder}{notebook}.ipynb#{SECTIONS[number].replace(' ', '-')})"
                 for number in numbers]
        lines.append(word("plan_read", language, area=area_name(area, language), links=comma.join(links)))
        if report.exercises[area]:
            names = comma.join(f"`{name}`" for name in report.exercises[area])
            lines.append(word("plan_exercises", language, area=area_name(area, language), exercises=names, notebook=notebook))
    quiz = ",".join(report.sections) or ",".join(one.areas)
    level = min(3, one.level + 1) if report.score >= 0.85 else one.level
    return [*lines, word("plan_quiz", language, areas=quiz), word("plan_next", language, minutes=one.minutes, level=level)]
