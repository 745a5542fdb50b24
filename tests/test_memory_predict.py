"""The closed form: the numbers that people quote, by hand arithmetic; what must hold for all choices; bad input."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from math import ceil

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from course_lib.memory import activations
from course_lib.memory.build import build, next_token_loss
from course_lib.memory.measure import fake, measure
from course_lib.memory.models import MODELS, find
from course_lib.memory.predict import CHUNKED_LOSS, predict
from course_lib.memory.recipes import RECIPES, find_recipe
from course_lib.memory.setup import RECOMPUTE, STEPS, Setup
from course_lib.memory.states import STATES
from course_lib.memory.working import largest_unit, step_temporaries
from course_lib.precision.master import MasterWeights

PARTS = ("parameters", "gradients", "optimizer", "activations", "other")
GPT2 = find("gpt2-124m")
LLAMA = find("llama-3-8b")
CHOICES = {
    "optimizer": st.sampled_from(sorted(STATES)),
    "precision": st.sampled_from(sorted(set(RECIPES) - {"fp8-lm"})),
    "zero": st.integers(0, 3),
    "gpus": st.sampled_from((1, 2, 3, 8, 64)),
    "batch": st.integers(1, 4),
    "sequence": st.sampled_from((1, 64, 1024)),
    "recompute": st.sampled_from(RECOMPUTE),
    "attention": st.sampled_from(("flash", "eager")),
    "step": st.sampled_from(STEPS),
    "buckets": st.sampled_from((0, 25 * 2**20)),
}


def choices(**fixed):
    """Choices that go together."""
    drawn = st.fixed_dictionaries({name: values for name, values in CHOICES.items() if name not in fixed})
    return drawn.map(lambda found: found | fixed).filter(lambda found: found["gpus"] > 1 or not found["zero"])


def total_gb(**setup) -> float:
    """GB of 7e9 parameters."""
    return predict(7e9, **setup).total / 1e9


# --- Numbers by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize(("setup", "expected"), [
    ({}, 112.0),  # (2 + 2 + 12) x 7
    ({"precision": "mixed-fp16"}, 112.0),
    ({"precision": "fp32"}, 112.0),  # (4 + 4 + 8) x 7
    ({"precision": "autocast-bf16"}, 112.0),
    ({"zero": 1, "gpus": 64}, 29.3125),  # 4 x 7 + 12 x 7 / 64
    ({"zero": 2, "gpus": 64}, 15.53125),  # 2 x 7 + 14 x 7 / 64
    ({"zero": 3, "gpus": 64}, 1.75),  # 16 x 7 / 64
    ({"grads": "fp32"}, 126.0),
    ({"grads": "fp32", "zero": 1, "gpus": 64}, 43.3125),  # Megatron's 6 + 12 / d
    ({"accumulate": "fp32"}, 140.0),
    ({"precision": "bf16"}, 56.0),
    ({"precision": "bf16-moments"}, 98.0),
    ({"precision": "bf16-moments", "grads": "bf16"}, 84.0),
    ({"precision": "fp8-lm"}, 42.0),  # 2 + 1 + 1 + 2
    ({"precision": "fp8-deepseek"}, (13 + 4 / 128**2) * 7),
    ({"optimizer": "adamw8bit"}, (10 + 8 / 256) * 7),
    ({"optimizer": "adamw8bit", "precision": "bf16"}, (6 + 8 / 256) * 7),
    ({"optimizer": "adamw4bit"}, (9 + 8 / 128) * 7),
    ({"optimizer": "momentum"}, 84.0),
    ({"optimizer": "lion"}, 84.0),
    ({"optimizer": "muon"}, 84.0),
    ({"optimizer": "sgd"}, 56.0),
    ({"optimizer": "sophia"}, 112.0),
    ({"optimizer": "adafactor"}, (8 + 8 / 4096) * 7),
    ({"optimizer": "came"}, (12 + 16 / 4096) * 7),
    ({"optimizer": "soap"}, (8 + 24) * 7),
    ({"step": "foreach"}, 112.0 + 4 * 7 + 4 * 7),  # gradients cast, one temporary of all masters
    ({"step": "foreach", "precision": "bf16"}, 56.0 + 2 * 7),
])
def test_seven_billion_parameters(setup, expected):
    assert total_gb(**setup) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("zero", "per_parameter"), [(0, 16), (1, 5.5), (2, 3.75), (3, 2)])
def test_eight_gpus_by_stage(zero, per_parameter):
    assert predict(8e9, zero=zero, gpus=8).total == per_parameter * 8e9


def test_parts_of_the_recipe_that_is_asked_for_most():
    found = predict(7e9)
    assert [getattr(found, part) for part in PARTS] == [14_000_000_000, 14_000_000_000, 84_000_000_000, 0, 0]
    assert found.checkpoint == 98_000_000_000  # 14 bytes a parameter: no gradients


def test_bytes_per_parameter_of_every_recipe():
    expected = {"fp32": 16, "autocast-bf16": 16, "autocast-fp16": 16, "mixed-bf16": 16, "mixed-fp16": 16, "bf16": 8,
                "bf16-moments": 14, "fp8-lm": 6, "fp8-deepseek": 13}
    assert {key: recipe.per_parameter for key, recipe in RECIPES.items()} == expected
    for key, each in expected.items():
        scales = 4 / 128**2 if key == "fp8-deepseek" else 0
        assert predict(2**24, precision=key).total == (each + scales) * 2**24


def test_the_largest_rank_holds_the_part_rounded_up():
    found = predict(1001, zero=3, gpus=8)  # 126 elements: 125.125 rounded up
    assert (found.parameters, found.gradients, found.optimizer) == (252, 252, 12 * 126)


def test_tensor_and_pipeline_parallelism_divide_and_leave_the_rest_to_zero():
    found = predict(8e9, tensor=4, pipeline=2, gpus=64, zero=1)  # 1e9 a GPU, 8 data-parallel ranks
    assert (found.parameters, found.gradients, found.optimizer) == (2 * 10**9, 2 * 10**9, 12 * 10**9 // 8)


def test_fp8_weights_of_a_real_model_leave_embedding_head_and_norms_in_16_bits():
    found = predict(LLAMA, precision="fp8-deepseek", sequence=128)
    width, mlp, layers = 4096, 14336, 32
    matrices = layers * (2 * width * width + 2 * width * 1024 + 3 * width * mlp)
    assert found.parameters == matrices + 4 * matrices // 128**2 + 2 * (LLAMA.parameters - matrices)


def test_the_largest_unit_of_a_dense_model_a_mixture_and_a_small_model():
    assert largest_unit(LLAMA) == 128256 * 4096  # the embedding; a block has 218 million
    deepseek = find("deepseek-v3").weights()
    mixture = sum(weight.total // 58 for weight in deepseek if "expert" in weight.name or "router" in weight.name)
    attention = sum(weight.size for weight in deepseek
                    if weight.name.startswith(("layers.attention", "layers.mlp_norm")))
    assert largest_unit(find("deepseek-v3")) == mixture + attention
    assert largest_unit(GPT2) == 50257 * 768


# --- A real model ---------------------------------------------------------------------------------


def test_activations_are_those_of_the_peak_where_gradients_are_kept():
    peak = activations.at_peak(LLAMA, 2, 512, compute=2, attention="flash", recompute="selective")
    found = predict(LLAMA, batch=2, sequence=512, recompute="selective")
    assert found.activations == sum(peak.saved.values())
    assert found.other == sum(peak.working.values())
    assert found.moment == peak.moment


def test_the_sequence_is_the_models_context_unless_given():
    assert predict(GPT2) == predict(GPT2, sequence=1024)


def test_zero_2_and_3_hold_a_block_beside_their_share():
    unit = 128256 * 4096
    one, two, three = (predict(LLAMA, zero=zero, gpus=8, sequence=512).other for zero in (1, 2, 3))
    assert (two - one, three - two) == (2 * unit, 2 * unit)


def test_a_step_that_needs_more_than_the_activations_is_the_peak():
    found = predict(GPT2, sequence=16, step="foreach")
    assert found.moment == "step"
    assert found.activations == 0
    assert found.other == 8 * GPT2.parameters  # gradients cast to float32 and one temporary, both of all weights
    assert any("gone by then" in note for note in found.notes)


def test_a_405b_model_is_predicted_in_a_second_and_never_allocated():
    before = time.perf_counter()
    found = predict(find("llama-3-405b"), sequence=4096, zero=3, gpus=1024)
    assert time.perf_counter() - before < 1
    assert found.parameters == 2 * ceil(MODELS["llama-3-405b"].architecture.parameters / 1024)


def test_the_json_has_exactly_its_keys_and_plain_integers():
    found = json.loads(json.dumps(predict(GPT2).to_dict()))
    assert tuple(found) == (*PARTS, "total")
    assert all(type(size) is int for size in found.values())


def test_notes_say_what_is_assumed():
    def notes(model, **setup):
        return " ".join(predict(model, **setup).notes)

    assert "Model states alone" in notes(7e9)
    assert "matrices of 4096" in notes(7e9, optimizer="adafactor")
    assert "not measured" in notes(find("mixtral-8x7b"), sequence=64)
    assert "no fused kernel of Muon" in notes(GPT2, optimizer="muon")
    assert CHUNKED_LOSS in notes(LLAMA, recompute="full")
    assert CHUNKED_LOSS not in notes(LLAMA)


# --- What always holds ----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(choices(), st.sampled_from((GPT2, find("qwen3-0.6b"), 7e9)))
def test_parts_and_details_add_up_and_none_is_negative(setup, model):
    found = predict(model, **setup)
    assert found.total == sum(getattr(found, part) for part in PARTS)
    assert {part: sum(lines.values()) for part, lines in found.details.items()} == {
        part: getattr(found, part) for part in PARTS
    }
    assert all(type(getattr(found, part)) is int and getattr(found, part) >= 0 for part in PARTS)
    assert found.to_dict()["total"] == found.total


@settings(max_examples=60, deadline=None)
@given(choices(zero=0), st.sampled_from((2, 8, 48)))
def test_model_states_fall_with_the_stage(setup, gpus):
    found = [predict(GPT2, **setup | {"zero": zero, "gpus": gpus}) for zero in range(4)]
    states = [each.parameters + each.gradients + each.optimizer for each in found]
    assert states[0] >= states[1] > states[2] > states[3]


@given(choices(step="fused", buckets=0), st.integers(1, 10**6), st.integers(2, 1000))
def test_model_states_are_linear_in_the_parameters(setup, thousands, times):
    small, large = 2**24 * 64 * thousands, 2**24 * 64 * thousands * times  # whole matrices and shards
    assume(setup["gpus"] != 3)  # 3 divides neither
    assume(large <= 10**15)
    assert predict(large, **setup).total == times * predict(small, **setup).total


@settings(max_examples=40, deadline=None)
@given(choices(batch=1, recompute="none"))
def test_a_larger_batch_never_takes_less_and_recomputation_never_keeps_more(setup):
    assert predict(GPT2, **setup | {"batch": 2}).total >= predict(GPT2, **setup).total
    kept = [sum(activations.saved(GPT2, 1, setup["sequence"], attention=setup["attention"], recompute=each).values())
            for each in RECOMPUTE]
    assert kept == sorted(kept, reverse=True)


# --- Temporaries of the step ----------------------------------------------------------------------


def test_a_step_over_masters_casts_gradients_unless_they_are_float32_already():
    weights = GPT2.weights()
    setup = Setup(step="foreach")
    cast = "gradients cast to float32 for the step"
    assert step_temporaries(weights, setup, 1000, 0)[cast] == 4000
    for other in (replace(setup, grads="fp32"), replace(setup, accumulate="fp32"), replace(setup, precision="bf16")):
        assert cast not in step_temporaries(weights, other, 1000, 0)
    widened = step_temporaries(weights, replace(setup, precision="bf16-moments"), 1000, 4000)
    assert widened["moments widened to float32 for the step"] == 4000


@pytest.mark.parametrize(("batch", "moment"), [(1, "step"), (4, "cross-entropy")])
def test_the_whole_prediction_is_what_a_step_over_master_weights_really_holds(batch, moment):
    with fake():
        model = build(GPT2, dtype=torch.bfloat16)
        optimizer = MasterWeights(model.parameters(), partial(torch.optim.AdamW, foreach=True))
        tokens = torch.zeros(batch, 512, dtype=torch.long)
        timeline = measure(model, optimizer, next_token_loss, [(tokens, tokens)] * 2, keep_gradients=True)
    found = predict(GPT2, batch=batch, sequence=512, step="foreach")
    assert found.moment == moment
    assert found.total == pytest.approx(timeline.peak_total, rel=1e-3)


# --- Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [0, -7e9, float("nan"), float("inf"), 1e30, 1.5, True, None, "7B"])
def test_a_number_of_parameters_that_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match=r"Invalid model: .*Allowed: a whole number from 1 to 1e15 parameters"):
        predict(model)


@pytest.mark.parametrize(("setup", "words"), [
    ({"optimizer": "adamm"}, r"'adamm'. Did you mean adam"),
    ({"optimizer": "xyzzy"}, r"Allowed: sgd, momentum"),
    ({"optimizer": None}, r"Invalid optimizer: None"),
    ({"precision": "mixed_bf16"}, r"Did you mean mixed-bf16"),
    ({"precision": "fp32", "grads": "bf16"}, r"Under fp32, gradients are fp32, not bf16"),
    ({"grads": "fp16"}, r"Under mixed-bf16, gradients are bf16 or fp32, not fp16"),
    ({"grads": "int8"}, r"Invalid grads: 'int8'"),
    ({"accumulate": "bf16"}, r"Invalid accumulate: 'bf16'"),
    ({"grads": "fp32", "accumulate": "fp32"}, r"summed where they are"),
    ({"optimizer": "muon", "precision": "fp8-lm"}, r"defined for Adam and AdamW"),
    ({"zero": 1}, r"only one: gpus is 1"),
    ({"zero": 3, "gpus": 8, "tensor": 8}, r"only one: all 8 GPUs hold parts of one replica"),
    ({"zero": 4}, r"Allowed: a whole number from 0 to 3"),
    ({"zero": True}, r"Invalid zero: True"),
    ({"gpus": 0}, r"Invalid gpus: 0"),
    ({"gpus": 10**9}, r"Invalid gpus: 1e9. Allowed: a whole number from 1 to 1,000,000"),
    ({"gpus": float("nan")}, r"Invalid gpus: nan"),
    ({"tensor": 3, "gpus": 8}, r"must be a multiple of 3, and 8 is not"),
    ({"batch": -1}, r"Invalid batch: -1"),
    ({"batch": 1.5}, r"Invalid batch: 1.5"),
    ({"sequence": 0}, r"Invalid sequence: 0"),
    ({"recompute": "ful"}, r"Did you mean full"),
    ({"attention": "flahs"}, r"Did you mean flash"),
    ({"step": "fuse"}, r"Did you mean fused"),
    ({"buckets": -1}, r"Invalid buckets: -1"),
])
def test_choices_that_cannot_be_are_refused_in_a_sentence(setup, words):
    with pytest.raises(ValueError, match=words):
        predict(7e9, **setup)


@pytest.mark.parametrize(("setup", "words"), [
    ({"sequence": 2048}, r"learned positions for 1,024"),
    ({"pipeline": 13, "gpus": 13}, r"GPT-2 124M has 12 layers"),
    ({"tensor": 5, "gpus": 5}, r"12 heads, which 5 GPUs cannot share"),
])
def test_choices_that_the_model_does_not_allow_are_refused(setup, words):
    with pytest.raises(ValueError, match=words):
        predict(GPT2, **setup)


def test_names_are_read_whatever_their_case():
    assert predict(7e9, optimizer="AdamW", precision=" BF16 ") == predict(7e9, optimizer="adamw", precision="bf16")
    assert find_recipe("FP32").key == "fp32"
