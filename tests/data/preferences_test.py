import dataclasses

import numpy as np

from seallm_jax.data.chat import ChatRenderer
from seallm_jax.data.message import Message, Preference
from seallm_jax.data.preferences import encode_preference, is_heldout

PAIR = Preference(
    prompt=(Message("user", "satu"), Message("assistant", "dua"), Message("user", "tiga?")),
    chosen=Message("assistant", "Empat."),
    rejected=Message("assistant", "Lima, enam."),
    language="id",
    position="f:1",
)


def test_only_the_replies_are_learned_and_the_prompts_are_equal(tokenizer):
    chosen, rejected = encode_preference(ChatRenderer(tokenizer), PAIR)
    for chat, reply in ((chosen, "Empat."), (rejected, "Lima, enam.")):
        assert tokenizer.decode(chat.ids[chat.learned], special=True) == reply + "<|im_end|>"
        assert (chat.ids == tokenizer.bos_id).sum() == 1  # never a second one before the reply
    start = np.flatnonzero(chosen.learned)[0]
    assert start == np.flatnonzero(rejected.learned)[0]
    np.testing.assert_array_equal(chosen.ids[:start], rejected.ids[:start])


def test_pairs_are_held_out_by_prompt():
    pairs = [dataclasses.replace(PAIR, prompt=(Message("user", str(number)),)) for number in range(2000)]
    held = [is_heldout(pair, 0.2, seed=1) for pair in pairs]
    assert 330 < sum(held) < 470
    other_replies = [dataclasses.replace(pair, chosen=Message("assistant", "x")) for pair in pairs]
    assert held == [is_heldout(pair, 0.2, seed=1) for pair in other_replies]
    assert held != [is_heldout(pair, 0.2, seed=2) for pair in pairs]
