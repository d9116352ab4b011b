"""The corpus stage: read, normalise, identify, deduplicate, hold out."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import pathlib
from collections.abc import Iterator

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import KNOWN_LANGUAGES
from seallm_jax.core.paths import atomic_directory
from seallm_jax.core.progress import Progress
from seallm_jax.core.sample import resolve_path
from seallm_jax.core.schema import CorpusConfig
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.duplicates import DuplicateFilter
from seallm_jax.corpus.language import contradicts_script, identify_language
from seallm_jax.corpus.normalize import normalize_text
from seallm_jax.corpus.reader import find_files, read_documents
from seallm_jax.corpus.report import CorpusReport, LanguageCounts

UNKNOWN = "?"
UNREADABLE = ("invalid UTF-8", "invalid JSON")
NAMED_RECORDS = 3  # unreadable records of a file that are named on the screen
# ISO 639-2 and macro-language spellings that data sets use for the same languages
LANGUAGE_ALIASES = {
    "eng": "en", "ind": "id", "in": "id", "zsm": "ms", "msa": "ms", "may": "ms", "vie": "vi", "tha": "th",
    "fil": "tl", "tgl": "tl", "khm": "km", "lao": "lo", "mya": "my", "bur": "my", "jav": "jv", "jw": "jv",
    "sun": "su", "tam": "ta", "zho": "zh", "cmn": "zh",
}  # fmt: skip


def build_corpus(config: CorpusConfig, output: pathlib.Path, *, seed: int, progress: Progress) -> CorpusReport:
    """Writes `train/LL.jsonl`, `heldout/LL.jsonl` and `dropped.jsonl` into `output` and returns the counts.

    Records are `{"text", "lang", "source"}`. The held-out part is drawn after near duplicates are gone, by the rank of
    a hash of text and seed: it does not depend on file order, and no held-out document has a near twin in training.

    Raises:
      SeallmError: nothing readable at `config.path`, a damaged file, or no document left.
    """
    files = find_files(resolve_path(config.path, "corpus"))
    counts: dict[str, LanguageCounts] = collections.defaultdict(LanguageCounts)
    with atomic_directory(output) as temporary:
        digests = _collect(files, config, temporary, counts, seed, progress)
        _split(temporary, digests, config, counts)
    unreadable = sum(count.dropped[reason] for count in counts.values() for reason in UNREADABLE)
    if unreadable:
        progress.say(f"warning: {unreadable} unreadable records were left out; all are in {output / 'dropped.jsonl'}")
    return CorpusReport(dict(counts))


def _collect(
    files: list[pathlib.Path],
    config: CorpusConfig,
    directory: pathlib.Path,
    counts: dict[str, LanguageCounts],
    seed: int,
    progress: Progress,
) -> dict[str, list[bytes]]:
    """Writes the kept documents of each language to `all/LL.jsonl`; returns their held-out ranks in order."""
    ranks: dict[str, list[bytes]] = collections.defaultdict(list)
    duplicates = DuplicateFilter(near=config.deduplicate_near, threshold=config.near_threshold, ngram=config.ngram)
    (directory / "all").mkdir()
    sizes = {file: file.stat().st_size for file in files}
    with contextlib.ExitStack() as stack:
        writers: dict[str, object] = {}
        dropped = stack.enter_context(open(directory / "dropped.jsonl", "w", encoding="utf-8"))
        advance = stack.enter_context(progress.task("corpus: reading (KB)", total=sum(sizes.values()) // 1000))
        for file in files:
            readable = named = 0
            for record in _clean(read_documents(file, config), config, duplicates, counts):
                if isinstance(record, Rejected):
                    counts[record.language or UNKNOWN].dropped[record.reason] += 1
                    dropped.write(json.dumps(record.__dict__, ensure_ascii=False) + "\n")
                    readable += record.reason not in UNREADABLE
                    if record.reason in UNREADABLE and (named := named + 1) <= NAMED_RECORDS:
                        progress.say(f"warning: {file.parent / record.source}: {record.reason}")
                    continue
                readable += 1
                if record.language not in writers:
                    path = directory / "all" / f"{record.language}.jsonl"
                    writers[record.language] = stack.enter_context(open(path, "w", encoding="utf-8"))
                line = {"text": record.text, "lang": record.language, "source": record.source}
                writers[record.language].write(json.dumps(line, ensure_ascii=False) + "\n")  # type: ignore[attr-defined]
                ranks[record.language].append(hashlib.sha256(f"{seed}\0{record.text}".encode()).digest())
            if not readable and sizes[file]:
                raise SeallmError(f"{file} has no readable record: is it UTF-8 text in the format its name says?")
            advance(sizes[file] // 1000, file.name)
    if not ranks:
        reasons: collections.Counter = sum((c.dropped for c in counts.values()), collections.Counter())
        why = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or "no record in any file"
        raise SeallmError(f"the corpus at {config.path or 'the embedded sample'} is empty after cleaning: {why}")
    return ranks


def _clean(
    records: Iterator[Document | Rejected],
    config: CorpusConfig,
    duplicates: DuplicateFilter,
    counts: dict[str, LanguageCounts],
) -> Iterator[Document | Rejected]:
    for record in records:
        if isinstance(record, Rejected):
            counts[record.language or UNKNOWN].documents_read += 1
            counts[record.language or UNKNOWN].bytes_read += record.num_bytes
            yield record
            continue
        text = normalize_text(record.text)
        label = LANGUAGE_ALIASES.get(record.language.lower(), record.language.lower())
        identified = identify_language(text)
        language = label or identified
        entry = counts[language or UNKNOWN]
        entry.documents_read += 1
        entry.bytes_read += record.num_bytes
        if label and identified:
            entry.identified[identified] += 1
        reason = None
        if len(text) < config.minimum_characters:
            reason = "too short"
        elif not language:
            reason = "unknown language"
        elif config.languages and language not in config.languages:
            reason = "language not wanted"
        elif label in KNOWN_LANGUAGES and contradicts_script(text, label):
            reason = "wrong script"
        else:
            reason = duplicates.reason(text)
        if reason:
            yield Rejected(record.source, reason, language, record.num_bytes, text[:200])
        else:
            yield Document(text, language, record.source)


def _split(
    directory: pathlib.Path, ranks: dict[str, list[bytes]], config: CorpusConfig, counts: dict[str, LanguageCounts]
) -> None:
    """Moves each language from `all/` to `train/` and `heldout/`."""
    (directory / "train").mkdir()
    (directory / "heldout").mkdir()
    for language, order in ranks.items():
        entry = counts[language]
        source = directory / "all" / f"{language}.jsonl"
        if len(order) < config.minimum_language_documents:
            entry.dropped["rare language"] += len(order)
            source.unlink()
            continue
        heldout_size = max(1, round(config.holdout_fraction * len(order)))
        heldout = set(sorted(range(len(order)), key=order.__getitem__)[:heldout_size])
        with (
            open(source, encoding="utf-8") as lines,
            open(directory / "train" / source.name, "w", encoding="utf-8") as train,
            open(directory / "heldout" / source.name, "w", encoding="utf-8") as held,
        ):
            for index, line in enumerate(lines):
                num_bytes = len(json.loads(line)["text"].encode())
                if index in heldout:
                    held.write(line)
                    entry.heldout_documents += 1
                    entry.heldout_bytes += num_bytes
                else:
                    train.write(line)
                    entry.train_documents += 1
                    entry.train_bytes += num_bytes
        source.unlink()
    (directory / "all").rmdir()
    if not any(entry.train_documents for entry in counts.values()):
        raise SeallmError(
            f"no language has {config.minimum_language_documents} documents left; "
            "give more text or lower config.corpus.minimum_language_documents"
        )
