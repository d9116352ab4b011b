"""Contaminated documents, against a search of all n-grams and on planted cases."""

import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import DecontaminationConfig
from seallm_jax.corpus.decontamination import Decontaminator
from seallm_jax.corpus.evaluation_texts import EvaluationText

CONFIG = DecontaminationConfig()
ALPHABETS = {
    "Latin": "abcdefghijklmnopqrstuvwxyzéđơ",
    "Thai": "กขคงจฉชซญดตถทธนบปผพฟมยรลวศสหอะาิีุูเแโใไ่้",
    "Khmer": "កខគឃងចឆជឈញដឋឌណតថទធនបផពភមយរលវសហអ្ាិីឹឺុូេែៃោះ",
    "Myanmar": "ကခဂငစဆဇညတထဒဓနပဖဗဘမယရလဝသဟအ့်ျြွှါာိီုူေဲ",
    "Han": "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后",
}


def letters(generator, alphabet, count):
    text = "".join(generator.choice(alphabet) for _ in range(count))
    return unicodedata.normalize("NFC", text)  # marks in their order, which punctuation between them would fix


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_same_verdict_as_a_search_of_all_ngrams(data):
    """Two letters make many common runs; the settings are as small as they can be."""
    text = st.text("ab", max_size=40)
    texts = data.draw(st.lists(text, min_size=1, max_size=5))
    document = data.draw(text)
    if data.draw(st.booleans()):  # a planted run of an evaluation text
        source = data.draw(st.sampled_from(texts))
        start = data.draw(st.integers(0, len(source)))
        document += source[start : start + data.draw(st.integers(0, 40))] + data.draw(text)
    config = DecontaminationConfig(ngram=data.draw(st.integers(8, 16)), minimum=8)
    found = Decontaminator([EvaluationText(t, str(n)) for n, t in enumerate(texts)], config).match(document)
    contaminated = set()
    for source in texts:
        width = min(config.ngram, len(source))
        if len(source) >= config.minimum and any(
            source[start : start + width] in document for start in range(len(source) - width + 1)
        ):
            contaminated.add(str(texts.index(source)))
    assert (found in contaminated) if contaminated else found is None


def disturb(generator, text):
    """White space, case and punctuation changed everywhere."""
    out = []
    for letter in text:
        out.append(letter.upper() if generator.random() < 0.5 and len(letter.upper()) == 1 else letter)
        if generator.random() < 0.3:
            out.append(generator.choice([" ", "\n", "\u200b", ",", "«", "...", "\u00a0", "—"]))
    return "".join(out)


@pytest.mark.parametrize("script", ALPHABETS)
def test_planted_cases(script):
    """Every copy is found, verbatim, disturbed, in part, and inside a long document; near misses are not."""
    generator = random.Random(script)
    alphabet = ALPHABETS[script]
    ngram = CONFIG.dense_ngram if script == "Han" else CONFIG.ngram
    minimum = CONFIG.minimum // 2 if script == "Han" else CONFIG.minimum
    long = [EvaluationText(letters(generator, alphabet, generator.randrange(ngram, 400)), f"a:{n}") for n in range(60)]
    short = [
        EvaluationText(letters(generator, alphabet, generator.randrange(minimum, ngram)), f"b:{n}") for n in range(60)
    ]
    decontaminator = Decontaminator([*long, *short], CONFIG)
    assert decontaminator.skipped == 0

    def inside(text):
        length = generator.randrange(0, 3000)
        return letters(generator, alphabet, length) + " " + text + " " + letters(generator, alphabet, length)

    for text in long + short:
        assert decontaminator.match(text.text) == text.source
        assert decontaminator.match(inside(disturb(generator, text.text))) == text.source
        assert decontaminator.match(inside(text.text)) == text.source
    for text in long:
        start = generator.randrange(len(text.text) - ngram + 1)
        part = text.text[start : start + ngram]
        assert decontaminator.match(inside(part)) == text.source
        # one letter less, and one letter changed in the middle
        assert decontaminator.match(inside(f"0{part[1:]}0")) is None
        middle = ngram // 2
        assert decontaminator.match(inside(part[:middle] + "0" + part[middle + 1 :])) is None
    for text in short:
        assert decontaminator.match(inside(f"0{text.text[1:]}")) is None
    assert decontaminator.match(letters(generator, alphabet, 20_000)) is None


def test_short_and_repeated_texts():
    short = EvaluationText("Ya, benar.", "a:1")
    same = [EvaluationText("Siapa yang menemukan benua Amerika?", f"b:{n}") for n in (1, 2)]
    decontaminator = Decontaminator([short, *same], CONFIG)
    assert decontaminator.skipped == 1
    assert decontaminator.match("Ya, benar. " * 9) is None
    assert decontaminator.match("siapa yang menemukan benua amerika") == "b:1"
    nothing = Decontaminator([], CONFIG)
    assert nothing.match("apa saja") is None and nothing.match("") is None


def test_composed_and_decomposed_letters_are_the_same():
    text = "Thời tiết hôm nay rất đẹp nên chúng tôi đi dạo"
    decontaminator = Decontaminator([EvaluationText(unicodedata.normalize("NFD", text), "a:1")], CONFIG)
    assert decontaminator.match(text) == "a:1"
