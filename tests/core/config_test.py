"""Configuration: every mistake names the key, the value and the way out."""

import dataclasses
import pathlib

import pytest

from seallm_jax.core.config import build, load_config, to_dict
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import MeshConfig, RunConfig, StageConfig

CONFIG = """
import ml_collections

def get_config():
    config = ml_collections.ConfigDict()
    config.corpus = ml_collections.ConfigDict({"path": "somewhere"})
    config.pretrain = ml_collections.ConfigDict({"curriculum": [{"name": "one", "tokens": 1000}]})
    return config
"""


@pytest.fixture
def config_file(tmp_path) -> pathlib.Path:
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_overrides_are_typed(config_file):
    config = load_config(
        config_file,
        [
            "--config.corpus.duplicates.threshold=1",
            "--config.pretrain.optimizer.learning_rate=1e-5",
            "--config.corpus.path=/data/x=y",
            "--config.corpus.duplicates.near=false",
            "--config.corpus.languages=('km','lo')",
            "--config.base.languages=id",
            "--config.pretrain.optimizer.multipliers={'layers.mlp.*': 2, '*': 0.5}",
            "--config.pretrain.optimizer.trainable=layers.*",
        ],
    )
    assert config.corpus.duplicates.threshold == 1.0 and isinstance(config.corpus.duplicates.threshold, float)
    assert config.pretrain.optimizer.learning_rate == 1e-5
    assert config.corpus.path == "/data/x=y"
    assert config.corpus.duplicates.near is False
    assert config.corpus.languages == ("km", "lo")
    assert config.base.languages == ("id",)
    assert config.pretrain.optimizer.multipliers == {"layers.mlp.*": 2.0, "*": 0.5}
    assert config.pretrain.optimizer.trainable == ("layers.*",)
    assert config.pretrain.curriculum == (StageConfig(name="one", tokens=1000),)
    assert config.sft is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.corpus.pth=x", "unknown key config.corpus.pth; did you mean config.corpus.path?"),
        ("--config.corpis.path=x", "unknown key config.corpis; did you mean config.corpus?"),
        ("--config.seed=abc", "config.seed must be a whole number, got 'abc'"),
        ("--config.seed=-1", "config.seed is -1; it must not be negative"),
        ("--config.seed=True", "config.seed must be a whole number, got True"),
        ("--config.corpus.holdout_fraction=2", "config.corpus.holdout_fraction is 2.0; it must lie between 0 and 1"),
        ("--config.pretrain.objective.name=dp", "config.pretrain.objective.name is 'dp'; did you mean 'dpo'?"),
        ("--config.corpus=3", "config.corpus must be a section"),
        ("--corpus.path=3", "cannot read '--corpus.path=3'"),
        ("--config.base.model.head_size=7", "config.base.model.head_size is 7; it must be even"),
    ],
)
def test_mistakes_are_named(config_file, override, message):
    with pytest.raises(UsageError) as error:
        load_config(config_file, [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_config(tmp_path / "none.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(:")
    with pytest.raises(UsageError, match="broken.py failed: SyntaxError"):
        load_config(broken)


def test_error_inside_a_list_names_the_index():
    values = {"pretrain": {"curriculum": [{"tokens": 5}, {"tokens": 5, "transition_tokens": 6}]}}
    with pytest.raises(UsageError, match=r"config\.pretrain\.curriculum\[1\]\.transition_tokens is 6"):
        build(RunConfig, values, "config")


def test_round_trip():
    config = build(RunConfig, {"pretrain": {"curriculum": [{"tokens": 5, "weights": {"text/en": 1}}]}}, "config")
    assert build(RunConfig, to_dict(config), "config") == config


def test_only_one_free_mesh_axis():
    with pytest.raises(ValueError, match="only one"):
        MeshConfig(data=-1, fsdp=-1)
    assert dataclasses.asdict(MeshConfig())["fsdp"] == -1


def test_a_file_for_several_models_is_given_a_name(tmp_path):
    path = tmp_path / "models.py"
    path.write_text(
        CONFIG.replace("get_config()", "get_config(name='none')").replace(
            "    return", "    config.name = name\n    return"
        )
    )
    assert load_config(path).name == "none"
    assert load_config(f"{path}:other", ["--config.seed=3"]).name == "other"
    with pytest.raises(UsageError, match="does not exist"):
        load_config(f"{tmp_path / 'missing.py'}:other")
    path.write_text(CONFIG)
    with pytest.raises(UsageError, match=r"models.py failed: TypeError: get_config\(\) takes 0"):
        load_config(f"{path}:other")
