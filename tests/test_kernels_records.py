"""Files of `course bench`: what is written is read again, and anything else is refused with the field named."""

from __future__ import annotations

import copy
import json
import re

import pytest

from course_lib.kernels import records
from course_lib.kernels.records import BadFile, Measurement, Quartiles, Record, Timed, all_recorded, load, save, to_json
from course_lib.kernels.roofline import Machine

COPY = Timed("copy", Quartiles(0.01, 0.009, 0.02), 20, 8 * 10**8, Quartiles(0.5, 0.4, 0.6))
FUSED = Timed("fused", Quartiles(0.02, 0.019, 0.03), 20, 28 * 10**8, Quartiles(1.0, 1.0, 1.0), 0)
NAIVE = Timed("naive", Quartiles(0.2, 0.19, 0.3), 20, 28 * 10**8, None, 4 * 10**8)


def measurement(**changes) -> Measurement:
    values = {"optimizer": "adamw", "dtype": "float32", "shapes": "large", "tensors": 1, "parameters": 10**8,
              "least_bytes": 28 * 10**8, "sets": 1, "base": "fused", "ways": (NAIVE, FUSED, COPY),
              "unavailable": {"triton": "Triton's kernels need CUDA."}}
    return Measurement(**values | changes)


def record(**changes) -> Record:
    machine = Machine("card", 4e12, {"float32": 5e13}, "measured", measured=True)
    values = {"device": "A card", "kind": "cuda", "memory": 141 * 10**9, "driver": "580.1", "cuda": "13.0",
              "torch": "2.13", "triton": "3.7", "python": "3.11.9", "course": "1.0", "threads": 8,
              "date": "2026-01-31", "command": "course bench --record", "machine": machine,
              "measurements": (measurement(),)}
    return Record(**values | changes)


def test_what_is_written_is_read_again(tmp_path):
    for made in (record(), record(kind="cpu", cuda=None, driver=None, triton=None, machine=None, memory=None)):
        path = tmp_path / f"{made.kind}.json"
        save(made, path)
        assert load(path) == made
        assert path.read_text() == to_json(made)


def test_the_document_holds_bandwidths_and_shares():
    document = record().to_dict()
    assert list(document)[:3] == ["format", "device", "kind"] and document["format"] == records.FORMAT
    ways = {way["way"]: way for way in document["measurements"][0]["ways"]}
    # 2.8e9 bytes in 20 ms are 140 GB/s; the copy's 0.8e9 in 10 ms are 80.
    assert (ways["fused"]["gb_per_second"], ways["copy"]["gb_per_second"]) == (140, 80)
    assert (ways["fused"]["share_of_copy"], ways["copy"]["share_of_copy"]) == (1.75, 1)
    assert ways["naive"]["times_base"] is None and ways["naive"]["extra_bytes"] == 4 * 10**8
    assert record(measurements=(measurement(ways=(FUSED,)),)).to_dict()["measurements"][0]["ways"][0][
        "share_of_copy"] is None


def test_what_was_not_measured_is_told():
    with pytest.raises(ValueError, match="no time of 'triton' for adamw on large. Triton's kernels need CUDA"):
        measurement().find("triton")
    with pytest.raises(ValueError, match="no time of 'flat'.* Measured: naive, fused, copy"):
        measurement().find("flat")
    assert record().find("adamw", "large") == measurement()
    with pytest.raises(ValueError, match="A card, 2026-01-31: nothing .* lion on gpt2 in float32. There is: adamw"):
        record().find("lion", "gpt2")


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "card.json"
    path.write_text("mine")
    with pytest.raises(BadFile, match="card.json exists and was left as it is"):
        save(record(), path)
    assert path.read_text() == "mine"
    with pytest.raises(BadFile, match="cannot be written"):
        save(record(), tmp_path / "missing" / "card.json")


