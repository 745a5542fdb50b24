"""The stand-in for triton.language: by hand, and the same source in Triton's own interpreter."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.kernels import stub as tl

# ------------------------------------------------------------------------------------------- beside the interpreter

KERNELS = '''
@jit
def adamw(p_ptr, g_ptr, m_ptr, v_ptr, n, lr, beta1, beta2, eps, decay, c1, c2, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    p = tl.load(p_ptr + offsets, mask=mask).to(tl.float32)
    g = tl.load(g_ptr + offsets, mask=mask).to(tl.float32)
    m = beta1 * tl.load(m_ptr + offsets, mask=mask) + (1 - beta1) * g
    v = beta2 * tl.load(v_ptr + offsets, mask=mask) + (1 - beta2) * g * g
    p = p - lr * decay * p - lr * (m / c1) / (tl.sqrt(v / c2) + eps)
    tl.store(p_ptr + offsets, p, mask=mask)
    tl.store(m_ptr + offsets, m, mask=mask)
    tl.store(v_ptr + offsets, v, mask=mask)


@jit
def table(x_ptr, y_ptr, out_ptr, whole_ptr, f_ptr, k_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    f = tl.load(f_ptr)
    k = tl.load(k_ptr)
    x = tl.load(x_ptr + i)
    y = tl.load(y_ptr + i)
    tl.store(out_ptr + 0 * BLOCK + i, x + y)
    tl.store(out_ptr + 1 * BLOCK + i, x - y)
    tl.store(out_ptr + 2 * BLOCK + i, x * y)
    tl.store(out_ptr + 3 * BLOCK + i, x / y)
    tl.store(out_ptr + 4 * BLOCK + i, x * f)
    tl.store(out_ptr + 5 * BLOCK + i, 0.1 * x + k)
    tl.store(out_ptr + 6 * BLOCK + i, 3 - y / 7)
    tl.store(out_ptr + 7 * BLOCK + i, tl.where(x > y, x, 0.3))
    tl.store(out_ptr + 8 * BLOCK + i, tl.maximum(x, y) - tl.minimum(x, k))
    tl.store(out_ptr + 9 * BLOCK + i, tl.abs(x - y))
    tl.store(out_ptr + 10 * BLOCK + i, tl.sqrt((x * x).to(tl.float32)) + tl.zeros((BLOCK,), tl.float32))
    tl.store(out_ptr + 11 * BLOCK + i, x.to(tl.float16) / 3.0)
    tl.store(whole_ptr + 0 * BLOCK + i, (x < y) & (x != 2))
    tl.store(whole_ptr + 1 * BLOCK + i, x * 1.7)


@jit
def integers(x_ptr, y_ptr, out_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    y = tl.load(y_ptr + i)
    tl.store(out_ptr + 0 * BLOCK + i, x // y)
    tl.store(out_ptr + 1 * BLOCK + i, x % y)
    tl.store(out_ptr + 2 * BLOCK + i, tl.cdiv(x, 3))
    tl.store(out_ptr + 3 * BLOCK + i, x * 65536 * 65536)
    tl.store(out_ptr + 4 * BLOCK + i, (x | y) & ~x)


@jit
def transpose(x_ptr, y_ptr, rows, columns, BLOCK: tl.constexpr):
    r = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    mask = (r < rows) & (c < columns)
    x = tl.load(x_ptr + r * columns + c, mask=mask, other=0.0)
    tl.store(y_ptr + c * rows + r, x + tl.num_programs(1), mask=mask)


@jit
def strided(x_ptr, total_ptr, n, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(tl.program_id(0) * BLOCK, n, tl.num_programs(0) * BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + offsets, mask=offsets < n, other=0.5)
    tl.store(total_ptr + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), total)
'''


# Triton decides when it is imported whether its own functions, such as tl.zeros, are interpreted: hence a process.
WORKER = '''
import pickle, sys
import numpy as np, torch, triton
import on_triton

while True:
    name, grid, arguments, constants = pickle.load(sys.stdin.buffer)
    tensors = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    with np.errstate(all="ignore"):
        getattr(on_triton, name)[grid](*tensors, **constants)
    pickle.dump([t.numpy() for t in tensors if isinstance(t, torch.Tensor)], sys.stdout.buffer)
    sys.stdout.flush()
'''


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Runs a kernel by name on the stub and in Triton's interpreter, and gives the arrays of both."""
    pytest.importorskip("triton")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "on_triton.py").write_text("import triton.language as tl\nfrom triton import jit\n" + KERNELS)
    (folder / "worker.py").write_text(WORKER)
    mine: dict = {"tl": tl, "jit": lambda kernel: kernel}
    exec(KERNELS, mine)
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    worker = subprocess.Popen(
        [sys.executable, folder / "worker.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )

    def run(name, grid, *arguments, order="forward", **constants):
        ours = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        tl.run(mine[name], grid, *ours, order=order, **constants)
        pickle.dump((name, grid, arguments, constants), worker.stdin)
        worker.stdin.flush()
        return [a for a in ours if isinstance(a, np.ndarray)], pickle.load(worker.stdout)

    yield run
    worker.kill()
    worker.communicate()


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 70), block=st.sampled_from([1, 8, 16]), step=st.integers(1, 3),
       seed=st.integers(0, 99), order=st.sampled_from(tl.ORDERS), half=st.booleans())  # fmt: skip
