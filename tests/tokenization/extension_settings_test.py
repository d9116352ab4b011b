"""What the learners are told."""

import hypothesis.strategies as st
from hypothesis import given

from seallm_jax.tokenization.assemble import round_to_multiple
from tests.tokenization.conftest import extension_settings


@given(base=st.integers(1, 10**6), size=st.integers(1, 10**5), multiple=st.integers(0, 512))
def test_what_exceeds_a_multiple(base, size, multiple):
    settings = extension_settings(pad_to=multiple)
    assert settings.excess(base + round_to_multiple(base, size, multiple)) == 0
    if multiple:
        assert (base - settings.excess(base)) % multiple == 0 and 0 <= settings.excess(base) < multiple


def test_chat_tokens_take_places():
    assert extension_settings(size=10, control=("<a>", "<b>")).places == 8
