"""The table of the notebook: what is predicted agrees with what tensors hold."""

from dataclasses import replace

import pytest
import torch

from course_lib.memory import agreement
from course_lib.memory.agreement import CASES, GPT2, LLAMA, RECIPES, Case, Row, optimizer_row, recipe_row, step_rows
from course_lib.memory.build import build, next_token_loss
from course_lib.memory.measure import measure
from course_lib.memory.models import find
from course_lib.memory.predict import predict
from course_lib.memory.recipes import find_recipe
from course_lib.optim import REGISTRY, TORCH_KEYS
from course_lib.precision.master import MasterWeights

SMALL = (replace(GPT2, layers=1), replace(LLAMA, layers=1))


@pytest.mark.parametrize("architecture", SMALL, ids=["gpt", "llama"])
@pytest.mark.parametrize("key", TORCH_KEYS)
def test_optimizer_state_is_exact(key, architecture):
    row = optimizer_row(key, architecture)
    assert row.predicted == row.measured
    # A count of steps and NAdam's product aside, whole multiples of the float32 weights.
    assert row.measured // (4 * architecture.parameters) == REGISTRY[key].state_tensors


@pytest.mark.parametrize("architecture", SMALL, ids=["gpt", "llama"])
@pytest.mark.parametrize("name", RECIPES)
def test_model_states_are_exact(name, architecture):
    row = recipe_row(name, architecture)
    assert row.predicted == row.measured
    expected = {
        "fp32": 16, "bf16": 8, "mixed-bf16": 16, "mixed-bf16, float32 gradients": 18,
        "mixed-bf16, float32 sums beside them": 20, "bf16-moments": 14, "mixed-fp16": 16,
    }  # fmt: skip
    assert row.measured // architecture.parameters == expected[name]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_activations_and_peak_are_within_three_percent(case):
    activations, peak = step_rows(case)
    assert abs(activations.difference) < 0.03 and abs(peak.difference) < 0.03
    # On torch 2.13 they agree far better: to the counts of steps, and to a LayerNorm's statistics, which the CPU
    # keeps in 16 bits and CUDA in 32.
    assert abs(activations.difference) < 1e-3 and abs(peak.difference) < 1e-3
    if case.precision == "fp32":
        assert activations.predicted == activations.measured


def test_cases_cover_what_is_promised():
    for names in (GPT2.name,), (LLAMA.name, agreement.LLAMA_2.name):
        cases = [case for case in CASES if case.architecture.name in names]
        assert {case.recompute for case in cases} == {"none", "selective", "full"}
        assert {case.attention for case in cases} == {"flash", "eager"}
        assert {case.precision for case in cases} == {"fp32", "bf16", "mixed-bf16", "autocast-bf16"}
        assert len({case.batch for case in cases}) >= 3 and len({case.sequence for case in cases}) >= 3
    moments = {
        predict(
            case.architecture, precision=case.precision, batch=case.batch, sequence=case.sequence,
            recompute=case.recompute, attention=case.attention, step="for-loop",
        ).moment.split(":")[0].split(" ")[0]
        for case in CASES
    }  # fmt: skip
    assert moments >= {"cross-entropy", "block", "step"}


def test_a_row_says_how_far_apart():
    assert Row("x", 103, 100).difference == pytest.approx(0.03)
    assert Row("x", 0, 0).difference == 0 and Row("x", 1, 0).difference == 1
    assert str(Case(find("gpt2-124m"), 2, 8, "fp32", "eager", "full")) == "GPT-2 124M, 2 x 8, fp32, eager, blocks again"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "mixed-bf16"])
def test_the_peak_on_a_gpu(precision):
    """torch.cuda.max_memory_allocated also has what kernels take inside one operation, and rounds to 512 bytes."""
    recipe = find_recipe(precision)
    model = build(GPT2, dtype=torch.bfloat16 if recipe.master else torch.float32).cuda()

    def adamw(params):
        return torch.optim.AdamW(params, foreach=False)

    optimizer = MasterWeights(model.parameters(), adamw) if recipe.master else adamw(model.parameters())
    batch = tuple(torch.zeros(8, 1024, dtype=torch.long, device="cuda") for _ in range(2))
    before = torch.cuda.memory_allocated() - sum(tensor.nbytes for tensor in model.parameters())
    timeline = measure(model, optimizer, next_token_loss, [batch] * 2, keep_gradients=True)
    predicted = predict(GPT2, precision=precision, batch=8, sequence=1024, step="for-loop").total
    assert predicted == pytest.approx(timeline.cuda_peak - before, rel=0.03)
    assert timeline.peak_total == pytest.approx(predicted, rel=0.03)