WHERE = ("measurements", 0)
WAY = (*WHERE, "ways", 1)
HUGE = 10**400  # a whole number that no float holds


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [(("format",), 2, "format is 2. Allowed: 1"),
     (("device",), " ", "device is ' '. Allowed: some text"),
     (("kind",), "tpu", "kind is 'tpu'. Allowed: cpu or cuda"),
     (("cuda",), None, "cuda is None. Allowed where kind is cuda: a version"),
     (("memory",), -1, "memory is -1"), (("threads",), True, "threads is True. Allowed: a whole number >= 1"),
     (("threads",), 0, "threads is 0"),
     (("date",), "31.1.2026", "date is '31.1.2026'. Allowed: a date as 2026-01-31"),
     (("command",), "rm -rf", "command is 'rm -rf'. Allowed: what begins with course bench"),
     (("machine", "bandwidth"), 0, "machine: Invalid bandwidth: 0"),
     (("machine", "name"), None, "machine: name is None"),
     (("machine", "flops"), [], "machine: Invalid flops"), (("machine", "flops"), [1], "machine: "),
     (("measurements",), [], "measurements is []. Allowed: a list with at least one entry"),
     (("measurements",), {}, "measurements is {}"),
     ((*WHERE,), 7, "measurements[0]: this is 7. Allowed: an object with the fields of a Measurement"),
     ((*WHERE, "dtype"), "float64", "measurements[0]: dtype is 'float64'. Allowed: float32 or bfloat16"),
     ((*WHERE, "parameters"), 1.5, "measurements[0]: parameters is 1.5"),
     ((*WHERE, "base"), "copied", "base is 'copied'. Allowed: null, or one of the ways: naive, fused"),
     ((*WHERE, "unavailable"), {"fused": "why"}, "ways has fused twice, or among those not available"),
     ((*WHERE, "unavailable"), {"triton": 3}, "measurements[0]: unavailable is"),
     ((*WHERE, "unavailable"), [], "measurements[0]: unavailable is []"),
     ((*WAY, "way"), "naive", "ways has naive twice"),
     ((*WAY, "rounds"), 0, "measurements[0]: ways[1]: rounds is 0"),
     ((*WAY, "seconds"), 0.02, "measurements[0]: ways[1]: seconds: this is 0.02"),
     ((*WAY, "seconds", "low"), 0.021, "ways[1]: seconds: low, median, high are 0.021, 0.02, 0.03"),
     ((*WAY, "seconds", "high"), float("inf"), "ways[1]: seconds: high is inf. Allowed: a finite number > 0"),
     ((*WAY, "seconds", "median"), float("nan"), "ways[1]: seconds: median is nan"),
     ((*WAY, "times_base", "median"), "1", "ways[1]: times_base: median is '1'"),
     ((*WAY, "extra_bytes"), 0.5, "ways[1]: extra_bytes is 0.5"),
     ((*WAY, "gb_per_second"), 141, "ways[1]: gb_per_second is 141. Allowed: 140.0, which follows from"),
     ((*WAY, "share_of_copy"), None, "ways[1]: share_of_copy is None. Allowed: 1.75"),
     (("format",), True, "format is True. Allowed: 1"), (("format",), 1.0, "format is 1.0. Allowed: 1"),
     (("date",), "2026-13-45", "date is '2026-13-45'. Allowed: a date as 2026-01-31"),
     (("date",), "20260131", "date is '20260131'"),
     (("machine", "measured"), 1, "machine: measured is 1. Allowed: true or false"),
     (("machine", "measured"), None, "machine: measured is None"),
     (("machine", "bandwidth"), HUGE, "machine: Invalid bandwidth: inf"),
     (("machine", "flops", "float32"), HUGE, "machine: Invalid flops['float32']: inf"),
     (("memory",), HUGE, "memory is inf. Allowed: a whole number of bytes >= 0"),
     ((*WAY, "bytes"), HUGE, "ways[1]: bytes is inf. Allowed: a whole number >= 1"),
     ((*WAY, "bytes"), -HUGE, "ways[1]: bytes is -inf"),
     ((*WAY, "seconds", "high"), HUGE, "ways[1]: seconds: high is inf. Allowed: a finite number > 0"),
     ((*WAY, "gb_per_second"), HUGE, "ways[1]: gb_per_second is inf. Allowed: 140.0"),
     ((*WAY, "share_of_copy"), HUGE, "ways[1]: share_of_copy is inf. Allowed: 1.75"),
     ((*WHERE, "ways", 2, "share_of_copy"), True, "ways[2]: share_of_copy is True. Allowed: 1.0"),
     (("wattage",), 700, "wattage: no such field. Allowed: device, kind"),
     ((*WAY, "joules"), 1, "ways[1]: joules: no such field")],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_wrong_field_is_named(tmp_path, place, value, says):
    document = record().to_dict()
    inside = document
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    path = tmp_path / "card.json"
    path.write_text(json.dumps(document))
    with pytest.raises(BadFile, match=re.escape(says)) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("place", "says"), [
    ((*WAY, "bytes"), "bytes is 1000"), ((*WAY, "seconds", "median"), "median is 1000"), (("threads",), "threads is"),
    ((*WAY, "gb_per_second"), "gb_per_second is 1000"), (("machine", "bandwidth"), "machine: "),
])
def test_a_document_that_was_not_read_from_a_file_is_checked_alike(place, says):
    document = record().to_dict()
    inside = document
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = HUGE
    with pytest.raises(ValueError, match=re.escape(says)):
        records.from_dict(document)


