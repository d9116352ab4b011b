import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import PackingConfig
from seallm_jax.data.text_source import text_sources


@pytest.fixture
def corpus(tmp_path):
    names = ("train/en.jsonl", "train/km-00000.jsonl", "train/km-00001.jsonl", "train/lo.jsonl", "train/xx.jsonl")
    for name in (*names, "parallel/km.jsonl", "parallel/xx.jsonl", "code_switched/lo.jsonl", "heldout/en.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}\n')
    return tmp_path


def described(sources):
    return {
        f"{source.kind}/{source.name}": {code: [path.name for path in paths] for code, paths in source.files.items()}
        for source in sources
    }


def test_each_kind_and_language_is_a_source_of_all_its_files(corpus):
    assert described(text_sources(corpus, ("en", "km", "lo"), PackingConfig())) == {
        "text/en": {"en": ["en.jsonl"]},
        "text/km": {"km": ["km-00000.jsonl", "km-00001.jsonl"]},
        "text/lo": {"lo": ["lo.jsonl"]},
        "parallel/km": {"km": ["km.jsonl"]},
        "code_switched/lo": {"lo": ["lo.jsonl"]},
    }
    with pytest.raises(SeallmError, match="train has no file th.jsonl"):
        text_sources(corpus, ("en", "th"), PackingConfig())


def test_languages_of_a_group_share_a_source(corpus):
    packing = PackingConfig(mixed={"low": ("km", "lo"), "absent": ("fr", "de")})
    assert described(text_sources(corpus, ("en", "km", "lo"), packing)) == {
        "text/en": {"en": ["en.jsonl"]},
        "text/low": {"km": ["km-00000.jsonl", "km-00001.jsonl"], "lo": ["lo.jsonl"]},
        "parallel/low": {"km": ["km.jsonl"]},
        "code_switched/low": {"lo": ["lo.jsonl"]},
    }


def test_every_quality_belongs_to_one_band(corpus):
    packing = PackingConfig(quality_bands={"mid": 0.4, "high": 0.8})
    sources = text_sources(corpus, ("en",), packing)
    assert [source.kind for source in sources] == ["text-high", "text-mid", "text"]
    for quality, kind in ((None, "text"), (0.0, "text"), (0.4, "text-mid"), (0.79, "text-mid"), (1.0, "text-high")):
        assert [source.kind for source in sources if source.takes(quality)] == [kind]
