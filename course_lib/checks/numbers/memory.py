"""Numbers asked for in the exercises of notebook 10."""

from __future__ import annotations

from course_lib.checks.numbers.common import Answer, Slip
from course_lib.checks.report import OTHER_SPECIFICATION

_CARD, _GPUS = 80e9, 8
_ELEMENTS = 1024 * 4096
_BLOCKS = _ELEMENTS // 256
_BATCH, _SEQUENCE, _VOCABULARY = 4, 8192, 128_256
_LOGITS = _BATCH * _SEQUENCE * _VOCABULARY

_LARGEST_MODEL = (
    Slip(
        _CARD / 16,
        "nothing-divided",
        "That is the card over 16 bytes: plain data parallelism, or one GPU.",
        "ZeRO divides something by the 8 GPUs: what, in stage 2?",
    ),
    Slip(
        _CARD / (4 + 12 / _GPUS),
        "stage-1",
        "That is stage 1, 4 + 12 / 8 bytes per parameter (or stage 2 with weights and gradients in float32).",
        "What does stage 2 divide besides the optimizer's part?",
    ),
    Slip(
        _CARD / 2,
        "stage-3",
        "That is stage 3, or 8 cards taken as one (16 / 8 bytes per parameter); or the 16-bit weights alone.",
        "In stage 2, what lies whole on each GPU, and what else is there?",
    ),
    Slip(
        80 * 2**30 / (2 + 14 / _GPUS),
        "gibibytes",
        "That is right for a card of 80 GiB, 80 * 2^30 bytes.",
        "Here 80 GB is 80e9 bytes.",
        OTHER_SPECIFICATION,
    ),
    Slip(
        _CARD / (2 + 10 / _GPUS),
        "no-master",
        "That is 2 + 10 / 8 bytes per parameter: the master copy is missing, or one moment.",
        "What are the 12 bytes of the optimizer made of?",
    ),
    Slip(
        _CARD / (2 + 12 / _GPUS),
        "no-gradients",
        "That is 2 + 12 / 8 bytes per parameter: the gradients are missing.",
        "In stage 2 each GPU keeps its part of the gradients.",
    ),
    Slip(
        _CARD / (2 + 16 / _GPUS),
        "gradients-in-fp32",
        "That is 2 + 16 / 8 bytes per parameter: float32 gradients, as Megatron-LM keeps them.",
        "Here weights and gradients have two bytes each.",
        OTHER_SPECIFICATION,
    ),
    Slip(
        _CARD / (14 / _GPUS),
        "no-weights",
        "That is 14 / 8 bytes per parameter: the weights are missing.",
        "What lies whole on each GPU in stage 2?",
    ),
    Slip(
        _CARD / (12 / _GPUS),
        "optimizer-only",
        "That is 12 / 8 bytes per parameter: the optimizer's part alone.",
        "Weights and gradients are on the GPU too.",
    ),
    Slip(
        _CARD / (14 + 2 / _GPUS),
        "gradients-only-divided",
        "That is 14 + 2 / 8 bytes per parameter: the gradients alone are divided.",
        "Stage 2 divides what stage 1 divides, and the gradients besides.",
    ),
    Slip(
        _CARD / (12 + 4 / _GPUS),
        "stages-reversed",
        "That is 12 + 4 / 8 bytes per parameter: weights and gradients are divided, the optimizer's part is not.",
        "Which part does ZeRO divide first?",
    ),
    Slip(
        _CARD / (6 + 10 / _GPUS),
        "master-not-divided",
        "That is 6 + 10 / 8 bytes per parameter: the master copy lies whole on each GPU.",
        "The master copy is needed only where its part is updated: it belongs to the optimizer.",
    ),
    Slip(
        _GPUS * _CARD / (2 + 14 / _GPUS),
        "all-cards",
        "That divides the memory of all 8 cards by the bytes on one.",
        "2 + 14 / 8 bytes are needed on each GPU: how many bytes has each?",
    ),
    Slip(
        _CARD / (4 + 12 / _GPUS + 2 / _GPUS),
        "gradients-counted-twice",
        "That is 4 + 14 / 8 bytes per parameter: the gradients are there whole, and divided besides.",
        "In stage 2 a GPU keeps its part of the gradients only.",
    ),
    Slip(
        _CARD / (2 + 8 / _GPUS),
        "no-master-no-gradients",
        "That is 2 + 8 / 8 bytes per parameter: the weights and the two moments.",
        "What else does mixed precision keep, and what does backward() leave behind?",
    ),
    Slip(
        0.8 * _CARD / (2 + 14 / _GPUS),
        "reserve",
        "That keeps a fifth of the card free.",
        "Sensible, but not asked for: model states alone, and they may just fit.",
    ),
    Slip(
        _CARD / 1e9 / (2 + 14 / _GPUS),
        "billions",
        "That is right in billions; the answer is a number of parameters.",
        "80 GB is 80e9 bytes.",
    ),
    Slip(
        2 + 14 / _GPUS,
        "bytes-per-parameter",
        "That is the bytes that each parameter takes on a GPU: right, and one step short.",
        "How many of these fit into 80e9 bytes?",
    ),
    Slip(
        _CARD * (2 + 14 / _GPUS),
        "multiplied",
        "That is the card times the bytes of a parameter.",
        "How often do 3.75 bytes fit into 80e9?",
    ),
    Slip(
        _CARD / (2 + 14 / _GPUS) / 8,
        "divided-by-8",
        "That is the right number over 8: over the bits of a byte, or over the GPUs once more.",
        "How often do 3.75 bytes fit into 80e9 bytes?",
    ),
)

