"""Language identification: the embedded sample, proverbs of languages that py3langid does not know, the model seam."""

import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import language_code
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path
from seallm_jax.corpus.language import LanguageIdentifier, contradicts_script, identify_language, script_shares

SAMPLE = ["en", "id", "ms", "vi", "th", "tl", "km", "lo", "my", "jv"]
# written for this test
SENTENCES = {
    "su": "Kuring mah teu bisa datang poe ieu, lantaran imah keur dibebenah ku bapa.",
    "min": "Urang kampuang ko alun tantu ka pai ka pasa patang beko, dek hari ka ujan.",
    "ban": "Titiang sareng timpal-timpale lakar melali ka pasih, nanging ujan bales ring margi.",
    "ceb": "Dili ko makaadto ugma kay daghan pa kaayo kog buhaton sa balay.",
    "ilo": "Napan da idiay tiendaan tapno gumatang ti ikan ken nateng para iti pangrabii.",
    "war": "Diri ako makakadto ha merkado yana kay damo pa an akon buhaton ha balay.",
}


@pytest.mark.parametrize("code", SAMPLE)
def test_sample_documents(code):
    records = list(read_jsonl(sample_path("corpus") / f"{code}.jsonl"))
    hits = sum(identify_language(record["text"]) == code for record in records)
    assert hits >= 0.97 * len(records)
    assert not any(contradicts_script(record["text"], code) for record in records)


def sample_sentences(code: str) -> list[str]:
    return (sample_path("parallel") / f"{code}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("code", sorted({*SAMPLE} - {"id", "ms"}))
def test_sample_sentences(code):
    lines = sample_sentences(code)
    assert sum(identify_language(line) == code for line in lines) >= 0.95 * len(lines)


def test_indonesian_and_malay_sentences():
    import py3langid

    pairs = [(code, line) for code in ("id", "ms") for line in sample_sentences(code)]
    hits = sum(identify_language(line) == code for code, line in pairs)
    assert hits > sum(py3langid.classify(line)[0] == code for code, line in pairs) and hits >= 0.8 * len(pairs)


@pytest.mark.parametrize("code", SENTENCES)
def test_languages_that_py3langid_does_not_know(code):
    import py3langid

    found, confidence = LanguageIdentifier().identify(SENTENCES[code])
    assert found == code and confidence > 0.5
    assert py3langid.classify(SENTENCES[code])[0] != code


def test_strangers_are_left_to_py3langid():
    texts = {
        "fr": "Le petit chat dort sur la chaise de la cuisine pendant que la pluie tombe dans le jardin.",
        "es": "La casa de mi abuela está cerca del río y tiene un jardín muy grande con muchas flores.",
        "de": "Die Kinder spielen im Garten, während die Großmutter in der Küche einen Kuchen backt.",
        "sw": "Watoto wanacheza nje ya nyumba wakati mama anapika chakula cha jioni jikoni.",
    }
    assert {code: identify_language(text) for code, text in texts.items()} == {code: code for code in texts}


def test_no_letters():
    assert identify_language("12345 ... !!!") == "" and script_shares("…") == {}
    assert LanguageIdentifier().identify("") == ("", 0.0)
    assert not contradicts_script("12345", "km")


def test_wrong_script():
    assert contradicts_script("Only English words here", "km")
    assert not contradicts_script("សួស្តី hello there friend, this is mixed ភាសា", "km")


@given(st.text())
def test_confidence_is_a_probability(text):
    code, confidence = LanguageIdentifier().identify(text)
    assert 0 <= confidence <= 1.0000001 and (code or confidence == 0)
    assert sum(script_shares(text).values()) == pytest.approx(1) or not script_shares(text)


def test_labels_of_other_conventions():
    labels = ["ind_Latn", "IND", "zsm-Latn", "fil", "min_Latn", "en"]
    assert [language_code(label) for label in labels] == ["id", "id", "ms", "tl", "min", "en"]


def write_fasttext_model(path, words: list[str], labels: list[str]) -> None:
    """A supervised model in fastText's binary format, in which the n-th word speaks for the n-th label alone."""
    entries = [(word, 0) for word in words] + [(f"__label__{label}", 1) for label in labels]
    # dim, ws, epoch, minCount, neg, wordNgrams, loss (softmax), model (supervised), bucket, minn, maxn, lrUpdateRate
    settings = (len(words), 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100)
    content = struct.pack("<ii12id", 793712314, 12, *settings, 1e-4)
    content += struct.pack("<iiiqq", len(entries), len(words), len(labels), 100, -1)
    content += b"".join(entry.encode() + b"\0" + struct.pack("<qb", 1, kind) for entry, kind in entries)
    for matrix in (np.eye(len(words), dtype="<f4"), 20 * np.eye(len(labels), len(words), dtype="<f4")):
        content += struct.pack("<?qq", False, *matrix.shape) + matrix.tobytes()
    path.write_bytes(content)


def test_fasttext_model(tmp_path):
    pytest.importorskip("fasttext")
    path = tmp_path / "model.bin"
    write_fasttext_model(path, ["urang", "orang"], ["min_Latn", "ind_Latn"])
    identifier = LanguageIdentifier(path)
    for text, code in (("urang\nurang", "min"), ("orang", "id")):
        found, confidence = identifier.identify(text)
        assert found == code and 0.99 < confidence <= 1
    assert identifier.identify("")[1] <= 1
    path.write_bytes(b"no model")
    with pytest.raises(SeallmError, match="is not a fastText model"):
        LanguageIdentifier(path)


def test_fasttext_errors(tmp_path, monkeypatch):
    with pytest.raises(SeallmError, match="does not exist"):
        LanguageIdentifier(tmp_path / "none.bin")
    (tmp_path / "model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(SeallmError, match="pip install 'seallm_jax\\[fasttext\\]'"):
        LanguageIdentifier(tmp_path / "model.bin")


def test_latin_insertions_do_not_decide():
    khmer = "ជ្រើស Insert - Function - Category Statistics ដើម្បីបញ្ចូលអនុគមន៍នេះទៅក្នុងក្រឡា"
    assert identify_language(khmer) == "km"
    assert identify_language("The Khmer word for hello is សួស្តី, and it is easy to learn.") == "en"
