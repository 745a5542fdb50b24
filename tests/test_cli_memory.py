"""`course memory` as a user runs it: its numbers, how they look, and what it says to bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from course_lib import cli
from course_lib.cli.memory import LETTERS, _cells
from course_lib.memory.models import MODELS

KEYS = ["parameters", "gradients", "optimizer", "activations", "other", "total"]
LLAMA = {"model_type": "llama", "vocab_size": 128256, "max_position_embeddings": 8192, "hidden_size": 4096,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def course(*arguments: str):
    """Run ``course memory`` in this process: exit code, stdout and stderr apart."""
    return CliRunner().invoke(cli.app, ["memory", *arguments], catch_exceptions=False)


def shown(*arguments: str) -> str:
    result = course(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def predicted(*arguments: str) -> dict[str, int]:
    return json.loads(shown(*arguments, "--json"))


# Numbers by hand: 7e9 parameters, mixed precision keeps 2 + 2 + 12 bytes of each.


def test_seven_billion_parameters_take_112_gb():
    document = predicted("--params", "7e9", "--optimizer", "adamw", "--precision", "mixed-bf16")
    assert list(document) == KEYS
    assert document == dict(zip(KEYS, [14 * 10**9, 14 * 10**9, 84 * 10**9, 0, 0, 112 * 10**9], strict=True))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["--zero", "1", "--gpus", "64"], 29.3125e9),  # 4P + 12P/64
     (["--zero", "2", "--gpus", "64"], 15.53125e9),  # 2P + 14P/64
     (["--zero", "3", "--gpus", "64"], 1.75e9),  # 16P/64
     (["--grads", "fp32"], 126e9),  # 18P
     (["--accumulate", "fp32"], 140e9),  # 20P
     (["--precision", "fp32"], 112e9),  # 4 + 4 + 8
     (["--precision", "bf16"], 56e9),  # 2 + 2 + 4
     (["--optimizer", "lion"], 84e9),  # 2 + 2 + 4 + 4
     (["--tensor", "8", "--gpus", "8"], 14e9)],
)
def test_variants_of_the_setting(arguments, expected):
    assert predicted("--params", "7e9", *arguments)["total"] == expected


@pytest.mark.parametrize("count", ["7B", "7b", "7 B", "7e9", "7000000000", "7_000_000_000", "7,000,000,000", "7000M",
                                   "0.007T"])
def test_a_count_as_people_write_it(count):
    assert predicted("--params", count)["total"] == 112 * 10**9


def test_the_command_of_the_help_page():
    arguments = ["--model", "llama-3-8b", "--optimizer", "adamw", "--precision", "mixed-bf16", "--grads", "bf16",
                 "--zero", "1", "--gpus", "64", "--batch", "1", "--seq", "8192", "--recompute", "selective"]
    document = predicted(*arguments)
    assert sum(document[key] for key in KEYS[:-1]) == document["total"]
    assert document["parameters"] == document["gradients"] == 2 * 8_030_261_248
    assert document["optimizer"] == 12 * 8_030_261_248 // 64
    assert document["activations"] > 0
    less = predicted(*arguments[:-1], "full")
    assert less["activations"] < document["activations"]


def test_a_model_from_its_config_json(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(LLAMA))
    known = predicted("--model", "llama-3-8b")
    assert predicted("--model", str(path)) == predicted("--model", str(path.parent)) == known
    monkeypatch.chdir(path.parent)
    assert predicted("--model", "config.json") == known
    (path.parent / "llama-3-8b").mkdir()  # a folder of that name does not hide the model known here
    assert predicted("--model", "llama-3-8b") == known


# How it looks.


def test_the_table_adds_up_to_what_json_says():
    arguments = ["--model", "llama-3-8b", "--zero", "1", "--gpus", "64"]
    text, document = shown(*arguments), predicted(*arguments)
    assert text.startswith("Llama 3 8B, 8,030,261,248 parameters: adamw, mixed-bf16, ZeRO-1, 64 GPUs\n")
    for key, size in document.items():
        assert re.search(rf" {key} +│ +{size:,} │ +{size / 1e9:,.2f} ", text), key
    inner = re.findall(r"│   │   (\S.*?) +│ +([\d,]+) │ +│ +│", text)
    assert {"float32 master weights": f"{document['parameters'] * 2 // 64:,}"}.items() <= dict(inner).items()


def test_every_model_fits_80_columns():
    for model in MODELS:
        for card in ([], ["--card", "80GB"]):
            text = shown("--model", model, *card)
            assert max(map(len, text.splitlines())) <= 80, model
            assert f"{MODELS[model].architecture.parameters:,}" in text


def test_narrow_and_wide_terminals(monkeypatch):
    for width in ("40", "200"):
        monkeypatch.setenv("COLUMNS", width)
        text = shown("--model", "deepseek-v3", "--card", "h100")
        assert max(map(len, text.splitlines())) <= int(width)
        assert re.search(r"│ parameters +│.* 1,342.05 │", text)  # no number is cut or folded


def test_in_a_pipe_there_is_no_colour_and_ascii_is_enough():
    command = [sys.executable, "-m", "course_lib.cli", "memory", "--model", "gpt2-124m", "--card", "16GB"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"\x1b" not in done.stdout


def bar(text: str) -> str:
    (line,) = re.findall(r"^([PGOA+.]{20,})$", text, re.MULTILINE)
    return line


def test_the_bar_is_in_proportion():
    line = bar(shown("--params", "7e9"))
    assert len(line) == 78
    assert re.fullmatch("P+G+O+", line)
    assert [line.count(letter) for letter in "PGO"] == pytest.approx([78 / 8, 78 / 8, 78 * 6 / 8], abs=1.5)
    free = bar(shown("--params", "1e9", "--card", "80GB"))
    assert free.count(".") == pytest.approx(78 * 64 / 80, abs=3)


def test_the_mark_shows_where_the_card_ends():
    fits, does_not = shown("--params", "1e9", "--card", "80GB"), shown("--params", "7e9", "--card", "80GB")
    for text, end in ((fits, 78), (does_not, round(78 * 80 / 112))):
        lines = text.splitlines()
        assert lines[lines.index(bar(text)) + 1].rstrip().index("^") == end - 1


def test_cells_fill_the_width_and_show_the_smallest_part():
    assert _cells({"P": 10**12, "G": 1, "O": 0, "A": 1, "+": 0}, 78) == {"P": 76, "G": 1, "O": 0, "A": 1, "+": 0}
    assert set(LETTERS) == set(KEYS) - {"total"}


# A card.


def test_a_model_that_fits_a_card():
    text = shown("--params", "1e9", "--card", "80GB")
    assert "A card of 80.00 GB, 0.50 GB of it for the CUDA context. Fits, with 63.5 GB to" in text
    document = predicted("--params", "1e9", "--card", "80GB")
    assert document["total"] == 16 * 10**9
    assert document["card"] == {"bytes": 80 * 10**9, "context": 5 * 10**8, "fits": True, "advice": [],
                                "largest_model": 79_500_000_000 // 16}
    assert "alone fit, trained so: 4,968,750,000 parameters" in text


def test_a_model_that_does_not_fit_gets_advice_in_order():
    arguments = ["--model", "llama-3-8b", "--card", "80GB"]
    text, document = shown(*arguments), predicted(*arguments)
    card = document["card"]
    assert "Does not fit: " in text
    assert card["fits"] is False
    assert any(step["total"] + card["context"] <= card["bytes"] == 80 * 10**9 for step in card["advice"])
    for step in card["advice"]:
        assert step["total"] < document["total"]
        assert step["change"].split()[0] in text
        assert f"{step['total'] / 1e9:,.2f}" in text


def test_what_no_advice_makes_fit_is_said():
    arguments = ["--model", "kimi-k2", "--card", "16GB"]
    card = predicted(*arguments)["card"]
    assert card["advice"]
    assert all(step["total"] + card["context"] > card["bytes"] for step in card["advice"])
    assert "Does not fit: " in shown(*arguments)


# Bad input: exit code 2, a sentence with what is allowed or meant, no traceback.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "either --model llama-3-8b or --params 7e9"),
     (["--model", "llama-3-8b", "--params", "8e9"], "either --model llama-3-8b or --params 7e9"),
     (["--model", "lama-3-8b"], "Did you mean llama-3-8b"),
     (["--model", "missing/config.json"], "There is no file missing/config.json"),
     (["--model", ""], "There are: gpt2-124m"),
     (["--params", "seven"], "Write a number as 7e9, 7B or 350M"),
     (["--params", "nan"], "Write a number as 7e9"), (["--params", "inf"], "Write a number as 7e9"),
     (["--params", "7"], "Did you mean 7B?"), (["--params", "0"], "Allowed: 1000 to 1e15"),
     (["--params", "-7e9"], "Allowed: 1000 to 1e15"), (["--params", "1e400"], "Allowed: 1000 to 1e15"),
     (["--params", "7e9", "--optimizer", "adamww"], "adamw"), (["--params", "7e9", "--optimizer", "x"], "adamw"),
     (["--params", "7e9", "--precision", "mixed-bf15"], "mixed-bf16"),
     (["--params", "7e9", "--grads", "fp31"], "fp32"), (["--params", "7e9", "--accumulate", "bf16"], "fp32"),
     (["--params", "7e9", "--zero", "4"], "0 to 3"), (["--params", "7e9", "--zero", "-1"], "0 to 3"),
     (["--params", "7e9", "--zero", "1"], "only one"),
     (["--params", "7e9", "--gpus", "0"], "from 1 to"), (["--params", "7e9", "--gpus", "9999999999"], "from 1 to"),
     (["--params", "7e9", "--tensor", "3"], "multiple of 3"), (["--params", "7e9", "--pipeline", "0"], "from 1 to"),
     (["--model", "llama-3-8b", "--batch", "0"], "from 1 to"), (["--model", "llama-3-8b", "--seq", "-5"], "from 1 to"),
     (["--model", "gpt2-124m", "--seq", "2048"], "1,024"),
     (["--model", "llama-3-8b", "--recompute", "selectiv"], "selective"),
     (["--model", "llama-3-8b", "--attention", "flush"], "flash"),
     (["--model", "llama-3-8b", "--step", "fusedd"], "fused"),
     (["--params", "7e9", "--buckets", "-1"], "from 0 to"),
     (["--params", "7e9", "--card", "80"], "Write 80GB"), (["--params", "7e9", "--card", "h10"], "Did you mean h100")],
    ids=str,
)
def test_bad_input_is_told_in_a_sentence(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = course(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_that_no_file_can_have():
    result = course("--model", "x" * 5000)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "There is no model" in result.stderr


@pytest.mark.parametrize("arguments", [["--params", "7e9", "--gpus", "many"], ["--parms", "7e9"], ["llama-3-8b"]])
def test_what_is_no_option_is_told_with_the_usage(arguments):
    result = course(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_config_that_is_none(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "resnet"}')
    assert "no transformer known here" in course("--model", str(path)).stderr
    path.write_text(json.dumps({key: value for key, value in LLAMA.items() if key != "hidden_size"}))
    assert "lacks hidden_size" in course("--model", str(path)).stderr
    path.write_text("{")
    assert "is not JSON" in course("--model", str(path)).stderr