_STATE_BYTES = (
    Slip(
        2 * _ELEMENTS,
        "no-constants",
        "That is one byte for each element of both states: the constants of the blocks are missing.",
        "What turns a code of one byte back into a number?",
    ),
    Slip(
        _ELEMENTS + 4 * _BLOCKS,
        "one-state",
        "That is one of the two states, its constants included.",
        "Which two averages does AdamW keep?",
    ),
    Slip(_ELEMENTS, "one-state-no-constants", "That is one state without its constants.", "AdamW keeps two averages."),
    Slip(
        2 * _ELEMENTS + 4 * _BLOCKS,
        "constants-once",
        "That has one constant for both states, or constants of two bytes.",
        "Each state has a float32 for each of its blocks.",
    ),
    Slip(
        2 * _ELEMENTS + 2 * _BLOCKS,
        "constants-of-one-byte",
        "That has constants of one byte, or one float32 for each column of the matrix.",
        "A block has 256 elements, wherever rows and columns end, and a float32 has four bytes.",
    ),
    Slip(
        2 * _ELEMENTS + 2 * 8 * _BLOCKS,
        "constants-of-8-bytes",
        "That has constants of 8 bytes.",
        "How many bytes has a float32?",
    ),
    Slip(
        2 * _ELEMENTS + 2 * 32 * _BLOCKS,
        "constants-in-bits",
        "That has constants of 32 bytes.",
        "A float32 has 32 bits. How many bytes?",
    ),
    Slip(
        2 * _ELEMENTS + 2 * 4 * _ELEMENTS // 2048,
        "blocks-of-2048",
        "That has blocks of 2048, as in the paper (Dettmers et al. 2022, arXiv 2110.02861).",
        "Here a block has 256 elements.",
        OTHER_SPECIFICATION,
    ),
    Slip(
        2 * _ELEMENTS + 2 * 4 * _ELEMENTS // 64,
        "blocks-of-64",
        "That has blocks of 64.",
        "Here a block has 256 elements.",
        OTHER_SPECIFICATION,
    ),
    Slip(
        2 * _ELEMENTS + 2 * 4 * 1024,
        "constants-per-row",
        "That has one constant for each row of 4096 elements.",
        "A block has 256 elements, wherever the rows end.",
    ),
    Slip(
        2 * _ELEMENTS + 2 * 4,
        "constants-per-tensor",
        "That has one constant for a whole state.",
        "A block has 256 elements: how many blocks are there?",
    ),
    Slip(
        2 * _ELEMENTS + 2 * 4 * 256,
        "constants-256",
        "That has 256 constants for each state (or counts the maps of 256 float32 that the codes are looked up in, and "
        "no constants).",
        "256 is the size of a block. How many blocks are there?",
    ),
    Slip(
        2 * _ELEMENTS + 2 * 4 * _BLOCKS + 2 * 4 * 256,
        "with-maps",
        "That counts the two maps of 256 float32 besides, in which the codes are looked up.",
        "The maps are there once for all tensors: they are not this matrix's.",
        OTHER_SPECIFICATION,
    ),
    Slip(
        2 * 5 * _ELEMENTS,
        "constants-per-element",
        "That has a constant for each element.",
        "One float32 serves 256 elements.",
    ),
    Slip(
        2 * 4 * _ELEMENTS,
        "float32-state",
        "That is the state of AdamW in float32.",
        "How many bytes has an 8-bit element?",
    ),
    Slip(
        2 * 4 * _ELEMENTS + 2 * 4 * _BLOCKS,
        "float32-state-and-constants",
        "That has four bytes for each element, and the constants besides.",
        "How many bytes has an 8-bit element?",
    ),
    Slip(
        2 * 2 * _ELEMENTS,
        "16-bit-state",
        "That is the state in 16 bits.",
        "How many bytes has an 8-bit element?",
    ),
    Slip(
        6 * _ELEMENTS + 2 * 4 * _BLOCKS,
        "with-master",
        "That counts a float32 master copy of the weights too.",
        "Only the state is asked for: m and v.",
    ),
    Slip(
        10 * _ELEMENTS + 2 * 4 * _BLOCKS,
        "with-weights-and-gradients",
        "That counts weights, gradients and a float32 master copy too.",
        "Only the state is asked for: m and v.",
    ),
    Slip(8 * (2 * _ELEMENTS + 8 * _BLOCKS), "bits", "That is the number of bits.", "Eight bits make a byte."),
    Slip(
        (2 * _ELEMENTS + 8 * _BLOCKS) / 2**20,
        "mebibytes",
        "That is right in MiB; the answer is asked for in bytes.",
        "1 MiB = 2^20 bytes.",
    ),
    Slip(
        (2 * _ELEMENTS + 8 * _BLOCKS) / 1e6,
        "megabytes",
        "That is right in MB; the answer is asked for in bytes.",
        "1 MB = 1e6 bytes.",
    ),
    Slip(
        2 * (1 + 4 / 256),
        "bytes-per-parameter",
        "That is the bytes for one parameter.",
        "How many parameters has the matrix?",
    ),
    Slip(
        2 * 4 * _BLOCKS,
        "constants-alone",
        "That is the constants of the blocks alone.",
        "To what do they belong?",
    ),
    Slip(
        16 * _ELEMENTS,
        "eight-bytes",
        "That is 8 bytes for each element of both states.",
        "Eight bits make a byte.",
    ),
    *(
        Slip(
            2 * _ELEMENTS + 2 * 4 * _BLOCKS + more,
            f"{more}-bytes-more",
            f"That is {more} bytes more than the state has, as a count of steps would take.",
            "Asked for are m and v with their constants.",
        )
        for more in (4, 8)
    ),
    Slip(_BLOCKS, "blocks", "That is the number of blocks.", "How many bytes does a block take, for both states?"),
)

