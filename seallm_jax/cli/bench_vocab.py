"""`seallm bench vocab`: the methods of vocabulary extension at one budget, on held-out text."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seallm_jax.cli.arguments import add_command
from seallm_jax.cli.tables import print_table
from seallm_jax.cli.vocab_commands import add_extension_arguments, extension_options, texts_by_language
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.progress import Progress
from seallm_jax.core.vocab_config import METHODS

if TYPE_CHECKING:
    from seallm_jax.tokenization.extension import Extension
    from seallm_jax.tokenization.tokenizer import Tokenizer

DEFAULT_METHODS = (
    "append",
    "continued_bpe@1",
    "continued_bpe",
    "merge",
    "donor",
    "continued_bpe+ASCII",
    "continued_bpe+Latin",
    "fresh",
)
_DONOR_FACTOR = 3  # a donor trained here has this many times the pieces that may be added
_VERIFIED_LINES = 10_000


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Adds the command below `seallm bench`."""
    parser = add_command(
        subparsers,
        "vocab",
        help="compare methods of vocabulary extension at the same budget",
        description="Extends a tokenizer with each method and measures how many times fewer tokens held-out text of "
        "each language needs. METHOD+SCRIPT leaves a script alone (continued_bpe+Latin, continued_bpe+ASCII), "
        "METHOD@ALPHA weighs languages by size ** ALPHA, append by size; fresh is a SentencePiece model learned from "
        "nothing, which keeps no old id.",
        example="seallm bench vocab --tokenizer=tokenizer.model --corpus corpus/ --heldout=aligned.jsonl --size=16512",
    )
    parser.add_argument("--tokenizer", required=True, metavar="DIR_OR_FILE", help="the base")
    parser.add_argument(
        "--corpus", required=True, nargs="+", metavar="PATH", help="training text: .jsonl, .parquet, .txt"
    )
    parser.add_argument(
        "--heldout",
        required=True,
        metavar="PATH",
        help="aligned sentences (.jsonl, a field a language): every second `document` of them is held out, and taken "
        "out of the training text; or other files of text",
    )
    parser.add_argument(
        "--methods", nargs="+", default=list(DEFAULT_METHODS), metavar="METHOD", help=str(DEFAULT_METHODS)
    )
    parser.add_argument("--donor", nargs="+", default=[], metavar="PATH", help="for donor; default: one trained here")
    parser.add_argument("--zawgyi", action="store_true", help="convert Burmese in the Zawgyi encoding")
    parser.add_argument(
        "--verify", action="store_true", help="check round trip, old ids and AutoTokenizer on real lines"
    )
    add_extension_arguments(parser)
    parser.set_defaults(command=command)
    return parser


def command(options: argparse.Namespace) -> dict[str, Any]:
    from seallm_jax.corpus.zawgyi import convert_zawgyi
    from seallm_jax.tokenization.tokenizer import Tokenizer

    if options.size is None:
        raise UsageError("give --size=N")
    variants = [_Variant.parse(name) for name in options.methods]
    base = Tokenizer.load(options.tokenizer)
    convert = convert_zawgyi if options.zawgyi else str
    heldout, aligned = _heldout(pathlib.Path(options.heldout), convert)
    texts = texts_by_language(options.corpus, convert=convert)
    removed = {code: set(documents) for code, documents in heldout.items()}
    train = {code: [text for text in group if text not in removed.get(code, ())] for code, group in texts.items()}
    dropped = sum(map(len, texts.values())) - sum(map(len, train.values()))
    bench = _Bench(base, train, heldout, options)
    results = [bench.run(variant) for variant in variants]
    size = sum(len(text.encode()) for group in train.values() for text in group)
    print_table(
        f"{base.size:,} + {options.size:,} tokens, learned on {size / 1e6:.1f} MB less {dropped} held-out documents; "
        "how many times fewer tokens held-out text needs",
        [_columns(result) for result in results],
    )
    if aligned and "en" in heldout:
        print_table("Tokens relative to English under the base tokenizer", _relative_rows(results))
    return {"tokenizer": options.tokenizer, "size": options.size, "training_bytes": size, "methods": results}


@dataclasses.dataclass(frozen=True)
class _Variant:
    """METHOD, METHOD+SCRIPT or METHOD@ALPHA."""

    name: str
    method: str
    scripts: tuple[str, ...]
    alpha: float | None

    @classmethod
    def parse(cls, name: str) -> _Variant:
        rest, _, alpha = name.partition("@")
        method, *scripts = rest.split("+")
        try:
            known = method in (*METHODS, "fresh")
            weight = float(alpha) if alpha else None
        except ValueError:
            known = False
        if not known:
            raise UsageError(f"no method {name!r}; use {', '.join(METHODS)}, fresh, METHOD+SCRIPT or METHOD@ALPHA")
        return cls(name, method, tuple(scripts), weight)


