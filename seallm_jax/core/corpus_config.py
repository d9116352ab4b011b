"""Raw text to clean documents: what the corpus stage reads, repairs, drops and writes."""

from __future__ import annotations

import dataclasses
from typing import Literal

from seallm_jax.core.require import require


@dataclasses.dataclass(frozen=True)
class RepairConfig:
    """What is mended in a text before anything looks at it.

    Attributes:
      mojibake: undo UTF-8 that was read as another encoding (ftfy).
      zawgyi: convert Burmese lines in the Zawgyi encoding to Unicode.
      vowel_order: put the vowel and tone marks of Thai and Lao into canonical order.
      zero_width: script keeps the zero-width space in Thai, Lao, Khmer and Burmese, where it separates words, and the
        joiners in scripts that are shaped by them, and removes the rest; keep leaves all, strip removes all.
    """

    mojibake: bool = True
    zawgyi: bool = True
    vowel_order: bool = True
    zero_width: Literal["script", "keep", "strip"] = "script"


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """How the language of a document is found.

    Attributes:
      model: a fastText file (.bin or .ftz, as GlotLID's); empty for the script test, our word lists and py3langid.
      minimum_confidence: documents without a label count as unknown below it.
    """

    model: str = ""
    minimum_confidence: float = 0.0

    def __post_init__(self):
        value = self.minimum_confidence
        require(0 <= value <= 1, "minimum_confidence", value, "it must lie in [0, 1]")


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """Which texts are dropped for what they look like, and what is masked in the others.

    Attributes:
      enabled: drop by the thresholds of the language (`corpus/thresholds.py`).
      thresholds: language code, or "*" for all -> name of a threshold -> value that replaces the table's.
      perplexity_models: directory of KenLM files `LL.arpa`, `LL.bin` or `LL.binary`; empty for none.
      mask_personal_data: replace e-mail addresses, telephone, identity and card numbers by placeholders.
    """

    enabled: bool = True
    thresholds: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    perplexity_models: str = ""
    mask_personal_data: bool = True


@dataclasses.dataclass(frozen=True)
class QualityConfig:
    """The score in [0, 1] that documents carry, for quality bands in the curriculum.

    Attributes:
      model: a classifier saved earlier (.npz); empty trains one if `good` and `bad` are given, else none is used.
      good: file or directory of documents to resemble.
      bad: file or directory of documents to avoid.
      minimum: documents with a lower score are dropped.
    """

    model: str = ""
    good: str = ""
    bad: str = ""
    minimum: float = 0.0

    def __post_init__(self):
        require(bool(self.good) == bool(self.bad), "good", self.good, "`good` and `bad` are given together")
        require(not (self.model and self.good), "model", self.model, "it excludes `good` and `bad`")
        require(0 <= self.minimum <= 1, "minimum", self.minimum, "it must lie in [0, 1]")


@dataclasses.dataclass(frozen=True)
class DuplicatesConfig:
    """Repeated documents.

    Attributes:
      exact: drop documents that equal an earlier one after folding case and white space.
      url: drop documents that have the address of an earlier one.
      near: drop documents whose estimated Jaccard similarity to an earlier one passes the threshold.
      threshold: similarity from which documents count as near duplicates.
      ngram: characters per shingle; characters because many scripts here have no spaces.
      num_hashes: minima in a MinHash signature, two bytes each; more estimate the similarity better.
      keep: which document of a group stays, the first or the longest (the first of those).
    """

    exact: bool = True
    url: bool = True
    near: bool = True
    threshold: float = 0.8
    ngram: int = 5
    num_hashes: int = 128
    keep: Literal["first", "longest"] = "first"

    def __post_init__(self):
        require(0 < self.threshold <= 1, "threshold", self.threshold, "it must lie in (0, 1]")
        require(self.ngram >= 1, "ngram", self.ngram, "it must be at least 1")
        power = 16 <= self.num_hashes <= 4096 and self.num_hashes & (self.num_hashes - 1) == 0
        require(power, "num_hashes", self.num_hashes, "it must be a power of two from 16 to 4096")


@dataclasses.dataclass(frozen=True)
class FrequentLinesConfig:
    """Lines that many documents share: menus, notices, footers.

    Attributes:
      maximum_documents: lines of more documents are removed; 0 keeps all lines.
      scope: where a line is counted. language: over all documents of the language; site: over the documents of the
        language from one host (documents without an address by language alone).
      minimum_characters: shorter lines are neither counted nor removed, such as the digits of a list.
    """

    maximum_documents: int = 0
    scope: Literal["language", "site"] = "language"
    minimum_characters: int = 1

    def __post_init__(self):
        require(self.maximum_documents >= 0, "maximum_documents", self.maximum_documents, "it must not be negative")
        require(self.minimum_characters >= 1, "minimum_characters", self.minimum_characters, "it must be at least 1")