_LOGITS_GB = (
    Slip(
        _LOGITS / 1e9,
        "a-quarter",
        "That is a quarter: elements instead of bytes, or one sequence instead of four.",
        "How many bytes has a float32, and how many sequences a micro-batch of 4?",
    ),
    Slip(2 * _LOGITS / 1e9, "16-bits", "That is the logits in 16 bits.", "Asked for is their float32 copy."),
    Slip(
        6 * _LOGITS / 1e9,
        "both-copies",
        "That is the 16-bit logits and the float32 ones together.",
        "Asked for are the float32 ones alone.",
    ),
    Slip(
        8 * _LOGITS / 1e9,
        "with-gradient",
        "That is twice as much: the gradient of the logits besides, or 8 bytes for each of them.",
        "Asked for are the logits alone. How many bytes has a float32?",
    ),
    Slip(
        12 * _LOGITS / 1e9,
        "three-copies",
        "That is three times as much: log-softmax and gradient besides.",
        "Asked for are the logits alone.",
    ),
    Slip(
        4 * _LOGITS / 2**30,
        "gibibytes",
        "That is right in GiB (2^30 bytes); the answer is asked for in GB.",
        "1 GB = 1e9 bytes.",
        OTHER_SPECIFICATION,
    ),
    Slip(4 * _LOGITS, "bytes", "That is right in bytes; the answer is asked for in GB.", "1 GB = 1e9 bytes."),
    Slip(4 * _LOGITS / 1e6, "megabytes", "That is right in MB; the answer is asked for in GB.", "1 GB = 1000 MB."),
    Slip(4 * _LOGITS / 2**20, "mebibytes", "That is right in MiB; the answer is asked for in GB.", "1 GB = 1e9 bytes."),
    Slip(32 * _LOGITS / 1e9, "bits", "That is in gigabits: 32 for each logit.", "Eight bits make a byte."),
    Slip(
        4 * _BATCH * _SEQUENCE * 128_000 / 1e9,
        "vocabulary-rounded",
        "That has a vocabulary of 128,000.",
        "The vocabulary has 128,256 entries.",
    ),
    *(
        Slip(
            4 * _BATCH * _SEQUENCE * size / 1e9,
            f"vocabulary-of-{model}",
            f"That has the vocabulary of {name}, {size:,} entries.",
            "The vocabulary has 128,256 entries.",
        )
        for model, name, size in (("llama-2", "Llama 2", 32_000), ("gpt-2", "GPT-2", 50_257))
    ),
    Slip(
        4 * _BATCH * _SEQUENCE * 4096 / 1e9,
        "hidden-states",
        "That is the hidden states of a model of width 4096.",
        "Which shape do the logits have?",
    ),
    Slip(
        4 * _BATCH * 8000 * _VOCABULARY / 1e9,
        "sequence-rounded",
        "That has a sequence of 8,000 positions.",
        "8K positions are 8192.",
    ),
    Slip(
        4 * _BATCH * _VOCABULARY / 1e9,
        "one-position",
        "That is one position of each sequence, as in generation.",
        "In training every position predicts its next token.",
    ),
    Slip(
        4 * _VOCABULARY / 1e9,
        "one-token",
        "That is one token.",
        "In training every position of every sequence predicts its next token.",
    ),
    Slip(
        4 * _BATCH * _SEQUENCE**2 / 1e9,
        "attention",
        "That is a matrix of scores for each sequence.",
        "How many logits has a position?",
    ),
    Slip(
        4 * _SEQUENCE * _VOCABULARY * 4096 / 1e9,
        "times-width",
        "That multiplies by the width of the model.",
        "Which shape do the logits have?",
    ),
    Slip(
        4 * 4096 * _VOCABULARY / 1e9,
        "head",
        "That is the weights of a head of width 4096 in float32.",
        "Which shape do the logits have?",
    ),
)

ANSWERS: dict[str, Answer] = {
    "largest_model": Answer(_CARD / (2 + 14 / _GPUS), 2e-3, "parameters", _LARGEST_MODEL),
    "eight_bit_bytes": Answer(2 * _ELEMENTS + 2 * 4 * _BLOCKS, 1e-9, "bytes", _STATE_BYTES),
    "logits_gb": Answer(4 * _LOGITS / 1e9, 1e-3, "GB", _LOGITS_GB),
}