class _Bench:
    """What the methods share."""

    def __init__(
        self,
        base: Tokenizer,
        train: Mapping[str, list[str]],
        heldout: Mapping[str, list[str]],
        options: argparse.Namespace,
    ):
        self._base, self._train, self._heldout, self._options = base, train, heldout, options
        self._everything = [text for group in train.values() for text in group]
        self._arguments = extension_options(options)

    def run(self, variant: _Variant) -> dict[str, Any]:
        """Extends with one method and measures."""
        from seallm_jax.tokenization.reachability import unreachable_tokens
        from seallm_jax.tokenization.vocabulary_report import vocabulary_report

        start = time.perf_counter()
        extension = None if variant.method == "fresh" else self._extend(variant)
        tokenizer = extension.tokenizer if extension else self._fresh()
        seconds = time.perf_counter() - start
        aligned = self._heldout if len({len(group) for group in self._heldout.values()}) == 1 else {}
        report = vocabulary_report(self._base, tokenizer, self._heldout, aligned if "en" in aligned else None)
        result: dict[str, Any] = {
            "method": variant.name,
            "new_tokens": tokenizer.size - (self._base.size if extension else 0),
            "seconds": seconds,
        }
        if extension:
            result["new_tokens_by_language"] = extension.tokens_by_language()
            result["unreachable_new_tokens"] = len(unreachable_tokens(tokenizer, first=self._base.size))
            if self._options.verify:
                result["verified"] = self._verify(extension)
        result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        return result | report

    def _extend(self, variant: _Variant) -> Extension:
        from seallm_jax.tokenization.donor import read_donor
        from seallm_jax.tokenization.extend import extend_tokenizer
        from seallm_jax.tokenization.merged_models import train_model

        arguments = self._arguments | {
            "protected_scripts": [*self._arguments["protected_scripts"], *variant.scripts],
            "alpha": self._arguments["alpha"] if variant.alpha is None else variant.alpha,
        }
        donors: list[tuple[str, ...]] = []
        if variant.method == "donor":
            donors = [read_donor(path) for path in self._options.donor]
            donors = donors or [train_model(self._everything, _DONOR_FACTOR * self._options.size, progress=Progress())]
        return extend_tokenizer(
            self._base,
            self._train,
            self._options.size,
            method=variant.method,
            donors=donors,
            **arguments,
            progress=Progress(),
        )

    def _fresh(self) -> Tokenizer:
        from seallm_jax.tokenization.learn import learn_tokenizer

        return learn_tokenizer(self._everything, self._options.size, progress=Progress())

    def _verify(self, extension: Extension) -> dict[str, Any]:
        """Real lines through this tokenizer and through AutoTokenizer.

        Raises:
          SeallmError: a line that does not come back, other ids in AutoTokenizer, or an old id that has moved.
        """
        import transformers

        tokenizer = extension.tokenizer
        moved = [index for index in range(self._base.size) if tokenizer.piece(index) != self._base.piece(index)]
        if moved:
            raise SeallmError(f"{extension.method}: id {moved[0]} has moved")
        lines = _lines([*self._heldout.values(), *self._train.values()], _VERIFIED_LINES)
        encoded = tokenizer.encode_batch(lines)
        with tempfile.TemporaryDirectory() as directory:
            tokenizer.save(pathlib.Path(directory) / "tokenizer")
            fast = transformers.AutoTokenizer.from_pretrained(pathlib.Path(directory) / "tokenizer")
        theirs = fast(lines, add_special_tokens=False)["input_ids"]
        for line, ids, other in zip(lines, encoded, theirs, strict=True):
            if tokenizer.decode(ids) != line:
                raise SeallmError(f"{extension.method}: {line!r} does not come back from its ids")
            if ids.tolist() != other:
                raise SeallmError(f"{extension.method}: AutoTokenizer gives other ids for {line!r}")
        return {"lines": len(lines), "languages": len(self._train), "old_ids": self._base.size}


def _heldout(path: pathlib.Path, convert: Callable[[str], str]) -> tuple[dict[str, list[str]], bool]:
    """(documents by language, whether they are aligned): every second document of aligned sentences, or all texts."""
    from seallm_jax.core.languages import KNOWN_LANGUAGES
    from seallm_jax.corpus.repair import repair_text

    records = list(read_jsonl(path)) if path.suffix == ".jsonl" else []
    if not records or "document" not in records[0]:
        return texts_by_language([str(path)], convert=convert), False
    documents: dict[str, list[dict[str, str]]] = {}
    for record in records:
        documents.setdefault(record["document"], []).append(record)
    chosen = list(documents.values())[1::2]
    codes = [code for code in KNOWN_LANGUAGES if all(isinstance(record.get(code), str) for record in records)]
    texts = {
        code: [repair_text(convert("\n".join(record[code] for record in document))) for document in chosen]
        for code in codes
    }
    return texts, True


def _lines(groups: Sequence[Sequence[str]], count: int) -> list[str]:
    """About `count` non-empty lines, from all groups in turn; none with U+2581, where AutoTokenizer differs."""
    streams = [
        [line for text in group for line in text.split("\n") if line and "\u2581" not in line] for group in groups
    ]
    lines: list[str] = []
    for rank in range(max(map(len, streams), default=0)):
        lines += [stream[rank] for stream in streams if rank < len(stream)]
        if len(lines) >= count:
            break
    return lines[:count]


def _columns(result: dict[str, Any]) -> dict[str, Any]:
    verified = result.get("verified")
    fewer = {row["language"]: f"{1 / row['ratio']:.2f}" for row in result["fertility"] if row["ratio"]}
    unchanged = result["english_unchanged"]
    return (
        {"method": result["method"], "new": result["new_tokens"]}
        | fewer
        | {
            "en same": f"{unchanged:.1%}" if unchanged is not None else "",
            "unreached": result.get("unreachable_new_tokens"),
            "seconds": f"{result['seconds']:.0f}",
            "verified": f"{verified['lines']:,} lines" if verified else "",
        }
    )


def _relative_rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    def row(name: str, result: dict[str, Any], key: str) -> dict[str, Any]:
        return {"method": name} | {one["language"]: f"{one[key]:.2f}" for one in result["fertility"] if one[key]}

    rows = [row("base", results[0], "base_relative")]
    return rows + [row(result["method"], result, "extended_relative") for result in results]
