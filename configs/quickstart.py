"""From raw text to a Hugging Face model on a laptop CPU: every stage, at toy size.

    ./launch/quickstart.sh                               the embedded sample
    ./launch/quickstart.sh --config.corpus.path=DIR      your own text

A small Llama is trained from scratch on the English part and stands in for a downloaded base model (to start from a
real one: --config.base.path=FOLDER). Its vocabulary is extended to the other languages, pretraining goes on under a
curriculum in three stages that raise the low-resource share, then come the hybrid stage, SFT and DPO.

Cost: under 10 minutes on two cores with the embedded sample, installation included.
Reaches: bits per byte on held-out text fall by more than half in Khmer, Lao, Thai and Burmese against the base model.
The values here are ours, chosen for speed; they are no published recipe.
"""

import ml_collections

LOW_RESOURCE = ("km", "lo", "my", "jv", "su", "min", "ban", "ceb", "ilo")


def get_config():
    config = ml_collections.ConfigDict()
    config.name = "quickstart"
    config.seed = 0
    config.corpus = _section(path="", holdout_fraction=0.02)
    config.data = _section(instructions="", preferences="", parallel="")
    config.packing = _section(sequence_length=512)
    config.base = _section(
        path="",
        languages=("en",),
        vocabulary_size=2048,
        model=_section(
            hidden_size=192,
            intermediate_size=512,
            num_layers=4,
            num_heads=3,
            num_key_value_heads=1,
            head_size=64,
            max_positions=1024,
            initializer_range=0.06,
        ),
        train=_train(_stages(("english", 500_000, {"text/*": 1.0})), learning_rate=6e-3),
    )
    config.vocab = _section(size=6000, minimum_frequency=4)
    config.pretrain = _train(
        _stages(
            ("foundation", 180_000, _shares(english=0.30, low=0.20, high=0.50)),
            ("balance", 180_000, _shares(english=0.22, low=0.33, high=0.45), "linear"),
            ("low-resource", 180_000, _shares(english=0.15, low=0.45, high=0.40), "linear"),
            maximum_epochs=10.0,
        ),
        learning_rate=4e-3,
    )
    config.hybrid = _train(
        _stages(("hybrid", 100_000, {"instructions/*": 0.3, "text/en": 0.1, "text/*": 0.6})),
        learning_rate=1e-3,
    )
    config.sft = _train(_stages(("instructions", 80_000, {"instructions/*": 1.0})), learning_rate=5e-4)
    config.preference = _train(
        _stages(("preferences", 60_000, {"preferences/*": 1.0})),
        learning_rate=1e-4,
        objective=_section(name="dpo", beta=0.1, sft_coefficient=0.1),
    )
    return config


def _section(**values):
    return ml_collections.ConfigDict(values)


def _shares(*, english, low, high):
    """Weights by source: English replay, the low-resource languages, everything else."""
    return {"text/en": english, ",".join(f"text/{code}" for code in LOW_RESOURCE): low, "text/*": high}


def _stages(*stages, alpha=0.5, maximum_epochs=8.0):
    return tuple(
        _section(
            name=name,
            tokens=tokens,
            mixture="explicit",
            weights=weights,
            alpha=alpha,
            maximum_epochs=maximum_epochs,
            transition=transition[0] if transition else "step",
            transition_tokens=tokens // 2 if transition else 0,
        )
        for name, tokens, weights, *transition in stages
    )


def _train(curriculum, *, learning_rate, objective=None):
    train = _section(
        curriculum=curriculum,
        batch_rows=4,
        compute_dtype="bfloat16",
        checkpoint_every=100,
        log_every=10,
        optimizer=_section(learning_rate=learning_rate, schedule="cosine", warmup_fraction=0.05),
    )
    if objective is not None:
        train.objective = objective
    return train
