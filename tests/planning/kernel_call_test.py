"""Calls of kernels as programs hold them."""

from __future__ import annotations

from seallm_jax.planning.hlo_program import Array, parse_hlo
from seallm_jax.planning.kernel_call import KernelCall, kernel_call


def calls(text: str) -> list[KernelCall]:
    return [
        kernel_call(computation, instruction)
        for computation in parse_hlo(text).computations.values()
        for instruction in computation.instructions
        if "tpu_custom_call" in instruction.attributes
    ]


def test_a_kernel_in_a_loop(tpu_programs):
    array = Array("bf16", (2048, 1024))
    assert calls(tpu_programs["kernel"]) == [KernelCall("doubled", (array,), (array,), 12345.0)]


def test_kernels_of_this_package(tpu_programs):
    found = {call.name: call for call in calls(tpu_programs["ours"])}
    assert sorted(found) == [
        "linear_cross_entropy_d_logits",
        "linear_cross_entropy_statistics",
        "packed_attention_backward",
        "packed_attention_forward",
    ]
    # two and five products of the causal half of 512 x 512
    pairs = 2 * 4 * 512 * 513 // 2
    assert found["packed_attention_forward"].flops == 2 * 2 * pairs * 128
    assert found["packed_attention_backward"].flops == 5 * 2 * pairs * 128
    assert found["linear_cross_entropy_statistics"].flops == 2 * 1024 * 512 * 1024


def test_a_kernel_without_a_name_or_a_cost(tpu_programs):
    text = tpu_programs["kernel"].replace("/pallas_call", "/call").replace('"flops":"12345"', "")
    (call,) = calls(text)
    assert call.name == "doubled" and call.flops == 0
