"""Addresses of the same page."""

import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.url_key import url_host, url_key

WORDS = st.text("abcxyz09-", min_size=1, max_size=8).map(lambda word: f"q{word}")


@settings(deadline=None)
@given(
    st.lists(WORDS, min_size=2, max_size=3),
    st.lists(WORDS, max_size=3),
    st.dictionaries(WORDS, WORDS, max_size=3),
    st.booleans(), st.booleans(), st.booleans(), st.randoms(use_true_random=False),
)  # fmt: skip
def test_what_leads_to_the_same_page_is_gone(host, path, query, secure, www, slash, random):
    plain = f"http://{'.'.join(host)}/{'/'.join(path)}".rstrip("/")
    parameters = list(query.items())
    first = plain + ("?" + urllib.parse.urlencode(parameters) if parameters else "")
    random.shuffle(parameters)
    parameters.insert(random.randrange(len(parameters) + 1), ("utm_source", "mail"))
    name = ("www." if www else "") + ".".join(host).upper()
    other = f"{'https' if secure else 'http'}://{name}/{'/'.join(path)}{'/' if slash else ''}"
    other += "?" + urllib.parse.urlencode(parameters) + "#top"
    assert url_key(first) == url_key(other) != ""
    assert url_host(first) == url_host(other) == ".".join(host)
    assert url_key(url_key(first)) == url_key(first)


@pytest.mark.parametrize(
    "other",
    ["http://a.id/Page", "http://a.id/page?x=2", "http://b.a.id/page?x=1", "http://a.id:8080/page?x=1", "a.id/page"],
)
def test_other_pages_differ(other):
    assert url_key(other) != url_key("http://a.id/page?x=1")


@pytest.mark.parametrize(("url", "key"), [("", ""), ("  ", ""), ("http://[::1", "http://[::1"), ("http://", "http://")])
def test_what_is_no_address_stays(url, key):
    assert url_key(url) == key
