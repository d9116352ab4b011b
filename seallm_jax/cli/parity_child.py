"""The process that runs transformers: `python -m seallm_jax.cli.parity_child < REQUEST`, arrays into an .npz file.

Imports nothing of this package, nor torch: transformers makes its own tensors.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Reads the request and writes, for each line, its logits and its greedy continuation."""
    request = json.load(sys.stdin)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(request["folder"], dtype="float32", attn_implementation="eager")
    model.eval().requires_grad_(False)
    answer: dict[str, np.ndarray] = {}
    for number, line in enumerate(request["lines"]):
        answer[f"logits{number}"] = model(_tensor(line)).logits[0].numpy()
        answer[f"greedy{number}"] = np.asarray(greedy(model, line, request["new_tokens"]), np.int64)
    np.savez(request["answer"], **answer)  # type: ignore[arg-type]


def greedy(model: Any, line: list[int], new_tokens: int) -> list[int]:
    """The most likely token, again and again, with the model's own cache; end tokens do not end it."""
    found: list[int] = []
    ids, cache = line, None
    for _ in range(new_tokens):
        output = model(_tensor(ids), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        ids = [int(output.logits[0, -1].argmax())]
        found += ids
    return found


def _tensor(ids: list[int]) -> Any:
    """int64 [1, T]."""
    from transformers import BatchEncoding

    return BatchEncoding({"input_ids": [ids]}, tensor_type="pt")["input_ids"]


if __name__ == "__main__":
    main()