@pytest.mark.parametrize(
    ("text", "says"),
    [("[" * 100_000, "nested too deeply"), ('{"format": 1, "device": ' + "[" * 100_000, "nested too deeply"),
     ('{"format": ' + "9" * 5000 + "}", "format is inf. Allowed: 1")],
    ids=["lists", "a field", "digits"],
)
def test_what_no_parser_takes(tmp_path, text, says):
    path = tmp_path / "deep.json"
    path.write_text(text)
    with pytest.raises(BadFile, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < len(str(path)) + 200


def test_whether_a_file_can_be_written_is_found_out_and_leaves_nothing(tmp_path):
    records.require_writable(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(BadFile, match="a.json exists and was left as it is"):
        records.require_writable(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "mine"
    for path in (tmp_path / ("n" * 300), tmp_path / "missing" / "a.json"):
        with pytest.raises(BadFile, match="cannot be written: "):
            records.require_writable(path)


def test_a_missing_field_is_named(tmp_path):
    document = record().to_dict()
    path = tmp_path / "card.json"
    for place, where in ((document, ""), (document["measurements"][0], "measurements[0]: "),
                         (document["measurements"][0]["ways"][0], "measurements[0]: ways[0]: ")):
        for name in list(place):
            if name == "format":
                continue
            kept = copy.copy(place[name])
            del place[name]
            path.write_text(json.dumps(document))
            with pytest.raises(BadFile, match=re.escape(f"{where}{name} is missing")):
                load(path)
            place[name] = kept


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"format"', '{"format": 1}'])
def test_what_is_no_record(tmp_path, text):
    path = tmp_path / "notes.json"
    path.write_text(text)
    with pytest.raises(BadFile, match="notes.json"):
        load(path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadFile, match="cannot be read"):
        load(tmp_path / "none.json")
    with pytest.raises(BadFile, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BadFile, match="bytes.json is not JSON"):
        load(tmp_path / "bytes.json")


def test_every_recorded_file_is_valid(tmp_path, monkeypatch):
    """What the course brings is what the command that it names wrote: to the letter."""
    for path in records.RECORDED.glob("*.json"):
        assert path.read_text(encoding="utf-8") == to_json(load(path))
        assert "/" not in load(path).command
    assert len(all_recorded()) == len(list(records.RECORDED.glob("*.json")))
    monkeypatch.setattr(records, "RECORDED", tmp_path)
    assert all_recorded() == []
    save(record(device="B"), tmp_path / "b.json")
    save(record(device="A"), tmp_path / "a.json")
    assert [one.device for one in all_recorded()] == ["A", "B"]
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(BadFile, match="c.json"):
        all_recorded()
