"""Seconds of kernels from made-up cycles, for calls of a real program."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.planning import kernel_seconds
from seallm_jax.planning.bundles import KernelCycles
from seallm_jax.planning.hlo_program import Array
from seallm_jax.planning.kernel_call import KernelCall
from seallm_jax.planning.kernel_costs import Shape, packed_cycles
from seallm_jax.planning.kernel_seconds import KernelSeconds
from seallm_jax.planning.step_time import predict_step_time
from seallm_jax.planning.topology import Topology

FORWARD = KernelCycles(1, (10,), (10**2, 10**4, 10**6, 10**8), (20,))
BACKWARD = KernelCycles(1, (10, 30), (10**2, 10**4, 10**6, 10**8), (40, 20))
STEPS = {"linear_cross_entropy_statistics": 1000, "linear_cross_entropy_d_logits": 3000}
MODEL = ModelConfig(vocabulary_size=8, num_layers=2)


@pytest.fixture
def asked(monkeypatch):
    """What the compiler is asked for; it answers with the cycles above."""
    requests = []

    def read_costs(generation, shape, variants, *, document_length, timeout):
        requests.append((generation, shape, variants["ours"]))
        return {"ours": {"kernels": {"forward": dataclasses.asdict(FORWARD), "backward": dataclasses.asdict(BACKWARD)}}}

    def read_cross_entropy_costs(generation, tokens, hidden_size, vocabulary_size, dtype, **options):
        requests.append((generation, tokens, hidden_size, dtype, options["matrix_dtype"]))
        return {options["only"][0]: {"cycles": 1, **{name: {"step": step, "steps": 9} for name, step in STEPS.items()}}}

    monkeypatch.setattr(kernel_seconds, "read_costs", read_costs)
    monkeypatch.setattr(kernel_seconds, "read_cross_entropy_costs", read_cross_entropy_costs)
    return requests


def attention(name: str, rows=2, queries=512, keys=512, heads=4, kv_heads=2, block=128) -> KernelCall:
    """A call with its scalars: the steps of the grid and their list, the places of blocks, slopes."""
    tensors = [Array("bf16", (rows, n, size, 128)) for n, size in ((heads, queries), (kv_heads, keys))]
    lists = [Array("s32", (size,)) for size in (99, queries // block, keys // block)]
    return KernelCall(name, (Array("s32", ()), *lists, Array("f32", (heads,)), *tensors), (tensors[0],), 0.0)


def test_kernels_of_a_real_program(tpu_programs, asked):
    found = {}

    def price(call):
        found[call.name] = (call, seconds(call))
        return found[call.name][1]

    seconds = KernelSeconds("v5e")
    time = predict_step_time(tpu_programs["ours"], Topology.parse("v5e:1x1"), price)
    assert not any(name.startswith("kernel") for name in time.unpriced)
    # one block of 512 positions for each of 2 rows and 4 heads; one of 1024 tokens, and 1024 rows of the matrix
    shape = Shape(2, 512, 4, 2, 128)
    ids = np.ones((2, 512), np.int32)
    cycles = packed_cycles({"forward": FORWARD, "backward": BACKWARD}, ids, shape, 512, 512)
    assert found["packed_attention_forward"][1] == cycles["forward"] / 1.5e9
    assert found["packed_attention_backward"][1] == cycles["backward"] / 1.5e9
    for name, step in STEPS.items():
        (rows, columns), steps = (1024, 1024), round(found[name][1] * 1.5e9 / step, 6)
        assert steps in {rows // hidden * columns // matrix for hidden in (1024, 512, 256) for matrix in (256, 128)}
    assert time.parts["attention"] >= found["packed_attention_forward"][1] + found["packed_attention_backward"][1]
    sizes = {"forward": 512, "backward": 512}
    assert ("v5e", shape, {"kind": "ours", "sizes": sizes}) in asked
    assert len(asked) == 2 and asked[0][0] == "v5e"
    # the matrix lies whole on one device, in float32
    (cross_entropy,) = (request for request in asked if len(request) == 5)
    assert cross_entropy[2:] == (512, "bfloat16", "float32") and cross_entropy[1] % 3 == 0


def test_each_shape_is_compiled_once(asked):
    seconds = KernelSeconds("v5e")
    few, many = (seconds(attention("packed_attention_forward", rows=rows)) for rows in (4, 16))
    assert few is not None and many == pytest.approx(4 * few)
    seconds(attention("packed_attention_backward", rows=16))
    assert len(asked) == 1
    seconds(attention("packed_attention_forward", rows=16, heads=8))
    assert len(asked) == 2


def test_documents_and_windows(asked):
    whole = KernelSeconds("v5e")(attention("packed_attention_forward"))
    short = KernelSeconds("v5e", document_length=128)(attention("packed_attention_forward"))
    # documents of a block: only the diagonal
    assert short == pytest.approx(2 * 4 * 4 * (1 + 10 + 20 + 10**6) / 1.5e9) and short < whole
    local = dataclasses.replace(MODEL, sliding_window=128, local_layers=(True, False), attention_soft_cap=50.0)
    mixed = KernelSeconds("v5e", model=local)(attention("packed_attention_forward"))
    only = dataclasses.replace(local, local_layers=(True, True))
    windowed = KernelSeconds("v5e", model=only)(attention("packed_attention_forward"))
    assert mixed == pytest.approx((whole + windowed) / 2) and windowed != whole
    assert asked[-1][2]["soft_cap"] == 50.0 and asked[-1][2]["alibi"] is False


def test_the_last_of_devices_that_share_a_row(asked):
    shared = KernelSeconds("v5e")(attention("packed_attention_forward", queries=256, keys=512, rows=1))
    # blocks 2 and 3 of 4 see 3 + 4 blocks of keys, two of them on the diagonal; those that nobody sees are none
    assert shared == pytest.approx(4 * (7 * 1 + 2 * (10 + 20) + 5 * 10**2 + 2 * 10**6) / 1.5e9)
    assert asked[0][1] == Shape(1, 512, 4, 2, 128)


def test_two_cores_share_the_heads(asked):
    one, two = (KernelSeconds(name)(attention("packed_attention_forward")) for name in ("v5e", "v5p"))
    assert two * 1.75e9 == pytest.approx(one * 1.5e9 / 2)
    # one head cannot be shared
    one, two = (
        KernelSeconds(name)(attention("packed_attention_backward", heads=4, kv_heads=1)) for name in ("v5e", "v5p")
    )
    assert two * 1.75e9 == pytest.approx(one * 1.5e9)


def test_what_has_no_prediction(asked, monkeypatch):
    other = KernelCall("splash_mha", (), (), 0.0)
    assert KernelSeconds("v5e")(other) is None and KernelSeconds("v4")(attention("packed_attention_forward")) is None
    assert not asked
    for name in ("packed_attention_forward", "linear_cross_entropy_statistics"):
        with pytest.raises(SeallmError, match=f"a call of {name} is not understood"):
            KernelSeconds("v5e")(KernelCall(name, (Array("s32", (3,)),), (), 0.0))
    monkeypatch.setattr(kernel_seconds, "read_costs", lambda *_, **__: {"ours": {"error": "no room"}})
    with pytest.raises(SeallmError, match="attention kernel does not compile for v5e: no room"):
        KernelSeconds("v5e")(attention("packed_attention_forward"))