def test_an_adamw_is_that_of_the_interpreter(both, n, block, step, seed, order, half):
    rng = np.random.default_rng(seed)
    p, g, m, v = (rng.normal(size=n).astype(np.float32) for _ in range(4))
    p, g = (x.astype(np.float16 if half else np.float32) for x in (p, g))
    # Few bits: the interpreter keeps these in 64 bits, a compiled kernel and the stub in 32.
    scalars = (n, 2**-7, 0.875, 0.984375, 2**-20, 0.125, 1 - 0.875**step, 1 - 0.984375**step)
    mine, theirs = both("adamw", (tl.cdiv(n, block),), p, g, m, v * v, *scalars, order=order, BLOCK=block)
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-6 if a.dtype == np.float32 else 1e-3, atol=1e-7)


TYPES = (np.int8, np.int32, np.int64, np.float16, np.float32, np.float64)


@pytest.mark.parametrize("types", [*itertools.product(TYPES, TYPES)], ids=str)
def test_every_operator_gives_the_interpreters_numbers_in_its_type(both, types):
    """The results are stored in float64, so that a type too narrow or too wide shows."""
    rng = np.random.default_rng(7)
    x, y = (rng.integers(1, 9, 16).astype(t) / (t(1) if np.issubdtype(t, np.integer) else t(7)) for t in types)
    x, y = (a.astype(t) for a, t in zip((x, y), types, strict=True))
    single = np.array([0.1], np.float32), np.array([3], np.int32)  # as an argument of a compiled kernel
    mine, theirs = both("table", (1,), x, y, np.zeros(12 * 16), np.zeros(2 * 16, np.int32), *single, BLOCK=16)
    got, want = mine[2].reshape(12, 16), theirs[2].reshape(12, 16)
    for row in range(12):
        np.testing.assert_allclose(got[row], want[row], rtol=2e-16, atol=0, err_msg=f"row {row}")
    assert np.array_equal(mine[3], theirs[3])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(-99, 99), st.integers(-9, 9).filter(bool)), min_size=8, max_size=8))
def test_integers_divide_towards_zero_and_wrap_around(both, pairs):
    x, y = np.array(pairs, np.int32).T.copy()
    mine, theirs = both("integers", (1,), x, y, np.zeros(5 * 8, np.int64), BLOCK=8)
    assert np.array_equal(mine[2], theirs[2])
    assert np.array_equal(mine[2][:8], np.trunc(x / y))


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (4, 4), (9, 2)])
def test_two_axes_and_a_grid_of_two(both, shape):
    x = np.arange(np.prod(shape), dtype=np.float32)
    grid = (tl.cdiv(shape[0], 4), tl.cdiv(shape[1], 4))
    mine, theirs = both("transpose", grid, x, np.zeros_like(x), *shape, BLOCK=4)
    assert np.array_equal(mine[1], theirs[1])
    assert np.array_equal(mine[1].reshape(shape[::-1]), x.reshape(shape).T + grid[1])


