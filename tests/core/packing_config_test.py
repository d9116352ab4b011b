import pytest

from seallm_jax.core.config import build
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import PackingConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sequence_length": 7}, "sequence_length"),
        ({"mode": "closed"}, "mode"),
        ({"bpe_dropout": 1.0}, "bpe_dropout"),
        ({"workers": -1}, "workers"),
        ({"quality_bands": {"a/b": 0.5}}, "a name is made of letters, digits and underscores"),
        ({"quality_bands": {"a": 0.5, "b": 0.5}}, "each needs a minimum of its own"),
        ({"mixed": {"low": ["km"]}}, "a group needs two languages at least"),
        ({"mixed": {"a": ["km", "lo"], "b": ["lo", "my"]}}, "a language can be in one group only"),
        ({"mixed": {"km": ["km", "lo"]}}, "a group cannot have the name of a language in it"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        build(PackingConfig, values, "config.packing")


def test_bands_and_groups_are_read():
    values = {"quality_bands": {"high": 0.8}, "mixed": {"low": ["km", "lo"]}, "mode": "anchor"}
    assert build(PackingConfig, values, "config.packing") == PackingConfig(
        quality_bands={"high": 0.8}, mixed={"low": ("km", "lo")}, mode="anchor"
    )