@dataclasses.dataclass(frozen=True)
class DecontaminationConfig:
    """Documents that hold what the evaluation asks for.

    Attributes:
      paths: further evaluation files or directories, beside those of the run: choices, questions, aligned sentences.
      ngram: letters and digits in a row that a document must share with an evaluation text to be dropped; white space,
        punctuation and case do not count.
      dense_ngram: the same for evaluation texts in Chinese characters, which say as much in a third of the characters.
      minimum: evaluation texts with fewer letters and digits are too common to be looked for; those between `minimum`
        and `ngram` must occur as a whole. Half of it for Chinese characters.
    """

    paths: tuple[str, ...] = ()
    ngram: int = 50
    dense_ngram: int = 18
    minimum: int = 24

    def __post_init__(self):
        require(self.minimum >= 8, "minimum", self.minimum, "it must be at least 8")
        require(self.ngram >= self.minimum, "ngram", self.ngram, "it must not be smaller than `minimum`")
        require(self.dense_ngram >= self.minimum // 2, "dense_ngram", self.dense_ngram, "it is under half of `minimum`")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """Aligned sentences as training text.

    Attributes:
      paths: files or directories of aligned sentences; empty writes no parallel text.
      pairs: language pairs, as `en-km`; empty takes every pair with English, and all pairs where English is missing.
      directions: hash translates each pair in the one direction that a hash of it chooses, so that no sentence repeats;
        both writes each pair twice.
      templates: letters of the wordings to use, `ABCDEFGHIJK` for all.
      maximum_length_ratio: how many times longer one side may be than the lengths of the two languages suggest.
      minimum_similarity: pairs whose record carries a lower `similarity` (or `score`, `laser_score`) are dropped.
      check_language: drop pairs with a side that is not in its language.
      minimum_characters: pairs with a shorter side are dropped.
    """

    paths: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    directions: Literal["hash", "both"] = "hash"
    templates: str = "ABCDEFGHIJK"
    maximum_length_ratio: float = 2.0
    minimum_similarity: float = 0.0
    check_language: bool = True
    minimum_characters: int = 2

    def __post_init__(self):
        known = bool(self.templates) and set(self.templates) <= set("ABCDEFGHIJK")
        require(known, "templates", self.templates, "it must hold letters from A to K")
        ratio = self.maximum_length_ratio
        require(ratio > 1, "maximum_length_ratio", ratio, "it must be greater than 1")
        bad = [pair for pair in self.pairs if len({*pair.split("-")}) != 2]
        require(not bad, "pairs", self.pairs, "a pair is two languages, as en-km")


@dataclasses.dataclass(frozen=True)
class CodeSwitchingConfig:
    """Documents whose language changes inside.

    Attributes:
      paths: files or directories of aligned sentences that become documents in alternating languages.
      fraction: share of the documents of all languages that are joined with documents of other languages.
      maximum_characters: length that a joined document does not pass, except when one of its parts alone does.
      switch_probability: chance that the language changes between one aligned sentence and the next.
    """

    paths: tuple[str, ...] = ()
    fraction: float = 0.0
    maximum_characters: int = 4000
    switch_probability: float = 0.5

    def __post_init__(self):
        require(0 <= self.fraction <= 1, "fraction", self.fraction, "it must lie in [0, 1]")
        require(self.maximum_characters >= 1, "maximum_characters", self.maximum_characters, "it must be positive")
        chance = self.switch_probability
        require(0 <= chance <= 1, "switch_probability", chance, "it must lie in [0, 1]")


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """Where the corpus stage runs. None of it changes which documents come out.

    Attributes:
      executor: local runs processes here; slurm submits jobs, slurm and ray need a file system that all machines share.
      tasks: into how many tasks the input files are divided; every task writes a part of each language.
      workers: tasks that run at the same time; 0 for all of them, on this machine as many as it has cores.
      memory_gb: of a task, for slurm and ray.
      partition: slurm's.
      time: limit of a task, for slurm, as 20:00:00.
      slurm: further options of sbatch, as {"account": "nlp"}.
    """

    executor: Literal["local", "slurm", "ray"] = "local"
    tasks: int = 1
    workers: int = 0
    memory_gb: int = 4
    partition: str = ""
    time: str = "24:00:00"
    slurm: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require(self.tasks >= 1, "tasks", self.tasks, "it must be at least 1")
        require(self.workers >= 0, "workers", self.workers, "it must not be negative; 0 is for all tasks at once")
        require(self.memory_gb >= 1, "memory_gb", self.memory_gb, "it must be at least 1")


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """Raw text to clean documents.

    Attributes:
      path: a file or directory of .jsonl, .parquet, .txt, .warc or .wet files, also compressed (.gz, .zst, .xz, .bz2),
        here or at gs://, s3:// or hf://datasets/; or a data set by name, tfds://name[/config][:split] or
        datasets://name[@config][:split]; empty for the embedded sample.
      text_key: field that holds the text.
      language_key: field that holds a language code; documents without it are identified.
      languages: keep only these codes; empty keeps all.
      holdout_fraction: share of the documents of each language kept for evaluation (at least one document).
      minimum_characters: shorter documents are dropped.
      minimum_language_documents: languages with fewer documents are dropped, counted as `rare language`.
      merge_short: neighbouring documents of a language are joined while they stay within so many characters; 0 joins
        none.
    """

    path: str = ""
    text_key: str = "text"
    language_key: str = "lang"
    languages: tuple[str, ...] = ()
    holdout_fraction: float = 0.02
    minimum_characters: int = 20
    minimum_language_documents: int = 2
    merge_short: int = 0
    repair: RepairConfig = RepairConfig()
    language: LanguageConfig = LanguageConfig()
    filters: FilterConfig = FilterConfig()
    quality: QualityConfig = QualityConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    frequent_lines: FrequentLinesConfig = FrequentLinesConfig()
    decontamination: DecontaminationConfig = DecontaminationConfig()
    parallel: ParallelConfig = ParallelConfig()
    code_switching: CodeSwitchingConfig = CodeSwitchingConfig()
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self):
        require(0 < self.holdout_fraction < 1, "holdout_fraction", self.holdout_fraction, "it must lie between 0 and 1")
        require(self.merge_short >= 0, "merge_short", self.merge_short, "it must not be negative")