def test_a_loop_whose_length_is_an_argument(both):
    x = np.random.default_rng(0).normal(size=77).astype(np.float32)
    mine, theirs = both("strided", (3,), x, np.zeros(3 * 8, np.float32), 77, BLOCK=8)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-6)
    missing = -(-77 // 8) * 8 - 77  # lanes that were given 0.5
    assert np.isclose(mine[1].sum(), x.sum() + 0.5 * missing, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------- by hand


def double(x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(x_ptr + offsets, 2 * x, mask=offsets < n)


@pytest.mark.parametrize("order", tl.ORDERS)
def test_a_record_counts_what_was_moved(order):
    x = np.arange(10, dtype=np.float32)
    record = tl.run(double, 3, x, len(x), order=order, BLOCK=4)
    assert np.array_equal(x, 2 * np.arange(10))
    assert (record.programs, record.loads, record.stores) == (3, 3, 3)
    assert record.bytes_read == record.bytes_written == 40
    assert not record.races
    assert {a.program: a.elements.tolist() for a in record.of("store", "x_ptr")}[2] == [8, 9]
    wanted = {"forward": [0, 1, 2], "backward": [2, 1, 0]}.get(order)
    programs = [access.program for access in record.of("load")]
    assert programs == wanted if wanted else sorted(programs) == [0, 1, 2]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), block=st.sampled_from([1, 2, 4, 8, 16]), order=st.sampled_from(tl.ORDERS))
def test_every_element_is_read_and_written_once_whatever_the_size(n, block, order):
    x = np.arange(n, dtype=np.float64)
    record = tl.run(double, tl.cdiv(n, block), x, n, order=order, BLOCK=block)
    assert np.array_equal(x, 2.0 * np.arange(n))
    assert record.bytes_read == record.bytes_written == 8 * n


def test_an_array_of_two_axes_is_written_in_place_and_one_that_is_not_contiguous_is_refused():
    x = np.ones((3, 4), np.float32)
    tl.run(double, 3, x, x.size, BLOCK=4)
    assert (x == 2).all()
    with pytest.raises(ValueError, match="not contiguous"):
        tl.run(double, 3, x.T, x.size, BLOCK=4)
    with pytest.raises(TypeError, match="uint8"):
        tl.run(double, 1, np.ones(4, np.uint8), 4, BLOCK=4)


@pytest.mark.parametrize("kind", ["load", "store"])
def test_an_access_outside_is_refused_in_words(kind):
    def unmasked(x_ptr, n, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offsets, mask=None if kind == "load" else offsets < n)
        tl.store(x_ptr + offsets, x)

    x = np.zeros(6, np.float32)
    said = rf"Program 1 {kind}s element 6 of `x_ptr`, which has 6.*mask="
    with pytest.raises(tl.OutOfBounds, match=said) as caught:
        tl.run(unmasked, 2, x, 6, BLOCK=4)
    assert (caught.value.kind, caught.value.size, caught.value.elements.tolist()) == (kind, 6, [6, 7])

    def before(x_ptr):
        tl.load(x_ptr - 1)

    with pytest.raises(IndexError, match="element -1"):
        tl.run(before, 1, x)


def test_what_is_masked_out_is_no_number_that_one_may_count_on():
    def sees(x_ptr, y_ptr, i_ptr, j_ptr, OTHER: tl.constexpr):
        lanes = tl.arange(0, 4)
        tl.store(y_ptr + lanes, tl.load(x_ptr + lanes, mask=lanes < 2, other=OTHER))
        tl.store(j_ptr + lanes, tl.load(i_ptr + lanes, mask=lanes < 2, other=OTHER))

    x, i = np.arange(4, dtype=np.float32), np.arange(4, dtype=np.int32)
    y, j = np.zeros_like(x), np.zeros_like(i)
    tl.run(sees, 1, x, y, i, j, OTHER=None)
    assert np.array_equal(y, [0, 1, np.nan, np.nan], equal_nan=True)
    assert (np.abs(j[2:]) > 1e8).all()
    tl.run(sees, 1, x, y, i, j, OTHER=7)
    assert y.tolist() == j.tolist() == [0, 1, 7, 7]


def test_an_element_written_by_two_programs_is_told_with_both():
    def everyone(x_ptr, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) + tl.arange(0, BLOCK)
        tl.store(x_ptr + offsets, tl.program_id(0))

    results = set()
    for order in tl.ORDERS:
        x = np.zeros(5, np.float32)
        (race,) = tl.run(everyone, 2, x, order=order, BLOCK=4).races
        assert (race.argument, race.element, set(race.programs), race.other) == ("x_ptr", 1, {0, 1}, "stores")
        assert "element 1 of `x_ptr`" in str(race)
        results.add(tuple(x))
    assert len(results) == 2  # the order decides


def test_an_element_that_another_program_reads_is_a_race_and_one_that_all_read_is_none():
    def shifted(x_ptr, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(x_ptr + offsets, tl.load(x_ptr + offsets + 1) + tl.load(x_ptr + 8))

    (race,) = tl.run(shifted, 2, np.zeros(9, np.float32), BLOCK=4).races
    assert (race.element, race.programs, race.other) == (4, (1, 0), "loads")

    def shared(x_ptr, y_ptr):
        tl.store(y_ptr + tl.program_id(0), tl.load(x_ptr))

    assert not tl.run(shared, 4, np.zeros(1, np.float32), np.zeros(4, np.float32)).races


def test_lanes_of_one_store_that_meet_are_a_race_whatever_they_store():
    def collide(x_ptr, VALUE: tl.constexpr):
        lanes = tl.arange(0, 4)
        tl.store(x_ptr + lanes // 2, lanes if VALUE is None else VALUE)

    for value in (None, 3.0):
        (race,) = tl.run(collide, 1, np.zeros(2, np.float32), VALUE=value).races
        assert (race.programs, race.element) == ((0, 0), 0)
        assert "Two lanes of program 0 store element 0 of `x_ptr`" in str(race)


def test_an_array_given_by_name_is_a_pointer_and_constants_are_recorded():
    x = np.arange(4, dtype=np.float32)
    assert tl.run(double, 1, n=4, x_ptr=x, BLOCK=4).constants == {"n": 4, "BLOCK": 4}
    assert np.array_equal(x, 2 * np.arange(4))
    assert tl.run(double, 1, x, 4, 4).constants == {"BLOCK": 4}


def test_exact_runs_keep_every_float_in_64_bits():
    def third(x_ptr, y):
        tl.store(x_ptr, (tl.load(x_ptr).to(tl.float32) + tl.zeros((), tl.float32)) * (y / 3))

    for exact in (False, True):
        x = np.ones(1)
        tl.run(third, 1, x, 0.1, exact=exact)
        assert (x[0] == 0.1 / 3) == exact
        assert np.isclose(x[0], 0.1 / 3, rtol=1e-6)


def bad(body):
    namespace = {"tl": tl, "np": np, "math": __import__("math")}
    exec(f"def kernel(x_ptr, n, f, BLOCK: tl.constexpr):\n    i = tl.arange(0, BLOCK)\n    {body}", namespace)
    return namespace["kernel"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("tl.arange(0, 3)", "power of two"),
        ("tl.arange(0, n)", "constants"),
        ("tl.load(x_ptr + i, other=0.0)", "no mask"),
        ("tl.load(x_ptr + i, mask=i)", "Invalid mask"),
        ("tl.load(x_ptr, mask=i < n)", "add the block of offsets"),
        ("tl.store(x_ptr, i)", "add the block of offsets"),
        ("tl.load(i)", "takes a pointer"),
        ("tl.load(x_ptr + 0.5)", "Allowed: integers"),
        ("tl.load(x_ptr + i) ** 2", r"no \*\*"),
        ("tl.load(x_ptr + f // 2)", "no // for floats"),
        ("i[0]", "cannot be indexed"),
        ("x_ptr[i]", r"`x_ptr` is a pointer.*tl\.load\(x_ptr \+ offsets"),
        ("x_ptr[i] = i", r"`x_ptr` is a pointer.*tl\.store\(x_ptr \+ offsets"),
        ("0 < i < n", "no single truth"),
        ("bool(i < n and i > 0)", "no single truth"),
        ("np.sqrt(i)", "NumPy's functions"),
        ("np.where(i < n, i, 0)", "NumPy's functions"),
        ("math.sqrt(f)", "tl.sqrt"),
        ("tl.sqrt(i)", "float32 and float64"),
        ("tl.where(i, 1, 0)", "Invalid condition"),
        ("i + 'a'", "do not go together"),
        ("i + x_ptr + x_ptr", "something of type Pointer"),
        ("range(f)", "count a loop"),
        ("[x for x in i]", "not iterable"),
        ("tl.run(print, 1)", "cannot run another kernel"),
        ("tl.store(x_ptr, None)", "Allowed: a block or a number"),
    ],
)
def test_what_triton_would_not_compile_is_refused_with_a_sentence(body, said):
    with pytest.raises((TypeError, ValueError), match=said):
        tl.run(bad(body), 1, np.ones(4, np.float32), 4, 0.5, BLOCK=4)
    tl.run(double, 1, np.ones(4, np.float32), 4, BLOCK=4)  # the next run does not suffer from it


def test_arguments_of_a_run_that_make_no_sense():
    x = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="Invalid order: 'random'"):
        tl.run(double, 1, x, 4, order="random", BLOCK=4)
    with pytest.raises(ValueError, match="Invalid grid"):
        tl.run(double, (1, 1, 1, 1), x, 4, BLOCK=4)
    with pytest.raises(TypeError, match="missing a required argument: 'BLOCK'"):
        tl.run(double, 1, x, 4)
    with pytest.raises(TypeError, match="outside of a kernel"):
        tl.program_id(0)
    assert tl.run(double, 0, x, 4, BLOCK=4).programs == 0
    assert (x == 1).all()


def test_a_watch_sees_every_run_inside_it_and_none_outside():
    x = np.ones(4, np.float32)
    with tl.watch() as outer:
        tl.run(double, 1, x, 4, BLOCK=4)
        with tl.watch() as inner:
            tl.run(double, 1, x, 4, BLOCK=4)
    tl.run(double, 1, x, 4, BLOCK=4)
    assert (len(outer), len(inner)) == (2, 1)


def test_a_block_that_is_looked_at_says_what_it_is():
    seen = []

    def look(x_ptr):
        seen.extend([repr(x_ptr + 1), repr(tl.load(x_ptr)), tl.load(x_ptr).dtype == tl.float32, x_ptr.dtype,
                     tl.arange(0, 4)[:, None].shape])  # fmt: skip

    tl.run(look, 1, np.ones(2, np.float32))
    assert seen == ["Pointer(x_ptr + 1)", "Block(1.0, float32)", True, np.float32, (4, 1)]
