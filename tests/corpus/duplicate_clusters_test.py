"""Which documents are dropped, against exact similarities and the theory of MinHash."""

import collections
import dataclasses
import random

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.corpus_config import DuplicatesConfig
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.disjoint_sets import DisjointSets
from seallm_jax.corpus.document import Document
from seallm_jax.corpus.duplicate_clusters import _link_band, cluster_duplicates
from seallm_jax.corpus.duplicate_signatures import DuplicateSignatures
from seallm_jax.corpus.minhash import choose_bands

LETTERS = "ကခဂဃငစဆဇဈညဋဌဍဎဏတထဒဓနပဖဗဘမယရလဝသဟဠအ"
CONFIG = DuplicatesConfig()


def decide(directory, documents, config=CONFIG, cuts=()):
    """Reasons by document; `cuts` divides them into units."""
    bounds = [0, *sorted(cuts), len(documents)]
    paths = [directory / f"{number:03d}.signatures" for number in range(len(bounds) - 1)]
    for path, start, end in zip(paths, bounds, bounds[1:], strict=False):
        with DuplicateSignatures(path, config) as signatures:
            for document in documents[start:end]:
                signatures.add(document)
    counts = cluster_duplicates(paths, directory / "decisions", config, progress=Progress.silent())
    codes = b"".join((directory / "decisions" / path.name).read_bytes() for path in paths)
    reasons = ["", "exact duplicate", "same address", "near duplicate"]
    found = [reasons[code] for code in codes]
    assert counts == collections.Counter(reason for reason in found if reason)
    return found


def document(text, url=""):
    return Document(text, "my", "x", url)


def words(generator, length):
    return "".join(generator.choice(LETTERS) for _ in range(length))


def similar_pair(generator, length, jaccard, ngram=5):
    """Two texts of exactly known similarity: a common beginning, and ends that share no n-gram."""
    union = length - ngram + 1
    common = round(2 * union * jaccard / (1 + jaccard)) + ngram - 1
    text = words(generator, length)
    other = text[:common] + words(generator, length - common)
    shingles = [{t[i : i + ngram] for i in range(len(t) - ngram + 1)} for t in (text, other)]
    return text, other, len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_groups_are_those_of_brute_force_for_any_division(tmp_path_factory, data):
    """Copies, changed copies and re-crawled pages; near ones are so near, others so far, that chance plays no part."""
    generator = random.Random(data.draw(st.integers(0, 2**32)))
    documents, origins = [], []
    for number in range(data.draw(st.integers(1, 25))):
        kind = generator.choice(["new", "exact", "near", "url"]) if documents else "new"
        earlier = generator.randrange(len(documents)) if documents else 0
        if kind == "new":
            documents.append(
                document(words(generator, 400), f"http://a.mm/{number}" if generator.random() < 0.5 else "")
            )
        elif kind == "exact":
            url = generator.choice(["", documents[earlier].url, f"http://a.mm/{number}"])
            documents.append(document("  " + documents[earlier].text + "\n", url))
        elif kind == "near":
            text = documents[earlier].text.strip()
            documents.append(document(text[:-1] + generator.choice(LETTERS)))
        else:
            documents.append(document(words(generator, 300), documents[earlier].url))
        origins.append(kind)
    cuts = data.draw(st.lists(st.integers(0, len(documents)), max_size=4))
    found = decide(tmp_path_factory.mktemp("a"), documents, cuts=cuts)
    assert found == decide(tmp_path_factory.mktemp("b"), documents)

    expected, texts, urls = [], set(), set()
    for doc in documents:
        text = doc.text.strip()
        reason = "exact duplicate" if text in texts else "same address" if doc.url and doc.url in urls else ""
        texts.add(text)
        if reason != "exact duplicate":
            urls.add(doc.url)
        expected.append(reason)
    left = [number for number, reason in enumerate(expected) if not reason]
    sets = [{t[i : i + 5] for i in range(len(t) - 4)} for t in (documents[number].text.strip() for number in left)]
    links = np.array([[len(a & b) / len(a | b) >= 0.8 for b in sets] for a in sets])
    _, labels = scipy.sparse.csgraph.connected_components(links, directed=False)
    for position, number in enumerate(left):
        if labels[position] in labels[:position]:
            expected[number] = "near duplicate"
    assert found == expected


