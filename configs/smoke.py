"""The quickstart with a few steps of each stage: does everything run? About a minute on two cores.

seallm run --config=configs/smoke.py --workdir=/tmp/smoke
"""

import importlib.util
import pathlib


def get_config():
    path = pathlib.Path(__file__).with_name("quickstart.py")
    spec = importlib.util.spec_from_file_location("seallm_config_quickstart", path)
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    config = quickstart.get_config()
    config.name = "smoke"
    config.vocab.size = 500
    for train in (config.base.train, config.pretrain, config.hybrid, config.sft, config.preference):
        train.batch_rows = 8
        train.log_every = 1
        for stage in train.curriculum:
            stage.tokens = 8 * config.packing.sequence_length
            stage.transition_tokens = min(stage.transition_tokens, stage.tokens // 2)
    config.evaluation = {"maximum_documents": 2}
    config.generation = {"maximum_new_tokens": 8, "prompts_per_language": 1}
    return config
