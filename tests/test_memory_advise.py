"""The way back from a card: the largest model that fits, and what to change until one does."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from course_lib.memory.advise import TIGHT, advise, largest_model, spare, verdict
from course_lib.memory.lora import adapters, frozen_bytes, lora
from course_lib.memory.models import find
from course_lib.memory.predict import CUDA_CONTEXT, predict
from course_lib.memory.recipes import RECIPES
from course_lib.memory.setup import Setup
from course_lib.memory.states import STATES

GB = 10**9
LLAMA, GPT2, GPT2_XL = find("llama-3-8b"), find("gpt2-124m"), find("gpt2-1.5b")


def words(changes) -> list[str]:
    return [change.change for change in changes]


# --- The largest model ----------------------------------------------------------------------------


@pytest.mark.parametrize(("setup", "bytes_each"), [
    ({}, 16), ({"zero": 2, "gpus": 8}, 3.75), ({"zero": 3, "gpus": 8}, 2), ({"precision": "bf16"}, 8),
    ({"grads": "fp32"}, 18), ({"accumulate": "fp32"}, 20),
])
def test_the_largest_model_on_80_gb_by_hand(setup, bytes_each):
    exact = 80e9 / bytes_each
    assert exact - 8 <= largest_model(80 * GB, context=0, **setup) <= exact
    assert exact - 8 <= largest_model(80 * GB + CUDA_CONTEXT, **setup) <= exact


@settings(deadline=None, max_examples=60)
@given(
    card=st.integers(10**9, 3 * 10**11),
    optimizer=st.sampled_from(sorted(STATES)),
    precision=st.sampled_from(sorted(set(RECIPES) - {"fp8-lm"})),
    zero=st.integers(0, 3),
    gpus=st.integers(1, 100),
)
def test_it_is_the_inverse_of_predict(card, optimizer, precision, zero, gpus):
    assume(gpus > 1 or not zero)
    setup = {"optimizer": optimizer, "precision": precision, "zero": zero, "gpus": gpus}
    found = largest_model(card, **setup)
    assert spare(predict(found, **setup), card) >= 0 > spare(predict(found + 1, **setup), card)


def test_a_card_that_is_no_size_is_refused():
    for card in (0, -80 * GB, float("nan"), 80, True, 10**15, "80GB"):
        with pytest.raises(ValueError, match=r"Invalid card: .*80 GB are 80e9"):
            largest_model(card)
        with pytest.raises(ValueError, match="Invalid card"):
            advise(GPT2, card)


def test_where_buffers_fill_the_card_not_one_parameter_fits():
    with pytest.raises(ValueError, match="Not one parameter fits"):
        largest_model(GB, buckets=GB)


def test_the_verdict_says_what_is_left_and_when_that_is_little():
    found = predict(4 * GB)  # 64 GB
    assert verdict(found, 80 * GB) == "Fits, with 15.5 GB to spare."
    assert verdict(found, 65 * GB).startswith("Fits, with 0.5 GB to spare: so little")
    assert verdict(found, 60 * GB) == "Does not fit: 4.5 GB too much."


# --- Advice ---------------------------------------------------------------------------------------


def test_what_fits_needs_no_advice():
    assert advise(GPT2, 24 * GB, sequence=512) == []


def test_what_costs_nothing_comes_first_and_stays_where_more_is_needed():
    enough = advise(GPT2, 7 * GB, attention="eager", batch=4)
    assert words(enough) == ["flash attention"]
    more = advise(GPT2, 4 * GB, attention="eager", batch=4)
    assert words(more)[0] == "flash attention"
    assert words(more)[1].startswith("micro-batches of ")
    assert words(advise(7e9, 120 * GB, step="foreach")) == ["a fused optimizer step"]


def test_micro_batches_are_no_smaller_than_needed():
    changes = advise(GPT2, 16 * GB, batch=32)
    assert len(changes) == 1
    size = int(changes[0].change.removeprefix("micro-batches of ").split(",")[0])
    goal = 16 * GB - int(TIGHT * 16 * GB)
    assert 32 % size == 0
    assert spare(predict(GPT2, batch=size), goal) >= 0 > spare(predict(GPT2, batch=2 * size), goal)
    assert changes[0].change.endswith(f"{32 // size} of them accumulated")


def test_gpus_that_are_there_are_sharded_over_before_anything_that_costs():
    assert words(advise(7e9, 80 * GB, gpus=8)) == ["ZeRO-1"]
    assert words(advise(7e9, 20 * GB, gpus=64)) == ["ZeRO-2"]
    assert words(advise(7e9, 10 * GB, gpus=64)) == ["ZeRO-3"]


def test_other_numerics_come_with_the_gpus_that_would_do_without_them():
    eight_bit, gpus = advise(7e9, 80 * GB)
    assert eight_bit.change == "8-bit AdamW"
    assert gpus.change == "or instead, the optimizer as asked, on 2 GPUs: ZeRO-1"
    assert gpus.prediction == predict(7e9, zero=1, gpus=2)


def test_llama_3_8b_does_not_train_on_one_card_of_24_gb_and_that_is_said():
    plain, gpus, adapted = advise(LLAMA, 24 * GB)
    assert plain.change == "not on 1 GPU of 24.0 GB"
    tried = "with all that helps (full recomputation, bf16 weights without master copy, Adafactor), "
    assert plain.cost.startswith(tried)
    assert "are missing" in plain.cost
    assert "chunks of tokens" in plain.cost  # its logits are most of the rest
    assert "ZeRO-3" in gpus.change
    assert spare(gpus.prediction, 24 * GB) >= 0
    assert "QLoRA" in adapted.change
    assert spare(adapted.prediction, 24 * GB) >= 0


def test_on_40_gb_lora_over_16_bit_weights_is_enough():
    assert "QLoRA" not in advise(LLAMA, 40 * GB)[-1].change
    assert "LoRA" in advise(LLAMA, 40 * GB)[-1].change


def test_where_nothing_helps_it_is_said_of_every_way():
    changes = advise(find("llama-3-405b"), 24 * GB)
    assert [change.split(" ")[0] for change in words(changes)] == ["not", "nor", "nor"]


@settings(deadline=None, max_examples=25)
@given(
    model=st.sampled_from((GPT2, GPT2_XL, LLAMA, 7e9)),
    card=st.sampled_from((8, 16, 24, 40, 80, 192)),
    gpus=st.sampled_from((1, 8)),
    batch=st.sampled_from((1, 4, 6)),
    precision=st.sampled_from(("fp32", "mixed-bf16", "mixed-fp16", "autocast-bf16", "bf16")),
    optimizer=st.sampled_from(("adamw", "lion", "muon")),
    attention=st.sampled_from(("flash", "eager")),
)
def test_each_change_helps_and_the_last_one_fits_or_it_is_said(model, card, **setup):
    changes = advise(model, card * GB, **setup)
    own = [change for change in changes if not change.change.startswith(("or ", "not ", "nor "))]
    totals = [predict(model, **setup).total, *(change.prediction.total for change in own)]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)
    if own:
        assert spare(own[-1].prediction, card * GB) >= 0
    for change in changes:
        assert change.cost
        if change.change.startswith("or "):
            assert spare(change.prediction, card * GB) >= 0
        if change.change.startswith(("not ", "nor ")):
            assert spare(change.prediction, card * GB) < 0
            assert "missing" in change.cost or "left" in change.cost


# --- LoRA -----------------------------------------------------------------------------------------


def test_loras_adapters_of_gpt2_by_hand():
    # Rank 16 beside qkv (768 -> 2304), output (768 -> 768), up (768 -> 3072) and down (3072 -> 768), in 12 blocks.
    assert adapters(GPT2) == 12 * 16 * ((768 + 2304) + (768 + 768) + 2 * (768 + 3072))


def test_frozen_weights_in_16_and_4_bits():
    matrices = 12 * 12 * 768**2
    assert frozen_bytes(GPT2, 16) == 2 * GPT2.parameters
    packed = frozen_bytes(GPT2, 4) - 2 * (GPT2.parameters - matrices)
    assert packed == matrices // 2 + matrices // 64 + 4 * matrices // (64 * 256)


def test_lora_keeps_no_gradients_of_frozen_weights():
    found = lora(GPT2, Setup(sequence=256))
    full = predict(GPT2, sequence=256)
    assert found.gradients == 4 * adapters(GPT2)
    assert found.optimizer == 8 * adapters(GPT2)
    assert (found.activations, found.other) == (full.activations, full.other)
    assert sum(sum(lines.values()) for lines in found.details.values()) == found.total
