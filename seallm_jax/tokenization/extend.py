"""Vocabulary extension: new pieces on top of a base tokenizer, whose ids never move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.vocab_config import METHODS
from seallm_jax.tokenization.assemble import missing_chat_tokens, round_to_multiple
from seallm_jax.tokenization.continued_bpe import continued_bpe
from seallm_jax.tokenization.exhaustive_merge import vocab_extend
from seallm_jax.tokenization.extension import EXTENSION_NAME, Extension
from seallm_jax.tokenization.extension_settings import ExtensionSettings
from seallm_jax.tokenization.merged_models import (
    append_pieces_as_they_are,
    merge_pieces,
    train_model,
    train_models,
)
from seallm_jax.tokenization.scripts import script_guard
from seallm_jax.tokenization.segments import MAXIMUM_SYMBOLS
from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from seallm_jax.tokenization.training_words import TrainingWords

__all__ = ["EXTENSION_NAME", "METHODS", "Extension", "extend_tokenizer"]


def extend_tokenizer(
    base: Tokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    size: int | None,
    *,
    method: str = "continued_bpe",
    donors: Sequence[Sequence[str]] = (),
    alpha: float = 0.6,
    minimum_frequency: int = 3,
    budgets: Mapping[str, int] | None = None,
    protected_texts: Iterable[str] = (),
    protected_ratio: float = 0.02,
    protected_scripts: Iterable[str] = (),
    pad_to: int = 0,
    strict: bool = False,
    maximum_symbols: int = MAXIMUM_SYMBOLS,
    pretokenizer: str | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> Extension:
    """Adds tokens to a tokenizer. Ids of the base stay; chat tokens that it lacks come first.

    Methods:

    - `continued_bpe` goes on learning merges where the base stopped (arXiv 2512.03989).
    - `donor` is SeaLLMs' Algorithm 1: pieces of a donor vocabulary that the text uses, see `exhaustive_merge.py`.
    - `merge` takes the pieces of several trained models, as Compass does: those given as `donors`, or one trained on
      each language's text here.
    - `append` puts the pieces of a trained model behind the base's, as Chinese-LLaMA does. A baseline: it looks at no
      text, neither new nor protected, so tokens that no text reaches stay in, and old text changes.

    All but `append` decide by gain on the text which pieces get a place, and make each from two pieces that exist by
    then, after all merges of the base. No new piece crosses a space, a digit, ZWSP or a change of script. Characters
    that the base can only write as bytes compete with merges for the places.

    Args:
      base: the tokenizer to extend.
      texts_by_language: training documents per language. May be empty for `merge` and `append` with donors.
      size: new tokens at most, chat tokens included; 0 returns the base as it is; None takes the sum of the budgets.
      donors: vocabularies (`read_donor`) for `donor`, `merge` and `append`.
      alpha: languages weigh by size ** alpha (size in UTF-8 bytes): 1 by size, 0 all the same. So the places are
        shared by expected gain.
      minimum_frequency: a new piece must occur this often in the training text; m of SeaLLMs' algorithm.
      budgets: new tokens per language at most, chat tokens not included; a token is on the account of the language that
        has most of it, and languages without a budget share what is left.
      protected_texts: documents whose ids should stay as they are, such as English. A piece is refused when they have
        it more than `protected_ratio` times as often, per byte, as the training text has. This costs the languages that
        share the script some of their gain.
      protected_scripts: scripts in which no token is added (`Latin`), so that text in them keeps its ids; `ASCII`
        protects letters without diacritics only. See `script_guard`.
      pad_to: raises `size` so that the size of the vocabulary is a multiple of this (128 for TPU tiles); when the text
        supports less, it is a lower multiple. 0 for none.
      strict: too little text for `size` is an error rather than a smaller vocabulary.
      maximum_symbols: bound on the words held in memory, about 60 bytes each; more text than that is sampled.
      pretokenizer: of byte-level tokenizers only.
      threads: for reading; 0 takes all cores.
      progress: reports reading and learning, and says when the text supports fewer pieces than `size`.

    Raises:
      SeallmError: no text, a negative size, no room for the chat tokens, no such method, or a method without its donor.
    """
    if method not in METHODS:
        raise SeallmError(f"no extension method {method!r}; use one of {', '.join(METHODS)}")
    if size is None:
        if not budgets:
            raise SeallmError("give a size, or a budget for each language")
        size = sum(budgets.values()) + len(missing_chat_tokens(base, 1 << 30))
    if size < 0 or minimum_frequency < 1:
        raise SeallmError(f"vocabulary size {size} and minimum frequency {minimum_frequency} must be at least 0 and 1")
    if size == 0:
        return Extension(base, base.size, base.digest, (), [], (), (), method)
    size = round_to_multiple(base.size, size, pad_to)
    settings = ExtensionSettings(
        size=size,
        control=missing_chat_tokens(base, size),
        guard=script_guard(protected_scripts),
        alpha=alpha,
        minimum_frequency=minimum_frequency,
        budgets=budgets or {},
        protected_ratio=protected_ratio,
        pad_to=pad_to,
        strict=strict,
        maximum_symbols=maximum_symbols,
        threads=threads,
        progress=progress or Progress.silent(),
    )
    if not isinstance(base, SentencePieceTokenizer):
        return _byte_level(base, texts_by_language, protected_texts, settings, method, pretokenizer)
    if pretokenizer is not None:
        raise SeallmError(f"pretokenizer {pretokenizer!r} is for byte-level tokenizers; this one is SentencePiece")
    if method == "donor" and not donors:
        raise SeallmError("the method 'donor' needs a donor vocabulary: a tokenizer or a list of pieces")
    if method in ("merge", "append"):
        return _from_models(base, texts_by_language, protected_texts, settings, method, donors)
    training = TrainingWords.read(base, texts_by_language, protected_texts, settings)
    allowed = None
    if method == "donor":
        allowed = vocab_extend(
            training,
            frozenset().union(*donors),
            base.mergeable_pieces.keys(),
            minimum_frequency=minimum_frequency,
            progress=settings.progress,
        )
    return continued_bpe(base, training, settings, allowed=allowed, method=method)


def _from_models(
    base: SentencePieceTokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    protected_texts: Iterable[str],
    settings: ExtensionSettings,
    method: str,
    donors: Sequence[Sequence[str]],
) -> Extension:
    texts = {code: list(documents) for code, documents in texts_by_language.items()}
    everything = [text for documents in texts.values() for text in documents]
    size, progress = settings.size, settings.progress
    if not donors and not any(everything):
        raise SeallmError(f"the method {method!r} needs models, or text to train them on")
    if method == "append":
        if settings.budgets:
            raise SeallmError("the method 'append' has no budgets; the models' order decides. Use 'merge' instead")
        models = donors or [train_model(everything, size + size // 2, progress=progress)]
        return append_pieces_as_they_are(base, models, settings, texts=everything)
    if settings.budgets and not any(everything):
        raise SeallmError("budgets need text that tells which language a piece belongs to")
    models = donors or train_models(texts, size, alpha=settings.alpha, progress=progress)
    if not any(everything):
        return merge_pieces(base, models, settings)
    training = TrainingWords.read(base, texts, protected_texts, settings)
    return continued_bpe(base, training, settings, allowed=frozenset().union(*models), method=method)


def _byte_level(
    base: Tokenizer,
    texts_by_language: Mapping[str, Iterable[str]],
    protected_texts: Iterable[str],
    settings: ExtensionSettings,
    method: str,
    pretokenizer: str | None,
) -> Extension:
    from seallm_jax.tokenization.byte_level_extend import extend_byte_level
    from seallm_jax.tokenization.byte_level_tokenizer import ByteLevelTokenizer

    if not isinstance(base, ByteLevelTokenizer):
        raise SeallmError(
            f"cannot extend a {type(base).__name__}; SentencePiece BPE and byte-level BPE can be extended"
        )
    if method != "continued_bpe":
        raise SeallmError(f"the method {method!r} is for SentencePiece tokenizers; byte-level ones take continued_bpe")
    return extend_byte_level(base, texts_by_language, protected_texts, settings, pretokenizer=pretokenizer)