@pytest.mark.parametrize("jaccard", [0.6, 0.72, 0.8, 0.88, 0.95])
def test_share_of_planted_pairs_follows_the_theory(tmp_path, jaccard):
    generator = random.Random(int(jaccard * 100))
    documents, similarities = [], []
    for _ in range(250):
        a, b, similarity = similar_pair(generator, 500, jaccard)
        documents += [document(a), document(b)]
        similarities.append(similarity)
    found = decide(tmp_path, documents)
    assert not any(found[::2])  # the first of a pair stays, and nothing else is similar
    share = sum(map(bool, found[1::2])) / 250
    # the model: 128 minima agree independently, with the probability of the similarity
    agree = np.random.default_rng(0).random((20_000, 128)) < np.resize(similarities, 20_000)[:, None]
    bands, rows = choose_bands(0.8, 128)
    candidates = agree[:, : bands * rows].reshape(-1, bands, rows).all(axis=2).any(axis=1)
    expected = (candidates & (agree.mean(axis=1) >= 0.8)).mean()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 250) ** 0.5 + 0.005


def test_the_longest_stays_when_wanted(tmp_path):
    generator = random.Random(0)
    text = words(generator, 600)
    other = words(generator, 100)
    documents = [
        document(text), document(text + words(generator, 20)), document(text + "က"), document(other, "http://a.mm"),
        document(words(generator, 300), "https://www.a.mm/"),
    ]  # fmt: skip
    (tmp_path / "first").mkdir()
    (tmp_path / "longest").mkdir()
    assert decide(tmp_path / "first", documents) == ["", "near duplicate", "near duplicate", "", "same address"]
    longest = dataclasses.replace(CONFIG, keep="longest")
    found = decide(tmp_path / "longest", documents, longest)
    assert found == ["near duplicate", "", "near duplicate", "same address", ""]


def test_each_kind_can_be_switched_off(tmp_path):
    generator = random.Random(0)
    text = words(generator, 400)
    documents = [document(text, "http://a.mm/1"), document(text), document(text[:-1] + "!"), document("x", "a.mm/1")]
    for key, expected in {
        "exact": ["", "near duplicate", "near duplicate", "same address"],
        "url": ["", "exact duplicate", "near duplicate", ""],
        "near": ["", "exact duplicate", "", "same address"],
    }.items():
        (tmp_path / key).mkdir()
        assert decide(tmp_path / key, documents, dataclasses.replace(CONFIG, **{key: False})) == expected


def test_a_crowd_that_agrees_in_bands_without_being_similar(tmp_path):
    """A site's frame around 300 different articles: many candidates, no duplicate; and one true one."""
    generator = random.Random(3)
    frame = words(generator, 500)
    documents = [document(frame + words(generator, 350)) for _ in range(300)]
    documents.append(document(documents[150].text[:-3]))
    found = decide(tmp_path, documents)
    assert found == [""] * 300 + ["near duplicate"]


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_all_pairs_of_one_band_are_linked(seed, size, kinds):
    generator = np.random.default_rng(seed)
    kind = generator.integers(kinds, size=size)
    signatures = generator.integers(2**16, size=(kinds, 128), dtype=np.uint16)[kind]
    signatures[np.arange(size), generator.integers(128, size=size)] = 0
    keys = generator.integers(3, size=size).astype(np.uint64)
    groups = DisjointSets(size)
    _link_band(keys, signatures, groups, 0.8)
    pairs = zip(kind, keys, strict=True)
    first = {pair: place for place, pair in reversed(list(enumerate(pairs)))}
    assert groups.roots(np.arange(size)).tolist() == [first[pair] for pair in zip(kind, keys, strict=True)]


def test_nothing_to_do(tmp_path):
    assert decide(tmp_path, []) == []
    (tmp_path / "one").mkdir()
    assert decide(tmp_path / "one", [document("ကခ")], cuts=[0, 1]) == [""]
