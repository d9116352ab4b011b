"""Continued pretraining, SFT and DPO of known base models: shapes to plan with before anything is downloaded.

    seallm plan --config=configs/base_models.py:llama3_1_8b --topology=v6e:16x16 --search
    seallm run --config=configs/base_models.py:qwen3_8b --workdir=DIR --config.corpus.path=DIR --config.base.path=FOLDER

Names: llama2_7b, llama2_13b, llama3_1_8b, qwen2_7b, qwen2_72b, qwen3_8b, bloom_7b1, gemma2_9b. The shapes are those of
their published config.json; with config.base.path the folder's own counts.

Cost: `seallm plan` tells it. Batch sizes, learning rates and token budgets are ours, round, and no published recipe.
"""

import ml_collections

LLAMA3_ROPE = {
    "type": "llama3",
    "theta": 500_000.0,
    "factor": 8.0,
    "low_frequency_factor": 1.0,
    "high_frequency_factor": 4.0,
    "original_positions": 8192,
}
BIASES = ("query_key_value_bias", "output_bias", "mlp_bias")


def _shape(family, vocabulary, hidden, intermediate, layers, heads, key_value_heads, head_size, longest, **switches):
    return {
        "family": family,
        "vocabulary_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_layers": layers,
        "num_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_size": head_size,
        "max_positions": longest,
        **switches,
    }


def _qwen2(*sizes):
    return _shape(
        "qwen2", 152_064, *sizes, 131_072, query_key_value_bias=True, norm_epsilon=1e-6, rope={"theta": 1_000_000.0}
    )


# name: shape, positions of a packed row
MODELS = {
    "llama2_7b": (_shape("llama", 32_000, 4096, 11_008, 32, 32, 32, 128, 4096), 2048),
    "llama2_13b": (_shape("llama", 32_000, 5120, 13_824, 40, 40, 40, 128, 4096), 2048),
    "llama3_1_8b": (_shape("llama", 128_256, 4096, 14_336, 32, 32, 8, 128, 131_072, rope=LLAMA3_ROPE), 8192),
    "qwen2_7b": (_qwen2(3584, 18_944, 28, 28, 4, 128), 4096),
    "qwen2_72b": (_qwen2(8192, 29_568, 80, 64, 8, 128), 4096),
    "qwen3_8b": (
        _shape(
            *("qwen3", 151_936, 4096, 12_288, 36, 32, 8, 128, 40_960),
            query_key_norm="head",
            norm_epsilon=1e-6,
            rope={"theta": 1_000_000.0},
        ),
        4096,
    ),
    "bloom_7b1": (
        _shape(
            *("bloom", 250_880, 4096, 16_384, 30, 32, 32, 128, 2048),
            **dict.fromkeys(BIASES, True),
            norm="layer",
            embedding_norm=True,
            gated=False,
            activation="gelu_tanh",
            positions="alibi",
            tie_embeddings=True,
        ),
        2048,
    ),
    "gemma2_9b": (
        _shape(
            *("gemma2", 256_000, 3584, 14_336, 42, 16, 8, 256, 8192),
            norm="rms_one",
            norm_placement="sandwich",
            norm_epsilon=1e-6,
            embedding_scale=3584**0.5,
            activation="gelu_tanh",
            sliding_window=4096,
            local_layers=(True, False) * 21,
            attention_scale=256**-0.5,
            attention_soft_cap=50.0,
            logit_soft_cap=30.0,
            tie_embeddings=True,
        ),
        4096,
    ),
}


def get_config(model="llama2_7b"):
    if model not in MODELS:
        raise ValueError(f"no model {model!r}; use one of {', '.join(MODELS)}")
    shape, positions = MODELS[model]
    config = ml_collections.ConfigDict()
    config.name = model
    config.corpus = {"path": ""}
    config.packing = {"sequence_length": positions}
    config.base = {"path": "", "vocabulary_size": shape["vocabulary_size"], "model": shape}
    config.vocab = {"size": 0}
    config.pretrain = _train(10_000_000_000, {"text/en": 0.3, "text/*": 0.7}, learning_rate=3e-5)
    config.sft = _train(200_000_000, {"instructions/*": 1.0}, learning_rate=1e-5)
    config.preference = _train(20_000_000, {"preferences/*": 1.0}, learning_rate=5e-7, objective={"name": "dpo"})
    config.generation = {"compute_dtype": "bfloat16"}
    config.export = {"dtype": "bfloat16"}
    return config


def _train(tokens, weights, *, learning_rate, objective=None):
    stage = {"name": "main", "tokens": tokens, "mixture": "explicit", "weights": weights, "alpha": 0.5}
    return {
        "curriculum": (stage,),
        "objective": objective or {"name": "language_modeling"},
        "batch_rows": 512,
        "compute_dtype": "bfloat16",
        "remat": "full",
        "checkpoint_every": 500,
        "optimizer": {"learning_rate": learning_rate, "schedule": "cosine", "warmup_fraction": 0.01},
    }
