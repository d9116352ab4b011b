"""The vocabulary section of a config."""

import pytest

from seallm_jax.core.config import build
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import VocabConfig
from seallm_jax.tokenization.extend import extend_tokenizer


def test_values_from_a_config_file():
    values = {
        "method": "donor",
        "donors": "nllb/",
        "budgets": {"th": 1536, "vi": 2304},
        "protected_scripts": ["Latin"],
        "pretokenizer": "mark_aware",
    }
    config = build(VocabConfig, values, "config.vocab")
    assert config.donors == ("nllb/",) and config.budgets == {"th": 1536, "vi": 2304}
    assert config.protected_scripts == ("Latin",) and config.pretokenizer == "mark_aware"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "doner"}, "did you mean 'donor'"),
        ({"method": "donor"}, "needs a vocabulary"),
        ({"size": 100, "budgets": {"th": 60, "vi": 60}}, "together they are more than size, 100"),
        ({"budgets": {"th": -1}}, "none may be negative"),
        ({"pad_to": -1}, "must not be negative"),
        ({"pretokenizer": "other"}, "mark_aware"),
    ],
)
def test_impossible_values(values, message):
    with pytest.raises(UsageError, match=message):
        build(VocabConfig, values, "config.vocab")


def test_defaults_are_those_of_the_function():
    config, defaults = VocabConfig(), extend_tokenizer.__kwdefaults__
    shared = set(defaults) & set(VocabConfig.__dataclass_fields__)
    assert {"alpha", "minimum_frequency", "protected_ratio", "maximum_symbols", "pad_to", "method"} <= shared
    for name in shared - {"budgets", "donors"}:
        assert getattr(config, name) == defaults[name], name
