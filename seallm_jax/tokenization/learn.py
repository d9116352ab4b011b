"""Learn a SentencePiece BPE tokenizer from text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.tokenization.chat import CHAT_END, CHAT_START, PAD
from seallm_jax.tokenization.model_file import SPACE
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer


def learn_tokenizer(
    texts: Iterable[str], size: int, *, seed: int = 0, progress: Progress | None = None
) -> SentencePieceTokenizer:
    """Learns a tokenizer of at most `size` ids with SentencePiece (BPE, as Llama 2 and Mistral).

    Identity normalisation, byte fallback, single digits, no prefix space; pieces of at most 16 characters that cross
    neither spaces nor scripts. Ids: <unk>, <s>, </s>, <pad>, <|im_start|>, <|im_end|>, the 256 bytes, then the merges.

    Args:
      texts: documents.
      size: number of ids wanted. Where the text supports fewer, the tokenizer is smaller, and `progress` says so.
      seed: kept for the record; SentencePiece's BPE is a deterministic function of the text.
      progress: reports how the learning goes.

    Raises:
      SeallmError: no text, or `size` does not even hold the bytes and the characters of the text.
    """
    import sentencepiece

    progress = progress or Progress.silent()
    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    with progress.task("reading text for the tokenizer") as advance:
        lines = list(_lines(texts, advance))
    if not lines:
        raise SeallmError("cannot learn a tokenizer: there is no text")
    try:
        with progress.task("learning tokenizer", total=size) as advance:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                hard_vocab_limit=False,
                byte_fallback=True,
                character_coverage=0.9995,
                required_chars=SPACE,  # even when the text has no space
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                split_digits=True,
                max_sentence_length=1 << 30,
                unk_id=0,
                bos_id=1,
                eos_id=2,
                pad_id=3,
                pad_piece=PAD,
                control_symbols=[CHAT_START, CHAT_END],
                minloglevel=2,
            )
            advance(size)
    except RuntimeError as error:
        needed = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if needed:
            raise SeallmError(
                f"a tokenizer of {size} ids is too small: the special tokens, 256 bytes and the characters of this "
                f"text need {needed.group(1)}"
            ) from error
        raise SeallmError(f"SentencePiece could not learn from this text: {error}") from error
    tokenizer = SentencePieceTokenizer(model.getvalue())
    if tokenizer.size < size:
        progress.say(f"the text supports {tokenizer.size} tokens, not {size}; the tokenizer has {tokenizer.size}")
    return tokenizer


def _lines(texts: Iterable[str], advance) -> Iterator[str]:
    for number, text in enumerate(texts):
        advance(1)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SeallmError(f"document {number} has a lone surrogate at character {error.start}; drop it") from None
        # the trainer takes NUL for the end of a sentence
        yield from (line for line in text.replace("\0", "\n").split("\n") if line)
