"""A learner's progress: what was recorded is never lost, and where it cannot be recorded, everything else goes on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import journal, progress
from course_lib.checks import EXERCISES, check, hint, sandbox
from course_lib.journal import Event, exchange, store
from course_lib.journal.store import Store

FAILING, PASSING = 10.0, 33332.83  # answers to decay_steps
linux = pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")


def file_in(home: Path) -> Path:
    return home / "progress.sqlite3"


def rows(home: Path) -> list[tuple]:
    """What the file holds, read without the course's own code."""
    with closing(sqlite3.connect(file_in(home))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT exercise, kind, passed, tier, code FROM events ORDER BY time").fetchall()


def python(script: str, *arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def output_of(script: str, *arguments: str, **options) -> str:
    process = python(script, *arguments, **options)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def test_tests_have_a_place_of_their_own():
    assert Path(os.environ["COURSE_HOME"]).is_relative_to(tempfile.gettempdir())


# What is recorded.


def test_each_verdict_is_recorded_once_and_a_blank_is_none(home):
    check("decay_steps", FAILING)
    check("decay_steps", ...)
    check("decay_steps", None)
    check("adam_state_bytes", 56e9)
    assert rows(home) == [
        ("decay_steps", "checked", 0, None, "lr-forgotten"), ("adam_state_bytes", "checked", 1, None, ""),
    ]


def test_times_are_utc_and_ids_are_unique(home):
    before = datetime.now(UTC)
    for _ in range(3):
        journal.record("adam", journal.SOLUTION)
    events = journal.recall()
    assert all(before <= datetime.fromisoformat(event.time) <= datetime.now(UTC) for event in events)
    assert len({event.id for event in events}) == 3


def test_hints_go_on_in_another_kernel(home, capsys):
    script = "from course_lib.checks import hint; hint('adam')"
    texts = [output_of(script) for _ in EXERCISES["adam"].hints]
    assert [text.split(": ", 1)[1].strip() for text in texts] == list(EXERCISES["adam"].hints)
    assert rows(home) == [("adam", "hint", None, tier, "") for tier in (1, 2, 3)]
    assert "Try it once" in output_of(script)
    hint("adam_blank")
    assert "Hint 1 of 3" in capsys.readouterr().out


def test_the_solution_is_offered_after_all_hints_and_an_honest_try_of_any_session(home, new_session, capsys):
    def answers() -> str:
        new_session()
        hint("decay_steps")
        return capsys.readouterr().out

    check("decay_steps", FAILING)
    assert ["solutions/" in answers() for _ in range(4)] == [False, False, False, True]
    assert "solutions/05_adamw.ipynb" in answers()
    assert [row[1] for row in rows(home)] == ["checked", "hint", "hint", "hint", "solution"]


def test_a_blank_is_no_honest_try_and_a_pass_is_one(home, capsys):
    for _ in range(3):
        hint("decay_steps")
    check("decay_steps", ...)
    hint("decay_steps")
    assert "solutions/" not in capsys.readouterr().out
    check("decay_steps", PASSING)
    hint("decay_steps")
    assert "solutions/05_adamw.ipynb" in capsys.readouterr().out


def test_hints_can_be_seen_again(home, new_session, capsys):
    hint("adam", again=True)
    assert "not asked for a hint" in capsys.readouterr().out
    hint("adam")
    hint("adam")
    first_two = capsys.readouterr().out
    new_session()
    hint("adam", again=True)
    hint("adam", again=True)
    assert capsys.readouterr().out == 2 * first_two
    hint("adam")
    assert "Hint 3 of 3" in capsys.readouterr().out


def test_what_happens_after_a_pause_is_not_kept_and_does_not_see_what_is(home, new_session, capsys):
    hint("adam")
    check("adam_state_bytes", 56e9)
    kept = rows(home)
    new_session()
    capsys.readouterr()
    progress.pause()
    for _ in range(2):
        hint("adam")
    check("adam_state_bytes", 1.0)
    assert re.findall(r"Hint \d", capsys.readouterr().out) == ["Hint 1", "Hint 2"]
    assert rows(home) == kept


@pytest.mark.parametrize("method", [pytest.param("fork", marks=linux), "spawn"])
def test_what_a_candidate_does_in_its_process_is_not_recorded(home, method):
    class Adam:
        def __init__(self, params, **hyper):
            check("adam_state_bytes", 56e9)
            raise ValueError("enough")

    assert "enough" in sandbox.run("adam", Adam, method=method)[0].what
    assert not file_in(home).exists()


@linux
def test_a_candidate_that_dies_while_it_writes_the_file_harms_nothing(home):
    journal.record("adamw", journal.SOLUTION)

    class Adam:
        def __init__(self, params, **hyper):
            connection = sqlite3.connect(file_in(home), isolation_level=None)
            connection.execute("PRAGMA cache_size = 1")  # so that changed pages reach the file before the commit
            connection.execute("BEGIN EXCLUSIVE")
            for _ in range(200):
                connection.execute("INSERT INTO events VALUES (hex(randomblob(500)), '', '', 1, 1, '', '')")
            os.kill(os.getpid(), signal.SIGKILL)

    assert not check("adam", Adam).passed
    assert [row[:2] for row in rows(home)] == [("adamw", "solution"), ("adam", "checked")]
    assert journal.news() == []


# Kills, and several kernels.

WRITER = """
import sys
from course_lib import journal
for number in range(int(sys.argv[2])):
    name = f"{sys.argv[1]}_{number}"
    journal.record(name, journal.CHECKED, passed=True)
    assert not journal.news()
    print(name, flush=True)
"""


def test_no_acknowledged_result_is_lost_to_kill_9(home):
    randomly = random.Random(20)
    acknowledged: list[str] = []
    kills = 0
    while len(acknowledged) < 250:
        process = python(WRITER, f"life{kills}", "1000")
        wait_for = randomly.randrange(15)
        told = [process.stdout.readline() for _ in range(wait_for)]
        time.sleep(randomly.uniform(0.0, 0.005 if wait_for else 0.3))  # at any point of a write, or of the start
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        process.communicate()
        acknowledged += [line.strip() for line in told]
        kills += 1
    stored = [row[0] for row in rows(home)]
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    assert len(stored) <= len(acknowledged) + kills  # one each that was written and could not be told any more
    assert [event.exercise for event in journal.recall()] == stored
    assert kills >= 10


def test_two_kernels_that_begin_the_file_together_lose_nothing(home):
    for turn in range(3):
        both = [python(WRITER, f"turn{turn}_{name}", "20") for name in "ab"]
        for process in both:
            assert process.wait() == 0, process.stderr.read()
    wanted = {f"turn{turn}_{name}_{number}" for turn in range(3) for name in "ab" for number in range(20)}
    stored = [row[0] for row in rows(home)]
    assert set(stored) == wanted
    assert len(stored) == len(wanted)


# Export and import.

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=20)


@st.composite
def events(draw) -> Event:
    kind = draw(st.sampled_from([journal.CHECKED, journal.HINT, journal.SOLUTION]))
    return Event(
        draw(NAMES), kind, passed=draw(st.booleans()) if kind == journal.CHECKED else None,
        tier=draw(st.integers(1, 5)) if kind == journal.HINT else None,
        code=draw(NAMES) if kind == journal.CHECKED else "", time=draw(MOMENTS), id=str(draw(st.uuids())),
    )


def stored_in(path: Path) -> dict[str, Event]:
    found = Store(path, pytest.fail).read()
    assert found == sorted(found, key=lambda event: (event.time, event.id))
    assert len({event.id for event in found}) == len(found)
    return {event.id: event for event in found}


@settings(max_examples=40)  # each writes and syncs five files
@given(st.lists(events(), max_size=8, unique_by=lambda event: event.id), st.data())
def test_an_import_is_a_union(universe, data):
    here, there = (data.draw(st.lists(st.sampled_from(universe), unique=True)) if universe else [] for _ in range(2))
    union = {event.id: event for event in here + there}
    with tempfile.TemporaryDirectory() as folder:
        one, other = Path(folder, "one"), Path(folder, "other")
        Store(one, pytest.fail).append(here)
        Store(other, pytest.fail).append(there)
        exported = exchange.from_json(exchange.to_json(stored_in(other).values()))
        assert Store(one, pytest.fail).append(exported) == len(union) - len(here)
        assert stored_in(one) == union
        assert Store(one, pytest.fail).append(exported) == 0
        Store(other, pytest.fail).append(here)
        assert stored_in(other) == stored_in(one) == union


@given(st.integers(-12 * 60, 14 * 60), MOMENTS)
def test_times_are_kept_in_utc(minutes, moment):
    elsewhere = datetime.fromisoformat(moment) + timedelta(minutes=minutes)
    offset = f"{'+' if minutes >= 0 else '-'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    written = elsewhere.replace(tzinfo=None).isoformat() + offset
    kept = Event("adam", journal.SOLUTION, time=written).time
    assert datetime.fromisoformat(kept) == datetime.fromisoformat(moment)
    assert kept.endswith("+00:00")


# Files that cannot be used.


def fill(home: Path, count: int = 400) -> set[str]:
    """Put events into the file, enough for many pages, and return their ids."""
    some = [Event(f"exercise_{number}", journal.CHECKED, passed=True, code="c" * 50) for number in range(count)]
    Store(file_in(home), pytest.fail).append(some)
    return {event.id for event in some}


def set_aside(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if ".damaged-" in path.name and not path.name.endswith("-journal"))


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one. " * 50, b"\0" * 4096, b"x"])
def test_a_file_that_is_no_database_is_set_aside_and_a_fresh_one_begun(home, capsys, content):
    file_in(home).write_bytes(content)
    assert not check("decay_steps", FAILING).passed
    (aside,) = set_aside(home)
    assert aside.read_bytes() == content
    assert re.fullmatch(r"progress\.sqlite3\.damaged-\d{8}T\d{6}Z", aside.name)
    said = capsys.readouterr().err
    assert str(aside) in said and said.count("\n") == 1
    assert [row[0] for row in rows(home)] == ["decay_steps"]
    check("decay_steps", FAILING)
    assert capsys.readouterr().err == ""
    assert len(rows(home)) == 2


def test_another_program_s_database_is_set_aside_too(home):
    with closing(sqlite3.connect(file_in(home))) as connection:
        connection.execute("CREATE TABLE events (who TEXT)")
        connection.execute("INSERT INTO events VALUES ('me')")
        connection.commit()
    journal.record("adam", journal.SOLUTION)
    assert [row[0] for row in rows(home)] == ["adam"]
    assert len(set_aside(home)) == 1


def test_what_can_still_be_read_is_taken_over(home):
    ids = fill(home)
    data = bytearray(file_in(home).read_bytes())
    with closing(sqlite3.connect(file_in(home))) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    for page in range(8, 11):
        data[page * size : (page + 1) * size] = random.Random(page).randbytes(size)
    file_in(home).write_bytes(data)
    recalled = {event.id for event in journal.recall()}
    (aside,) = set_aside(home)
    assert aside.read_bytes() == data
    assert recalled < ids
    assert len(recalled) > 0.6 * len(ids)
    assert len(rows(home)) == len(recalled)
    assert f"taken over: {len(recalled)}." in journal.news()[0]


@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_to_the_file_nothing_is_raised_and_nothing_deleted(data):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        home = Path(folder)
        patch.setenv("COURSE_HOME", folder)
        patch.setattr(journal, "_session", journal._Session())
        fill(home, 60)
        content = bytearray(file_in(home).read_bytes())
        if data.draw(st.booleans(), "truncate"):
            del content[data.draw(st.integers(0, len(content) - 1), "to") :]
        else:
            first = data.draw(st.integers(0, 200) | st.integers(0, len(content) - 1), "at")
            garbage = data.draw(st.binary(min_size=1, max_size=300))
            content[first : first + len(garbage)] = garbage
        file_in(home).write_bytes(content)

        journal.record("adam", journal.SOLUTION)
        assert all(path.read_bytes() == content for path in set_aside(home))
        journal.record("adam", journal.SOLUTION)
        recalled = journal.recall()
        assert sum(event.exercise == "adam" for event in recalled) == 2
        news = " ".join(journal.news())
        for path in set_aside(home):
            assert str(path) in news
        if "newer version" in news:
            assert file_in(home).read_bytes() == content
        else:
            patch.setattr(journal, "_session", journal._Session())
            assert sum(event.exercise == "adam" for event in journal.recall()) == 2


def test_names_of_files_set_aside_are_never_used_twice(home, monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=zone)

    monkeypatch.setattr(store, "datetime", Frozen)
    for number in range(3):
        file_in(home).write_text(f"damage {number}")
        journal.record("adam", journal.SOLUTION)
    stem = "progress.sqlite3.damaged-20260102T030405Z"
    assert {path.name: path.read_text() for path in set_aside(home)} == {
        stem: "damage 0", f"{stem}-2": "damage 1", f"{stem}-3": "damage 2",
    }


def test_kernels_that_find_the_damage_together_set_it_aside_once(home):
    script = """
        import sys, time
        from course_lib import journal
        from course_lib.journal import store
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(5):
            journal.record(f"{sys.argv[1]}_{number}", journal.SOLUTION)
        print(*journal.news(), sep="\\n")
    """
    for _ in range(5):
        content = b"damage" * 2000
        file_in(home).write_bytes(content)
        both = [python(script, name, stdin=subprocess.PIPE) for name in "ab"]
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        for process in both:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [line for process in both for line in process.communicate()[0].splitlines() if line]
        (aside,) = set_aside(home)
        assert len(said) == 1 and str(aside) in said[0]
        assert aside.read_bytes() == content
        assert {row[0] for row in rows(home)} == {f"{name}_{number}" for name in "ab" for number in range(5)}
        aside.unlink()


def test_the_journal_of_a_damaged_file_does_not_reach_the_fresh_one(home):
    fill(home, 5)
    file_in(home).write_bytes(b"damage")
    Path(f"{file_in(home)}-journal").write_bytes(b"what a killed process left")
    journal.record("adam", journal.SOLUTION)
    (aside,) = set_aside(home)
    assert Path(f"{aside}-journal").read_bytes() == b"what a killed process left"
    assert [row[0] for row in rows(home)] == ["adam"]
    assert not Path(f"{file_in(home)}-journal").exists()


def test_a_file_from_a_newer_version_is_left_alone(home, new_session, capsys):
    fill(home, 3)
    with closing(sqlite3.connect(file_in(home))) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = file_in(home).read_bytes()
    new_session()
    assert check("decay_steps", PASSING).passed
    hint("adam")
    hint("adam")
    said = capsys.readouterr()
    assert "newer version" in said.err and said.err.count("\n") == 1
    assert "Hint 2 of 3" in said.out  # the session remembers by itself
    progress.show()
    assert "cannot be read" in capsys.readouterr().err
    assert file_in(home).read_bytes() == before
    assert os.listdir(home) == ["progress.sqlite3"]


@pytest.mark.parametrize("place", ["a file", "below a file", "relative", "a folder in the file's place"])
def test_where_nothing_can_be_kept_everything_else_goes_on(home, monkeypatch, capsys, place):
    (home / "a file").write_text("mine")
    named = {"a file": home / "a file", "below a file": home / "a file" / "deeper", "relative": "some/folder"}
    monkeypatch.setenv("COURSE_HOME", str(named.get(place, home / "taken")))
    (home / "taken" / "progress.sqlite3").mkdir(parents=True)
    assert [check("decay_steps", answer).passed for answer in (FAILING, PASSING)] == [False, True]
    for _ in range(4):
        hint("decay_steps")
    said = capsys.readouterr()
    assert "solutions/05_adamw.ipynb" in said.out  # this session remembers
    assert said.err.startswith("Progress is not saved: ")
    assert said.err.count("\n") == 1
    assert (home / "a file").read_text() == "mine"


def test_a_folder_that_does_not_exist_is_made(home, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(home / "not" / "yet"))
    journal.record("adam", journal.SOLUTION)
    assert journal.news() == []
    assert (home / "not" / "yet" / "progress.sqlite3").exists()


def test_course_home_may_begin_with_a_tilde_or_be_empty(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("COURSE_HOME", "~/course")
    assert store.place() == Path(os.path.expanduser("~"), "course", "progress.sqlite3")
    monkeypatch.setenv("COURSE_HOME", "")
    assert store.place().is_absolute()
    assert store.place().parent.name == "course_lib"


WITHOUT_RIGHTS = """
import os, sys
from course_lib import checks, journal
from course_lib.checks import numbers
from course_lib.journal import store
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everything
for answer in (10.0, 33332.83):
    print(checks.check("decay_steps", answer).passed)
print([event.exercise for event in journal.recall()])
"""


@linux
@pytest.mark.parametrize("what", ["file", "folder", "both"])
def test_a_file_or_folder_that_may_not_be_written(monkeypatch, what):
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        monkeypatch.setenv("COURSE_HOME", name)
        Store(file_in(home), pytest.fail).append([Event("earlier", journal.SOLUTION)])
        before = file_in(home).read_bytes()
        file_in(home).chmod(0o666 if what == "folder" else 0o444)
        home.chmod(0o777 if what == "file" else 0o555)
        process = python(WITHOUT_RIGHTS)
        out, err = process.communicate()
        home.chmod(0o755)
        assert process.returncode == 0, err
        assert out.splitlines() == ["False", "True", "['earlier', 'decay_steps', 'decay_steps']"]
        assert err.startswith(f"Progress is not saved: {file_in(home)}: it ")
        assert err.count("\n") == 1
        assert file_in(home).read_bytes() == before


def test_a_full_disk_is_told_once_and_the_results_are_saved_when_there_is_space_again(home, monkeypatch, capsys):
    fill(home, 20)
    connect = sqlite3.connect

    def on_a_full_disk(*arguments, **options):
        connection = connect(*arguments, **options)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(store.sqlite3, "connect", on_a_full_disk)
        for _ in range(40):  # the last page has some room
            journal.record("adam", journal.CHECKED, passed=True, code="c" * 200)
        check("decay_steps", PASSING)
    said = capsys.readouterr().err
    assert "the disk is full" in said and said.count("\n") == 1
    assert 20 <= len(rows(home)) < 61
    check("adam_state_bytes", 56e9)
    assert capsys.readouterr().err == ""
    assert len(rows(home)) == 20 + 42


@linux
def test_a_write_that_the_system_refuses_halfway_leaves_the_file_whole(home):
    fill(home, 30)
    script = """
        import resource, sys
        from course_lib import journal
        size = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        for number in range(40):
            journal.record("adam", journal.CHECKED, passed=True, code="c" * 200)
        print(len(journal.recall()), len(journal._session.unsaved), *journal.news(), sep="\\n")
    """
    total, unsaved, *news = output_of(script, str(file_in(home).stat().st_size + 5000)).splitlines()
    assert len(news) == 1 and "I/O error" in news[0]
    assert int(total) == 70
    assert 0 < int(unsaved) < 40
    assert len(rows(home)) == 70 - int(unsaved)


def test_a_file_that_another_program_holds_is_told_and_written_later(home, monkeypatch):
    fill(home, 1)
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(file_in(home), isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        journal.record("adam", journal.SOLUTION)
        assert "another program holds it" in journal.news()[0]
    journal.record("adamw", journal.SOLUTION)
    assert journal.news() == []
    assert [row[0] for row in rows(home)] == ["exercise_0", "adam", "adamw"]


@pytest.mark.parametrize("package", ["sqlite3", "platformdirs"])
def test_a_missing_package_is_told_and_the_check_goes_on(home, package):
    script = """
        import sys
        sys.modules[sys.argv[1]] = None
        from course_lib.checks import check
        print(check("decay_steps", 10.0).passed, check("decay_steps", 33332.83).passed)
    """
    process = python(script, package)
    out, err = process.communicate()
    assert out == "False True\n"
    assert f"the package {package} is missing" in err and err.count("\n") == 1


# How it is shown.


def some_progress() -> progress.Overview:
    def event(exercise: str, kind: str, minute: int, **details) -> Event:
        return Event(exercise, kind, time=f"2026-01-02T03:{minute:02}:00+00:00", **details)

    return progress.Overview([
        event("adamw", journal.CHECKED, 9, passed=False), event("adamw", journal.CHECKED, 5, passed=True),
        event("adam", journal.CHECKED, 6, passed=False), event("adam", journal.CHECKED, 7, passed=False),
        event("adam", journal.HINT, 1, tier=2), event("adam", journal.HINT, 0, tier=1),
        event("momentum", journal.HINT, 2, tier=1),
        event("rmsprop", journal.CHECKED, 8, passed=True), event("rmsprop", journal.SOLUTION, 20),
        event("<b>gone</b>", journal.CHECKED, 3, passed=True), event("long_gone", journal.CHECKED, 4, passed=False),
    ])


def test_an_overview_says_how_each_exercise_stands_and_what_to_do_next():
    now = some_progress()
    of = {one.exercise: one for one in now.standings}
    assert list(of) == list(EXERCISES)
    assert (of["adamw"].state, of["adamw"].checks) == ("passed", 2)
    assert of["adamw"].last == "2026-01-02T03:09:00.000000+00:00"
    assert (of["adam"].state, of["adam"].checks, of["adam"].hints) == ("tried", 2, 2)
    assert (of["momentum"].state, of["momentum"].hints) == ("hints seen", 1)
    assert of["rmsprop"].solution
    assert of["adam_blank"] == progress.Standing("adam_blank")
    assert [(one.exercise, one.state) for one in now.retired] == [("<b>gone</b>", "passed"), ("long_gone", "tried")]
    assert now.passed == 2
    assert now.next == "adam"
    left = len(EXERCISES) - 3
    assert now.summary()[0] == f"2 of {len(EXERCISES)} passed; 1 tried; {left} to begin."
    assert now.summary()[1].startswith("Next: adam (")


def test_next_is_the_first_one_to_begin_with_and_nothing_when_all_is_passed():
    assert progress.Overview([]).next == next(iter(EXERCISES))
    done = progress.Overview([Event(name, journal.CHECKED, passed=True) for name in EXERCISES])
    assert done.next is None
    count = len(EXERCISES)
    assert done.summary() == [f"{count} of {count} passed; 0 tried; 0 to begin.", "You have passed every exercise."]


def test_text_and_html_say_the_same():
    now = some_progress()
    text, markup = str(now), now._repr_html_()
    assert re.search(r"(?m)^adam +tried 2 times +2 of 3 +2026-01-0\d \d\d:\d\d$", text)
    assert re.search(r"(?m)^rmsprop +passed +all, solution +2026", text)
    assert max(map(len, text.splitlines())) <= 80
    assert "<b>gone" in text and "<b>gone" not in markup and "&lt;b&gt;gone" in markup
    for word in [*EXERCISES, "tried 2 times", "2 of 3", "not in this version of the course", *now.summary()]:
        assert word in text and word in markup
    assert markup.count("<tbody>") == len(now.tables())


def test_show_displays_a_table_in_a_notebook_and_prints_elsewhere(home):
    script = """
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.utils.capture import capture_output
        from course_lib import progress
        progress.show()
        shell = InteractiveShell.instance()
        with capture_output() as seen:
            shell.run_cell("from course_lib import progress; progress.show()")
        print(sorted(seen.outputs[0].data), "<table>" in seen.outputs[0].data["text/html"])
    """
    out = output_of(script)
    assert "0 of " in out and "untouched" in out
    assert out.splitlines()[-1] == "['text/html', 'text/plain'] True"
    assert not list(home.iterdir())  # looking makes no file


# Questions and interviews beside the exercises


def answered(**changes):
    return Event("adam-first-step", journal.ANSWERED, **{"passed": True, "details": '{"score": 1.0}'} | changes)


def test_answers_live_beside_exercises_and_count_apart(home, new_session):
    journal.record("adam", journal.CHECKED, passed=True)
    journal.record("adam-first-step", journal.ANSWERED, passed=True, details={"score": 1.0, "answer": "一倍 lr"})
    new_session()
    assert journal.load()[1].said == {"score": 1.0, "answer": "一倍 lr"}
    now = progress.overview()
    assert now.answered == {"adam-first-step"} and now.passed == 1 and not now.retired
    assert "Questions answered: 1." in str(now) and now.to_dict()["answered"] == ["adam-first-step"]


@pytest.mark.parametrize("details", ["[]", "{", "1", '"x"', "null", "{" + " " * 20_001 + "}", 3, None])
def test_details_are_an_object_of_a_size(details):
    with pytest.raises(ValueError, match="details is"):
        answered(details=details)
    with pytest.raises(ValueError, match="details is"):
        Event("adam", journal.CHECKED, passed=True, details="{}")


def version_one(file, events):
    """A progress file as the course wrote it before it had questions."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE events (id TEXT PRIMARY KEY NOT NULL, exercise TEXT NOT NULL, kind TEXT NOT NULL, "
                           "passed INTEGER, tier INTEGER, code TEXT NOT NULL, time TEXT NOT NULL)")
        rows = [(e.id, e.exercise, e.kind, e.passed, e.tier, e.code, e.time) for e in events]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("PRAGMA user_version = 1")


def test_a_file_from_before_questions_is_read_and_widened(home, new_session):
    old = Event("adam", journal.CHECKED, passed=True)
    version_one(file_in(home), [old])
    assert journal.load() == [old]
    journal.record("adam-first-step", journal.ANSWERED, passed=True, details={"score": 1.0})
    new_session()
    assert [event.kind for event in journal.load()] == [journal.CHECKED, journal.ANSWERED]
    assert journal.load()[1].said == {"score": 1.0}


@pytest.mark.parametrize("with_details", [False, True])
def test_what_is_left_of_a_damaged_file_keeps_its_details(home, new_session, with_details):
    if with_details:
        journal.open_store().append([answered()])
    else:
        version_one(file_in(home), [Event("adam", journal.CHECKED, passed=True)])
    with closing(sqlite3.connect(file_in(home))) as connection, connection:
        connection.execute("INSERT INTO events (id, exercise, kind, code, time) VALUES ('no uuid', 'x', 'x', '', '')")
    new_session()
    (event,) = journal.load()
    assert event.details == ('{"score": 1.0}' if with_details else "")


def test_exports_carry_details_and_old_exports_are_read():
    event = answered()
    assert exchange.from_json(exchange.to_json([event])) == [event]
    old = Event("adam", journal.HINT, tier=1)
    row = {key: value for key, value in vars(old).items() if key != "details"}
    assert exchange.from_json(json.dumps({"format": exchange.FORMAT, "version": 1, "events": [row]})) == [old]
