"""The question bank.

Every answer is proved, every fault of a bank file is told in a sentence, a question shows folded.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import jupytext
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tools import counted

from course_lib import questions
from course_lib.questions import BankError, Question, load
from course_lib.questions.drawn import standard
from course_lib.questions.evidence import FUNCTIONS
from course_lib.questions.loader import BANK
from course_lib.questions.proof import evidence_function, prove
from course_lib.questions.render import Card
from course_lib.questions.schema import AREAS, SPOKEN_MINUTE, spoken_length

SOURCES = Path(__file__).parent.parent / "notebooks" / "source"
BANK_NOW = load()


def texts(value, path=""):
    """Every text by language in a question, with its path."""
    if isinstance(value, dict):
        if "en" in value:
            yield path, value
        else:
            for key, inner in value.items():
                yield from texts(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from texts(inner, f"{path}[{index}]")


# The bank itself


def test_the_bank_covers_what_it_should():
    """At least what the blueprint asks for, over all areas, in its mix of kinds and levels."""
    kinds = Counter(question.kind for question in BANK_NOW.values())
    assert len(BANK_NOW) >= 300 and kinds["verdict"] >= 60 and kinds["compute"] >= 30
    assert kinds["bug"] >= 15 and kinds["read-run"] >= 12
    spoken = len(BANK_NOW) - kinds["verdict"]
    mix = {"explain": 20, "derive": 15, "compute": 20, "bug": 15, "implement": 10, "read-run": 10, "design": 10}
    for kind, share in mix.items():
        assert abs(100 * kinds[kind] / spoken - share) < 6, (kind, kinds)
    levels = Counter(question.level for question in BANK_NOW.values())
    for level, share in ((1, 30), (2, 45), (3, 25)):
        assert abs(100 * levels[level] / len(BANK_NOW) - share) < 7, levels
    areas = Counter(question.area for question in BANK_NOW.values())
    assert areas.keys() == set(AREAS)
    few = {"averaging": 4, "fine-tuning": 4, "benchmarking": 4, "scaling": 6, "communication": 7, "kernels": 8}
    for area, count in areas.items():
        assert count >= few.get(area, 10), area
    assert sum(bool(question.bug and question.bug.report) for question in BANK_NOW.values()) >= 10
    assert {question.verdict for question in BANK_NOW.values() if question.verdict} == {"right", "wrong", "depends"}
    assert {question.level for question in BANK_NOW.values()} == {1, 2, 3}
    assert len(AREAS) == len(set(AREAS))


def test_the_readme_counts_what_is_there():
    text = counted.README.read_text(encoding="utf-8")
    assert counted.BLOCK.search(text).group() == counted.table(), "run: python -m tools.counted"


@pytest.mark.parametrize("question_id", BANK_NOW)
def test_evidence_bears_the_answer_out(question_id):
    prove(question_id)


@pytest.mark.parametrize("question_id", [key for key, question in BANK_NOW.items() if question.number])
def test_another_number_would_be_refused(question_id):
    question = BANK_NOW[question_id]
    for factor in (1 - 3 * question.number.tolerance, 1 + 3 * question.number.tolerance):
        number = question.number.model_copy(update={"value": question.number.value * factor})
        with pytest.raises(AssertionError, match="but the bank says"):
            prove(question.model_copy(update={"number": number}))


def test_no_evidence_function_is_left_over():
    used = {proof.function for question in BANK_NOW.values() for proof in question.evidence if proof.function}
    used |= {question.run.curves for question in BANK_NOW.values() if question.run}
    assert used == FUNCTIONS.keys()


def test_unknown_evidence_is_named():
    with pytest.raises(ValueError, match="no evidence function 'fist_step'.*first_step"):
        evidence_function("fist_step")
    for not_evidence in ("path_of", "_uncorrected", "get"):
        with pytest.raises(ValueError, match=f"no evidence function '{not_evidence}'"):
            evidence_function(not_evidence)


def tagged_cells(notebook):
    cells = jupytext.read(SOURCES / f"{notebook}.py").cells
    return [(cell.source, cell.metadata.get("tags", [])) for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize(
    ("notebook", "tag"),
    [(proof.notebook, proof.tag) for question in BANK_NOW.values() for proof in question.evidence if proof.notebook],
)
def test_notebook_evidence_is_there_and_asserts(notebook, tag):
    cells = [source for source, tags in tagged_cells(notebook) if tag in tags]
    assert cells, f"notebook {notebook} has no cell tagged {tag}"
    assert any("assert" in source for source in cells), f"the cells tagged {tag} in {notebook} assert nothing"


@pytest.mark.parametrize("notebook", sorted(path.stem for path in SOURCES.glob("*.py")))
def test_questions_shown_in_a_notebook_are_proved_in_it(notebook):
    cells = tagged_cells(notebook)
    shown = {name for source, _ in cells for name in re.findall(r"questions\.show\([\"']([^\"']+)[\"']\)", source)}
    proved = {tag.removeprefix("evidence-") for _, tags in cells for tag in tags if tag.startswith("evidence-")}
    assert shown == proved
    for name in shown:
        assert any(proof.notebook == notebook for proof in questions.get(name).evidence)


def test_every_text_is_plain_prose():
    for file in BANK.glob("*.yaml"):
        for record in yaml.safe_load(file.read_text(encoding="utf-8")):
            for path, text in texts(record):
                for value in text.values():
                    where = f"{record['id']}{path}"
                    assert value.count("`") % 2 == 0, f"{where}: a backtick is open"
                    prose = re.sub(r"`[^`]*`", "", value)
                    assert not re.search(r"[$<>\\]", prose), f"{where}: {prose}"


# Faults in a bank file


def record(**changes):
    question = {
        "id": "a-question",
        "area": "adam",
        "level": 1,
        "kind": "explain",
        "prompt": {"en": "What?"},
        "answer": {"en": "This."},
        "rubric": [{"point": {"en": "One."}, "weight": 1}, {"point": {"en": "Two."}, "weight": 2}],
        "weak": {"says": {"en": "That."}, "costs": {"en": "Much."}},
        "follow_ups": [{"en": "And then?"}],
        "sources": [{"title": "A Paper", "year": 2015, "arxiv": "1412.6980"}],
        "evidence": [{"function": "first_step"}],
    }
    return question | changes


def at(path, value):
    """A record with the value at ``path`` (keys and positions) replaced; DELETE removes it."""
    changed = copy.deepcopy(record())
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is DELETE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


DELETE = object()
CODE = {"code": "a = 1\nb = 2\n", "line": 2, "fix": "b = 3"}
NUMBER = {
    "value": 1.0, "unit": "lr", "tolerance": 0.01,
    "draw": {"beta": {"choices": ["0.9", "0.99"]}},
    "slips": [{"value": "1 - answer", "says": {"en": "The complement."}}],
}
COMPUTE = {"kind": "compute", "prompt": {"en": "With {beta}?"}}
RUN = {"curves": "first_step", "causes": [{"en": "a"}, {"en": "b"}, {"en": "c"}]}


@pytest.fixture
def bank(tmp_path):
    def write(data, name="adam.yaml"):
        text = data if isinstance(data, str) else yaml.safe_dump(data, allow_unicode=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_a_sound_record_loads(bank):
    loaded = load(bank([record(), record(id="another")]))
    assert list(loaded) == ["a-question", "another"] and all(isinstance(q, Question) for q in loaded.values())
    assert load(bank([record()]) / "adam.yaml").keys() == {"a-question"}


@pytest.fixture
def translated(bank, tmp_path):
    def write(entry, **changes):
        (tmp_path / "zh").mkdir(exist_ok=True)
        text = yaml.safe_dump({"a-question": entry}, allow_unicode=True)
        (tmp_path / "zh" / "adam.yaml").write_text(text, encoding="utf-8")
        return bank([record(**changes)])

    return write


CHINESE = {
    "prompt": "什么？", "answer": "这个。", "rubric": ["一。", "二。"], "weak": {"says": "那个。", "costs": "很多。"},
    "follow_ups": ["然后呢？"],
}


def test_chinese_stands_beside_the_english(translated):
    question = load(translated(CHINESE))["a-question"]
    assert (question.prompt.zh, question.rubric[1].point.zh, question.weak.costs.zh) == ("什么？", "二。", "很多。")
    number = CHINESE | {"prompt": "{beta} 时？", "slips": ["补数。"], "unit": "倍 lr"}
    question = load(translated(number, **COMPUTE, number=NUMBER))["a-question"]
    assert (question.number.unit_zh, question.number.slips[0].says.zh) == ("倍 lr", "补数。")
    question = load(translated(CHINESE | {"causes": ["甲", "乙", "丙"]}, kind="read-run", run=RUN))["a-question"]
    assert [cause.zh for cause in question.run.causes] == ["甲", "乙", "丙"]


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (CHINESE | {"prompt": "一" * 5, "anwser": "x"}, "field anwser: is only in one language"),
        ({key: value for key, value in CHINESE.items() if key != "answer"}, "field answer: is only in one language"),
        (CHINESE | {"rubric": ["一。"]}, "field rubric: is not built as in English"),
        (CHINESE | {"rubric": "一。"}, "field rubric: is not built as in English"),
        (CHINESE | {"weak": {"says": "那个。"}}, "field weak: is not built as in English"),
        (CHINESE | {"prompt": ["什么？"]}, "field prompt: is not built as in English"),
        (CHINESE | {"claim": "这话。"}, "field claim: is only in one language"),
        (CHINESE | {"answer": "一" * (SPOKEN_MINUTE["zh"] + 1)}, "field answer: zh has 321 characters. Allowed: 320"),
        (CHINESE | {"prompt": " "}, "field prompt > zh: is blank"),
    ],
)
def test_chinese_out_of_step_is_told_by_question_and_field(translated, entry, what):
    with pytest.raises(BankError, match=re.escape(what)) as caught:
        load(translated(entry))
    assert "question a-question" in str(caught.value) and "Allowed: " in str(caught.value)


def test_chinese_for_other_questions_is_told_by_id(translated, tmp_path):
    place = translated(CHINESE)
    (place / "zh" / "adam.yaml").write_text("another:\n  prompt: x\n", encoding="utf-8")
    with pytest.raises(BankError) as caught:
        load(place)
    assert "zh/adam.yaml: question a-question: is missing" in str(caught.value)
    assert "zh/adam.yaml: question another: is only here" in str(caught.value)
    (place / "zh" / "adam.yaml").write_text("- a\n", encoding="utf-8")
    with pytest.raises(BankError, match="zh/adam.yaml: is no map of question ids"):
        load(place)


@pytest.mark.parametrize(
    ("text", "length"), [("学习率是 lr，不是梯度。", 9), ("AdamW 的 weight decay", 4), ("一二三。", 3), ("", 0)]
)
def test_chinese_is_counted_in_characters_and_words(text, length):
    assert spoken_length(text, "zh") == length


FAULTS = {
    "unknown field": (
        record(anwser={"en": "x"}),
        "unknown field 'anwser'; did you mean 'answer'?",
        "Allowed: id, area",
    ),
    "unknown inner field": (
        at(["rubric", 1, "wieght"], 1),
        "field rubric item 2: unknown field 'wieght'; did you mean 'weight'?",
        "point",
    ),
    "unknown language": (at(["prompt", "fr"], "Quoi ?"), "field prompt: unknown field 'fr'", "Allowed: en, zh"),
    "no English": (at(["prompt"], {"zh": "什么？"}), "field prompt > en: is missing", "Allowed"),
    "bare text": (at(["prompt"], "What?"), "field prompt: is 'What?'", "a mapping with the fields en, zh"),
    "blank text": (at(["weak", "says", "en"], "  "), "field weak > says > en: is blank", "at least one word"),
    "number for text": (
        at(["sources", 0, "arxiv"], 1412.698),
        "field sources item 1 > arxiv: is 1412.698, a float",
        "put it in quotes",
    ),
    "not an arXiv id": (
        at(["sources", 0, "arxiv"], "arXiv:1"),
        "field sources item 1 > arxiv: is 'arXiv:1'",
        "as in '1412.6980'",
    ),
    "source without year": (
        at(["sources", 0], {"title": "A Paper"}),
        "field sources item 1: has neither year nor url",
        "Allowed",
    ),
    "area": (at(["area"], "adamm"), "field area: is 'adamm'. Did you mean 'adam'?", "'benchmarking'"),
    "kind": (at(["kind"], "explian"), "field kind: is 'explian'. Did you mean 'explain'?", "'verdict'"),
    "level": (at(["level"], 4), "field level: is 4", "1, 2 or 3"),
    "level as text": (at(["level"], "1"), "field level: is '1'", "1, 2 or 3"),
    "id": (at(["id"], "An Id"), "question An Id, field id: is 'An Id'", "joined by hyphens"),
    "no id": (at(["id"], DELETE), "question number 1, field id: is missing", "Allowed"),
    "weight": (at(["rubric", 0, "weight"], 0), "field rubric item 1 > weight: is 0", "greater than or equal to 1"),
    "short rubric": (at(["rubric"], record()["rubric"][:1]), "field rubric: has 1 entries", "at least 2"),
    "no evidence": (at(["evidence"], []), "field evidence: has 0 entries", "at least 1"),
    "missing evidence": (at(["evidence"], DELETE), "field evidence: is missing", "Allowed"),
    "half an evidence": (
        at(["evidence", 0], {"notebook": "04_adam"}),
        "field evidence item 1: names no single place",
        "notebook together with tag",
    ),
    "two places": (
        at(["evidence", 0, "tag"], "evidence-x"),
        "field evidence item 1: names no single place",
        "function alone",
    ),
    "long answer": (at(["answer", "en"], "word " * 171), "field answer: en has 171 words", "Allowed: 170"),
    "compute without number": (record(kind="compute"), "field 'number' is missing", "kind compute has number"),
    "number elsewhere": (
        record(number=NUMBER),
        "field 'number' is given, but the kind is explain",
        "only with kind compute",
    ),
    "compute, two functions": (
        record(**COMPUTE, number=NUMBER, evidence=[{"function": "a"}, {"function": "b"}]),
        "has 2 evidence functions",
        "exactly one",
    ),
    "tolerance": (
        record(**COMPUTE, number=NUMBER | {"tolerance": 0.5}),
        "field number > tolerance: is 0.5",
        "less than or equal to 0.1",
    ),
    "infinite number": (
        record(**COMPUTE, number=NUMBER | {"value": float("inf")}),
        "field number > value: is inf",
        "finite",
    ),
    "places of the prompt": (
        record(kind="compute", number=NUMBER, prompt={"en": "With {beta1}?"}),
        "prompt > en has the places ['beta1']",
        "['beta']",
    ),
    "a choice that is no number": (
        record(**COMPUTE, number=NUMBER | {"draw": {"beta": {"choices": ["0.9", "high"]}}}),
        "field number > draw > beta > choices: holds 'high'",
        "numbers in quotes",
    ),
    "a choice twice": (
        record(**COMPUTE, number=NUMBER | {"draw": {"beta": {"choices": ["0.9", "0.9"]}}}),
        "holds a choice twice",
        "each once",
    ),
    "nothing drawn": (record(**COMPUTE, number=NUMBER | {"draw": {}}), "field number > draw", "at least 1"),
    "read-run without curves": (record(kind="read-run"), "field 'run' is missing", "kind read-run has run"),
    "two causes": (
        record(kind="read-run", run=RUN | {"causes": RUN["causes"][:2]}), "field run > causes: has 2 entries", "at least 3",
    ),
    "another line beyond the code": (record(kind="bug", bug=CODE | {"also": [7]}), "also is [7]", "1 to 2"),
    "verdict without claim": (record(kind="verdict", verdict="wrong"), "field 'claim' is missing", "claim, verdict"),
    "verdict": (
        record(kind="verdict", claim={"en": "x"}, verdict="false"),
        "field verdict: is 'false'",
        "'right', 'wrong' or 'depends'",
    ),
    "bug line": (record(kind="bug", bug=CODE | {"line": 3}), "field bug: line is 3", "1 to 2"),
    "bug fix": (record(kind="bug", bug=CODE | {"fix": "b = 2"}), "field bug: fix is the faulty line itself", "instead"),
    "bug code": (
        record(kind="bug", bug=CODE | {"code": "a = (\nb = 2\n"}),
        "field bug: code is no valid Python",
        "code that parses",
    ),
    "implement": (record(kind="implement"), "field 'exercise' is missing", "Allowed"),
    "another file's area": (at(["area"], "adamw"), "field area: is 'adamw'", "'adam', the name of the file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_sentence_with_file_question_and_field(bank, name):
    faulty, what, allowed = FAULTS[name]
    with pytest.raises(BankError) as caught:
        load(bank([faulty]))
    message = str(caught.value)
    assert (
        message.startswith("adam.yaml: question ") and what in message and allowed in message and "Allowed: " in message
    )
    assert "\n" not in message and "pydantic" not in message and "Value error" not in message
    assert caught.value.__context__ is None


@pytest.mark.parametrize("field", [name for name in record() if name != "id"])
def test_each_missing_field_is_named(bank, field):
    with pytest.raises(BankError, match=rf"^adam.yaml: question a-question, field {field}: is missing\."):
        load(bank([at([field], DELETE)]))


def test_several_faults_are_one_line_each(bank):
    faulty = record(kind="explian", anwser=1)
    lines = re.findall(
        r"adam\.yaml: question [a-z-]+",
        str(pytest.raises(BankError, load, bank([faulty, at(["level"], 9) | {"id": "b"}])).value),
    )
    assert lines == ["adam.yaml: question a-question", "adam.yaml: question b"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- id: [", "adam.yaml, line "),
        ("- id: a\n  id: b\n", "adam.yaml, line 2: the key 'id' is given twice. Allowed: valid YAML."),
        ("", "adam.yaml: holds nothing. Allowed: a list of questions."),
        ("id: a\n", "adam.yaml: holds dict. Allowed: a list of questions."),
        ("- 3\n", "adam.yaml: question number 1: is 3. Allowed: a mapping"),
        ("- !!python/object:os.system {}\n", "adam.yaml, line 1: could not determine a constructor"),
        ("- 2025-13-45\n", "adam.yaml"),
        ("- ? [a]\n  : b\n", "adam.yaml"),
    ],
)
def test_a_file_that_is_no_bank_is_refused_in_a_sentence(bank, text, what):
    with pytest.raises(BankError, match=re.escape(what)):
        load(bank(text))


def test_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "adam.yaml").write_bytes(b"- id: \xff\n")
    with pytest.raises(BankError, match="adam.yaml: byte 6 is no UTF-8"):
        load(tmp_path)


def test_an_id_in_two_files_names_both(bank):
    bank([record()])
    with pytest.raises(BankError, match="adamw.yaml: question a-question, field id: is also in adam.yaml"):
        load(bank([record(area="adamw")], name="adamw.yaml"))


def test_a_place_without_a_bank(tmp_path):
    for place in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(FileNotFoundError, match="No question bank at .*Allowed: a YAML file"):
            load(place)


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
JUNK = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(field=st.sampled_from([*record(), "claim", "verdict", "number", "bug", "run", "exercise"]), junk=JUNK)
def test_whatever_a_field_holds_the_answer_is_a_bank_or_a_bank_error(tmp_path_factory, field, junk):
    file = tmp_path_factory.mktemp("bank") / "adam.yaml"
    file.write_text(yaml.safe_dump([record() | {field: junk}], allow_unicode=True), encoding="utf-8")
    try:
        load(file)
    except BankError as error:
        assert all(line.startswith("adam.yaml") for line in str(error).splitlines())


# Getting and showing


def test_an_unknown_id_suggests_the_nearest():
    with pytest.raises(ValueError, match="There is no question 'adam-fist-step'. Did you mean 'adam-first-step'?"):
        questions.get("adam-fist-step")
    with pytest.raises(ValueError, match="There is no question 'xyzzy'. All ids"):
        questions.show("xyzzy")


class Folding(HTMLParser):
    """Text outside and inside of <details>, and whether they nest properly."""

    def __init__(self):
        super().__init__()
        self.depth, self.open, self.folded, self.tags = 0, "", "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "details":
            assert self.depth == 0 and not attrs
            self.depth = 1

    def handle_endtag(self, tag):
        if tag == "details":
            assert self.depth == 1
            self.depth = 0

    def handle_data(self, data):
        if self.depth:
            self.folded += data
        else:
            self.open += data


def plain(markdown):
    return " ".join(re.sub(r"`", "", markdown).split())


@pytest.mark.parametrize("question_id", BANK_NOW)
def test_a_card_shows_the_prompt_and_folds_the_rest(question_id):
    question = BANK_NOW[question_id]
    markdown = Card(question)._repr_markdown_()
    page = Folding()
    page.feed(MarkdownIt("commonmark", {"html": True}).render(markdown))
    assert page.depth == 0 and page.tags.count("details") == 3
    visible, folded = " ".join(page.open.split()), " ".join(page.folded.split())
    assert plain(standard(question).prompt()) in visible
    for hidden in [
        question.answer,
        question.weak.says,
        question.weak.costs,
        *(point.point for point in question.rubric),
        *question.follow_ups,
    ]:
        assert plain(hidden.en) in folded and plain(hidden.en) not in visible
    if question.bug:
        assert question.bug.faulty in visible and question.bug.fix in folded and question.bug.fix not in visible
    if question.claim:
        assert plain(question.claim.en) in visible and f"Verdict: {question.verdict}" in folded
    assert "em" not in page.tags, "a * or _ in the text was taken for emphasis"
    assert Card(question)._repr_markdown_() == markdown


@pytest.mark.parametrize("question_id", BANK_NOW)
def test_a_terminal_gets_the_prompt_first_without_markup(question_id):
    question = BANK_NOW[question_id]
    text = str(Card(question))
    assert " ".join(text.split()).index(" ".join(standard(question).prompt().split())) < text.index("--- Answer ---")
    assert "details>" not in text and "```" not in text and "](" not in text
    prose = text if question.bug is None else text.split("--- Answer ---")[1]
    assert all(len(line) <= 100 or " " not in line.strip(" ->") for line in prose.splitlines())


def test_show_prints_where_there_is_no_notebook(capsys):
    questions.show("adam-first-step")
    assert capsys.readouterr().out == f"{Card(questions.get('adam-first-step'))}\n"


def test_reading_and_showing_import_no_torch_and_no_matplotlib():
    code = (
        "import sys; from course_lib import questions; questions.get('adam-first-step'); "
        "print(sorted({'torch', 'numpy', 'matplotlib', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bug_replaces_the_line_at_its_indentation():
    bug = BANK_NOW["adam-step-stuck"].bug
    changed = [(old, new) for old, new in zip(bug.code.splitlines(), bug.fixed.splitlines(), strict=True) if old != new]
    assert changed == [(f"    {bug.faulty}", f"    {bug.fix}")]
