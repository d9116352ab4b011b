"""The process that trains with transformers: a line of JSON in for each round, the seconds of its steps out.

`python -m seallm_jax.cli.bench_step_child`. Imports nothing of this package; transformers brings torch along.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """The first line describes the model and the batch, every other one is a number of steps."""
    setup = json.loads(sys.stdin.readline())
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.LlamaConfig(**setup["model"], use_cache=False)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    torch: Any = sys.modules["torch"]
    torch.set_num_threads(setup["threads"])
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.randint(0, config.vocab_size, (setup["rows"], setup["positions"]))
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)):
            start = time.perf_counter()
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            float(loss.detach())
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
