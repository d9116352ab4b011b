"""The quickstart with small rows and a few steps of each stage, for tests/proofs/pod.py."""

import importlib.util
import pathlib

ROWS, LENGTH, STEPS = 4, 128, 20


def get_config():
    path = pathlib.Path(__file__).parents[2] / "configs" / "quickstart.py"
    spec = importlib.util.spec_from_file_location("quickstart_config", path)
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    config = quickstart.get_config()
    config.name = "pod"
    config.vocab.size = 500
    config.packing.sequence_length = LENGTH
    for train in (config.base.train, config.pretrain, config.hybrid, config.sft, config.preference):
        train.batch_rows, train.log_every, train.checkpoint_every = ROWS, 1, 5
        for stage in train.curriculum:
            stage.tokens = ROWS * LENGTH * STEPS
            stage.transition_tokens = min(stage.transition_tokens, stage.tokens // 2)
    config.evaluation = {"maximum_documents": 2}
    config.generation = {"maximum_new_tokens": 8, "prompts_per_language": 1}
    return config
