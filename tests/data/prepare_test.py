import json

import numpy as np
import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import sample_path
from seallm_jax.data.prepare import pack_conversations, pack_preferences
from seallm_jax.data.row_arrays import row_arrays
from seallm_jax.data.shard_index import INDEX_FILE
from seallm_jax.data.shards import ShardReader, open_shards
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer

T = 64
LANGUAGES = Languages(("en", "id", "km", "th"))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def pack(function, source, tokenizer, output, **options):
    values = {"sequence_length": T, "progress": Progress.silent()} | options
    values = {"identify": None} | values
    return function(source, tokenizer, values.pop("languages", LANGUAGES), output, **values)


def pack_pairs(path, tokenizer, output, **options):
    values = {"maximum_pairs": 2, "heldout": 0.1, "seed": 0} | options
    return pack(pack_preferences, path, tokenizer, output, **values)


CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "lang": "en"},
    {"instruction": "apa", "input": "", "output": "itu", "lang": "id"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "word " * 200}], "lang": "en"},
    {"messages": [{"role": "user", "content": "long " * 200}, {"role": "assistant", "content": "ok"}], "lang": "en"},
    {"prompt": "x", "completion": "y", "lang": "zz"},
    {"prompt": "x", "completion": "y"},
    {"text": "no conversation"},
]


def test_conversations_are_truncated_dropped_and_counted(tokenizer, tmp_path):
    path = write_lines(tmp_path / "c.jsonl", CONVERSATIONS)
    summary = pack(pack_conversations, path, tokenizer, tmp_path / "tokens")
    by_source = {row["source"]: row for row in summary}
    english = by_source["instructions/en"]
    assert (english["documents"], english["truncated"]) == (2, 1)
    assert english["dropped"] == {"nothing learned within a row": 1}
    assert by_source["instructions/id"]["documents"] == 1
    assert by_source["instructions/-"]["dropped"] == {
        "language zz not in the run": 1,
        "language unknown": 1,
        "unknown format": 1,
    }
    rows = ShardReader(tmp_path / "tokens" / "instructions" / "en").read(range(english["rows"]))
    pieces = {piece.document: piece for row in rows for piece in row.pieces()}
    short = pieces[0]
    assert tokenizer.decode(short.ids[1:][short.learned], special=True) == "hello<|im_end|>"
    assert pieces[1].positions == T  # the beginning of the long one
    assert sum(int(piece.learned.sum()) for piece in pieces.values()) == english["tokens"]
    again = pack(pack_conversations, path, tokenizer, tmp_path / "tokens")
    assert again == summary


def test_languages_are_identified_where_the_record_has_none(tokenizer, tmp_path):
    path = write_lines(tmp_path / "c.jsonl", [{"prompt": "សួស្តី", "completion": "y"}] * 3)
    seen = []
    summary = pack(
        pack_conversations, path, tokenizer, tmp_path / "tokens", identify=lambda text: seen.append(text) or "km"
    )
    assert seen == ["សួស្តី\ny"] * 3 and summary[0]["source"] == "instructions/km"


def test_an_unstable_template_names_the_conversation(tokenizer, tmp_path):
    template = "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}"
    path = write_lines(tmp_path / "c.jsonl", CONVERSATIONS)
    with pytest.raises(SeallmError, match="c.jsonl:1: the chat template renders turn 2 otherwise"):
        pack(
            pack_conversations,
            path,
            SentencePieceTokenizer(tokenizer.model, chat_template=template),
            tmp_path / "tokens",
        )
    assert not list((tmp_path / "tokens").rglob(INDEX_FILE))


def test_nothing_usable_says_why(tokenizer, tmp_path):
    path = write_lines(tmp_path / "c.jsonl", [{"text": "no conversation"}] * 3)
    with pytest.raises(SeallmError, match=r"holds no usable instructions \(unknown format: 3\)"):
        pack(pack_conversations, path, tokenizer, tmp_path / "tokens")


def test_pairs_stay_whole_within_a_row(tokenizer, tmp_path):
    pairs = [{"prompt": f"q{i}", "chosen": "good", "rejected": "not good", "lang": "en"} for i in range(9)]
    pairs.append({"prompt": "q", "chosen": "word " * 100, "rejected": "b", "lang": "en"})
    path = write_lines(tmp_path / "p.jsonl", pairs)
    summary = pack_pairs(path, tokenizer, tmp_path / "tokens", heldout=0.0, sequence_length=128)
    assert summary[0]["documents"] == 9 and summary[0]["dropped"] == {"pair longer than a row": 1}
    reader = ShardReader(tmp_path / "tokens" / "preferences" / "en")
    assert (reader.index.max_segments, len(reader)) == (4, 5)
    for row in reader.read(range(5)):
        pieces = row.pieces()
        for chosen, rejected in zip(pieces[::2], pieces[1::2], strict=True):
            assert chosen.document == rejected.document
            assert tokenizer.decode(chosen.ids[1:][chosen.learned], special=True) == "good<|im_end|>"
            assert tokenizer.decode(rejected.ids[1:][rejected.learned], special=True) == "not good<|im_end|>"
        arrays = row_arrays([row], 128, [np.zeros(1, np.int32)])
        assert set(arrays["segment_ids"][0]) - {0} == set(range(1, len(pieces) + 1))


def test_held_out_pairs_are_not_packed(tokenizer, tmp_path):
    pairs = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad", "lang": "en"} for i in range(100)]
    path = write_lines(tmp_path / "p.jsonl", pairs)
    row = pack_pairs(path, tokenizer, tmp_path / "tokens", heldout=0.3)[0]
    assert row["documents"] + row["dropped"]["held out for evaluation"] == 100
    assert 15 < row["dropped"]["held out for evaluation"] < 45


def test_the_embedded_sample_packs(tokenizer, tmp_path):
    options = {"sequence_length": 256}
    instructions = pack(pack_conversations, sample_path("instructions"), tokenizer, tmp_path, **options)
    preferences = pack_pairs(sample_path("preferences"), tokenizer, tmp_path, maximum_pairs=8, **options)
    assert {row["source"] for row in instructions} >= {f"instructions/{code}" for code in LANGUAGES.codes}
    assert {row["source"] for row in preferences} >= {f"preferences/{code}" for code in LANGUAGES.codes}
    for reader in open_shards(tmp_path, tokenizer_digest=tokenizer.digest):
        reader.verify()


def test_an_anchor_begins_every_row_of_conversations(tokenizer, tmp_path):
    path = write_lines(tmp_path / "c.jsonl", CONVERSATIONS)
    pack(pack_conversations, path, tokenizer, tmp_path / "tokens", anchor=True)
    reader = ShardReader(tmp_path / "tokens" / "instructions" / "en")
    assert reader.index.mode == "anchor" and {row.length for row in reader.read(range(len(reader)))} <= set(
        range(T + 1)
    )
    for row in reader.read(range(len(reader))):
        first, *rest = row.pieces()
        assert first.ids.tolist() == [tokenizer.begin_id] * 2 and not first.learned.any()
        assert all(piece.learned.any() for piece in rest) and rest
    plain = pack(pack_conversations, path, tokenizer, tmp_path / "tokens")
    assert plain[0]["tokens"] == reader.index.tokens + 1  # the long one lost a position to the token
