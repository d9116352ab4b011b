"""Continued pretraining, hybrid stage, SFT and DPO of Llama-2 7B with 16,512 new tokens, on a TPU v5e or v6e slice.

    seallm plan --config=configs/llama2_7b.py --topology=v5e:16x16
    seallm run --config=configs/llama2_7b.py --workdir=DIR --config.corpus.path=DIR --config.base.path=FOLDER

Cost: `seallm plan` tells the memory; it has not been run on a TPU by its authors.

The base (Llama-2, 32,000 + 16,512 = 48,512 tokens) and the order of the stages are those of SeaLLMs-7B-v1 (arXiv
2312.00738). Learning rates, batch sizes, token budgets and shares are ours: the paper does not give them.
"""

import ml_collections


def get_config():
    config = ml_collections.ConfigDict()
    config.name = "llama2_7b"
    config.corpus = {"path": ""}
    config.packing = {"sequence_length": 2048}
    config.mesh = {"fsdp": -1}
    config.base = {
        "path": "",
        "vocabulary_size": 32_000,
        "model": {
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_layers": 32,
            "num_heads": 32,
            "num_key_value_heads": 32,
            "head_size": 128,
            "max_positions": 4096,
        },
    }
    config.vocab = {"size": 16_512}
    english, others = "text/en", "text/*"
    config.pretrain = _train(
        [
            _stage("foundation", 20_000_000_000, {english: 0.4, others: 0.6}, alpha=0.7),
            _stage("low-resource", 10_000_000_000, {english: 0.3, others: 0.7}, alpha=0.3, transition=2_000_000_000),
        ],
        learning_rate=5e-5,
    )
    config.hybrid = _train(
        [_stage("hybrid", 2_000_000_000, {"instructions/*": 0.3, english: 0.2, others: 0.5}, alpha=0.3)],
        learning_rate=2e-5,
    )
    config.sft = _train([_stage("sft", 200_000_000, {"instructions/*": 1.0}, alpha=0.5)], learning_rate=1e-5)
    config.preference = _train(
        [_stage("dpo", 20_000_000, {"preferences/*": 1.0}, alpha=0.5)],
        learning_rate=5e-7,
        objective={"name": "dpo", "beta": 0.1},
    )
    config.export = {"dtype": "bfloat16"}
    return config


def _stage(name, tokens, weights, *, alpha, transition=0):
    return {
        "name": name,
        "tokens": tokens,
        "mixture": "explicit",
        "weights": weights,
        "alpha": alpha,
        "maximum_epochs": 4.0,
        "transition": "linear" if transition else "step",
        "transition_tokens": transition,
    }


def _train(stages, *, learning_rate, objective=None):
    return {
        "curriculum": tuple(stages),
        "objective": objective or {"name": "language_modeling"},
        "batch_rows": 256,
        "compute_dtype": "bfloat16",
        "remat": "full",
        "checkpoint_every": 500,
        "optimizer": {"learning_rate": learning_rate, "schedule": "cosine", "warmup_fraction": 0.01},
    }
