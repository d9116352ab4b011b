import pytest

from seallm_jax.core.config import build
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import AdapterConfig, OptimizerConfig, TrainConfig


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        (("v_proj", "q_proj"), ("query", "value")),
        (("all-linear",), ("query", "key", "value", "output", "gate", "up", "down")),
        (("query_key_value", "dense", "dense_4h_to_h"), ("query", "key", "value", "output", "down")),
        (("*",), ("query", "key", "value", "output", "gate", "up", "down", "embedding", "head")),
        (("embed_tokens", "embedding", "?p"), ("up", "embedding")),
    ],
)
def test_targets_by_any_name(targets, names):
    assert AdapterConfig(targets=targets).names == names


def test_scale():
    assert AdapterConfig(rank=16, alpha=8.0).scale == 0.5
    assert AdapterConfig(rank=16, alpha=8.0, rank_stabilized=True).scale == 2.0


def test_a_stage_with_an_adapter_trains_the_adapter():
    assert TrainConfig().trainable == ("*",)
    assert TrainConfig(adapter=AdapterConfig()).trainable == ("*.lora_a", "*.lora_b")
    rows = AdapterConfig(targets=(), train_new_rows=True)
    assert TrainConfig(adapter=rows).trainable == ("*.new_rows",)
    assert TrainConfig(adapter=rows).with_new_rows(7).adapter.first_new_row == 7
    assert TrainConfig(adapter=rows).with_new_rows(7).with_new_rows(9).adapter.first_new_row == 7
    assert TrainConfig().with_new_rows(7) == TrainConfig()
    chosen = OptimizerConfig(trainable=("*.lora_b", "*norm*"))
    assert TrainConfig(adapter=AdapterConfig(), optimizer=chosen).trainable == ("*.lora_b", "*norm*")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"targets": ["out_proj"]}, "targets is 'out_proj'; use query"),
        ({"targets": []}, "nothing to train"),
        ({"rank": 0}, "rank is 0"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"quantize": "fp4"}, "quantize is 'fp4'"),
        ({"targets": ["embedding"], "train_new_rows": True}, "rows that are trained in full have no adapter"),
    ],
)
def test_errors_name_the_key(values, message):
    with pytest.raises(UsageError, match=message):
        build(AdapterConfig, values, "config.sft.adapter")
