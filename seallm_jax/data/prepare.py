"""Packs instructions and preferences into the shards tokens/<kind>/<language>/."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.core.paths import file_digest, read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.data.chat import ChatRenderer
from seallm_jax.data.formats import MalformedRecordError, to_conversation, to_preference
from seallm_jax.data.message import Conversation, Preference
from seallm_jax.data.pack_summary import Summary, forget_others, inputs_digest, summary_row
from seallm_jax.data.preferences import encode_preference, is_heldout
from seallm_jax.data.records import read_records, record_files
from seallm_jax.data.row import Piece
from seallm_jax.data.row_packer import RowPacker
from seallm_jax.tokenization.tokenizer import Tokenizer

SUMMARY_FILE = "summary.json"


def pack_conversations(
    path: pathlib.Path,
    tokenizer: Tokenizer,
    languages: Languages,
    output: pathlib.Path,
    *,
    sequence_length: int,
    anchor: bool = False,
    identify: Callable[[str], str] | None,
    progress: Progress,
) -> Summary:
    """Packs instructions: loss on the assistant's words and the end of its turns.

    A conversation longer than a row keeps its beginning (counted as truncated) and is dropped when nothing learned is
    left. Records that are not used are counted by reason.

    Args:
      path: file or directory, in any of the formats of `formats.py`.
      tokenizer: makes the ids, and its chat template the text.
      languages: the run's languages; others are dropped.
      output: the tokens directory; shards go to output/instructions/<language>.
      sequence_length: T.
      anchor: begin each row with a token that all conversations see, as `packing.mode = anchor` does with text.
      identify: text -> language code, for records without `lang` or `language`; None drops those.
      progress: one task.

    Returns:
      As `pack_text`, and a record for "instructions/-" with what was dropped before its language was known.

    Raises:
      SeallmError: nothing to read, no conversation at all, or a chat template that does not suit a conversation.
    """
    renderer = ChatRenderer(tokenizer)
    capacity = sequence_length - anchor

    def pieces(conversation: Conversation, document: int) -> tuple[list[Piece], bool]:
        chat = renderer.encode(conversation.messages, position=conversation.position)
        ids, learned = chat.ids[: capacity + 1], chat.learned[1 : capacity + 1]
        truncated = len(chat.ids) > len(ids)
        return ([Piece(ids, document=document, learned=learned)] if learned.any() else []), truncated

    return _pack_records(
        "instructions",
        path,
        tokenizer,
        languages,
        output,
        sequence_length=sequence_length,
        anchor=anchor,
        maximum_items=0,
        parse=to_conversation,
        pieces=pieces,
        unlearnable="nothing learned within a row",
        keep=lambda conversation: True,
        split={},
        identify=identify,
        progress=progress,
    )


def pack_preferences(
    path: pathlib.Path,
    tokenizer: Tokenizer,
    languages: Languages,
    output: pathlib.Path,
    *,
    sequence_length: int,
    maximum_pairs: int,
    heldout: float,
    seed: int,
    identify: Callable[[str], str] | None,
    progress: Progress,
) -> Summary:
    """Packs preference pairs: a row holds whole pairs, `maximum_pairs` at most; loss weights mark the replies.

    A pair that is longer than a row is dropped and counted, and so are the pairs that `is_heldout` keeps for
    evaluation (a share of `heldout`). Other arguments, result and errors as `pack_conversations`; shards go to
    output/preferences/<language>.
    """
    renderer = ChatRenderer(tokenizer)

    def pieces(pair: Preference, document: int) -> tuple[list[Piece], bool]:
        chats = encode_preference(renderer, pair)
        if sum(len(chat.ids) - 1 for chat in chats) > sequence_length:
            return [], False
        return [Piece(chat.ids, document=document, learned=chat.learned[1:]) for chat in chats], False

    return _pack_records(
        "preferences",
        path,
        tokenizer,
        languages,
        output,
        sequence_length=sequence_length,
        anchor=False,
        maximum_items=maximum_pairs,
        parse=to_preference,
        pieces=pieces,
        unlearnable="pair longer than a row",
        keep=lambda pair: not is_heldout(pair, heldout, seed),
        split={"heldout": heldout, "seed": seed},
        identify=identify,
        progress=progress,
    )


def _pack_records(
    kind: str,
    path: pathlib.Path,
    tokenizer: Tokenizer,
    languages: Languages,
    output: pathlib.Path,
    *,
    sequence_length: int,
    anchor: bool,
    maximum_items: int,
    parse: Callable,
    pieces: Callable,
    unlearnable: str,
    keep: Callable[[Any], bool],
    split: dict[str, Any],
    identify: Callable[[str], str] | None,
    progress: Progress,
) -> Summary:
    files = [file for file, _ in record_files(path, ranking=kind == "preferences")]
    inputs = inputs_digest(
        tokenizer,
        sequence_length,
        {
            "kind": kind,
            "files": [[file.name, file_digest(file)] for file in files],
            "layouts": [layout for _, layout in record_files(path, ranking=kind == "preferences")],
            "maximum_items": maximum_items,
            "anchor": anchor,
            "languages": list(languages.codes),
            "template": tokenizer.chat_template,
            "identified": identify is not None,
            "split": split,
        },
    )
    done = output / kind / SUMMARY_FILE
    if done.exists() and (record := read_json(done)).get("inputs_digest") == inputs:
        return record["summary"]
    forget_others(output / kind, ())
    packers: dict[str, RowPacker] = {}
    unplaced: collections.Counter[str] = collections.Counter()
    try:
        with progress.task(f"packing {kind}", total=_count_records(files)) as advance:
            for item in _parsed(read_records(path, ranking=kind == "preferences"), parse, unplaced, advance):
                language = item.language or (identify(item.text) if identify else "")
                if language not in languages.codes:
                    unplaced[f"language {language} not in the run" if language else "language unknown"] += 1
                    continue
                if language not in packers:
                    packers[language] = RowPacker(
                        output / kind / language,
                        sequence_length,
                        anchor=tokenizer.begin_id if anchor else None,
                        maximum_items=maximum_items,
                    )
                packer = packers[language]
                if not keep(item):
                    packer.drop("held out for evaluation")
                    continue
                made, truncated = pieces(item, packer.documents)
                if made:
                    packer.add_document([made], truncated=truncated)
                else:
                    packer.drop(unlearnable)
        indices = [
            packers[language].finish(
                kind=kind,
                language=language,
                tokenizer_digest=tokenizer.digest,
                inputs_digest=inputs,
                mode="anchor" if anchor else "intra_document",
            )
            for language in sorted(packers)
        ]
    finally:
        for packer in packers.values():
            packer.close()
    if not any(index.rows for index in indices):
        reasons = (
            ", ".join(f"{reason}: {count}" for reason, count in unplaced.most_common(3)) or "every one was dropped"
        )
        raise SeallmError(f"{path} holds no usable {kind} ({reasons})")
    summary = [summary_row(index) for index in indices]
    if unplaced:
        empty = {"documents": 0, "rows": 0, "tokens": 0, "fill": 0.0, "truncated": 0}
        summary.append({"source": f"{kind}/-", **empty, "dropped": dict(unplaced)})
    write_json(done, {"inputs_digest": inputs, "summary": summary})
    return summary


def _parsed(records: Iterator, parse: Callable, dropped: collections.Counter, advance: Callable) -> Iterator[Any]:
    for record in records:
        advance(1)
        try:
            yield parse(record)
        except MalformedRecordError as error:
            dropped[str(error)] += 1


def _count_lines(file: pathlib.Path) -> int:
    with open(file, "rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))


def _count_records(files: Sequence[pathlib.Path]) -> int | None:
    """Number of records where it is cheap to tell, for the progress."""
    if all(file.name.endswith(".jsonl") for file in files):
        return sum(_count_lines(file) for file in files)
    return None
