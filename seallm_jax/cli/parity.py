"""The parity report of `seallm convert --verify`: our logits and greedy tokens against those of transformers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from seallm_jax.cli.tables import print_table
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import read_jsonl
from seallm_jax.core.sample import sample_path

if TYPE_CHECKING:
    from seallm_jax.models.decoder import Decoder
    from seallm_jax.tokenization.tokenizer import Tokenizer

LANGUAGES = ("en", "vi", "th", "km", "id")  # of the embedded sample, a line each
LINE_TOKENS = 32
GREEDY_TOKENS = 64
TOLERANCE = 1e-4  # of the largest logit; float32 sums in another order differ by less


@dataclasses.dataclass(frozen=True)
class ParityReport:
    """What was compared, in float32, and how it came out.

    Attributes:
      lines: text lines compared.
      tokens: their tokens.
      largest_logit: largest absolute logit of transformers.
      difference: largest absolute difference of a logit, each line in a row of its own.
      packed_difference: the same with all lines packed into one row here, one by one in transformers.
      relative_difference: the larger of the two, as a share of `largest_logit`.
      greedy_tokens: greedily decoded tokens compared, of all lines.
      first_difference: line, position and both ids of the first greedy token that differs; None when none does.
      passed: whether logits agree to `TOLERANCE` and all greedy tokens are the same.
    """

    lines: int
    tokens: int
    largest_logit: float
    difference: float
    packed_difference: float
    relative_difference: float
    greedy_tokens: int
    first_difference: dict[str, int] | None
    passed: bool


def require_torch() -> None:
    """Raises SeallmError, before any work, where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise SeallmError(
            "--verify runs the model in transformers, which needs torch: pip install 'seallm_jax[parity]'"
        )


def measure_parity(folder: pathlib.Path, model: Decoder, tokenizer: Tokenizer) -> ParityReport:
    """Runs the same token ids through both.

    transformers runs in a process of its own, `seallm_jax.cli.parity_child`: this package does not import torch, and
    the two models are not in one process's memory.

    Args:
      folder: Hugging Face folder.
      model: the same model here, float32 parameters.
      tokenizer: its tokenizer.

    Raises:
      SeallmError: transformers cannot load or run the folder.
    """
    from seallm_jax.generation.sampler import generate

    lines = _lines(tokenizer, min(LINE_TOKENS, model.config.max_positions // 2))
    new_tokens = min(GREEDY_TOKENS, model.config.max_positions - max(map(len, lines)))
    logits, greedy = _transformers(folder, lines, new_tokens)
    ours = _logits(model, [[line] for line in lines])
    packed = _logits(model, [lines])
    difference, packed_difference = (
        float(np.max([np.abs(a - b).max() for a, b in zip(found, logits, strict=True)])) for found in (ours, packed)
    )
    largest = float(np.max([np.abs(line).max() for line in logits]))
    continued = generate(model, lines, maximum_new_tokens=new_tokens, compute_dtype=np.float32)
    first = _first_difference(continued, greedy)
    # NumPy's maximum keeps what is no number, and that is not <= TOLERANCE
    relative = float(np.max([difference, packed_difference])) / max(largest, 1e-30)
    return ParityReport(
        lines=len(lines),
        tokens=sum(map(len, lines)),
        largest_logit=largest,
        difference=difference,
        packed_difference=packed_difference,
        relative_difference=relative,
        greedy_tokens=sum(map(len, greedy)),
        first_difference=first,
        passed=relative <= TOLERANCE and first is None,
    )


def show(report: ParityReport) -> None:
    """Prints the report."""
    first = report.first_difference
    greedy = f"{report.greedy_tokens} of {report.greedy_tokens} the same"
    if first is not None:
        greedy = "line {line}, token {position}: {ours} here, {theirs} in transformers".format(**first)
    rows = {
        "lines, tokens": f"{report.lines}, {report.tokens}",
        "largest logit": f"{report.largest_logit:.4g}",
        "largest difference, lines alone": f"{report.difference:.3g}",
        "largest difference, packed": f"{report.packed_difference:.3g}",
        "relative": f"{report.relative_difference:.3g} (at most {TOLERANCE:g})",
        "greedy tokens": greedy,
        "agrees": "yes" if report.passed else "NO",
    }
    print_table("Parity with transformers, float32", [{"": name, "value": value} for name, value in rows.items()])


def _lines(tokenizer: Tokenizer, longest: int) -> list[list[int]]:
    """A few lines of different lengths, as a text begins."""
    lines = []
    for number, code in enumerate(LANGUAGES):
        text = next(record["text"] for record in read_jsonl(sample_path("corpus") / f"{code}.jsonl"))
        ids = tokenizer.encode(text.split("\n")[0], bos=tokenizer.bos_id is not None)
        lines.append(ids[: max(longest - 3 * number, 2)])
    return lines


def _logits(model: Decoder, rows: Sequence[Sequence[list[int]]]) -> list[np.ndarray]:
    """Logits [tokens, vocabulary] of each document of each row."""
    import jax
    from flax import nnx

    T = max(sum(map(len, row)) for row in rows)
    tokens, positions, segments = np.zeros((3, len(rows), T), np.int32)
    places = []
    for index, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row, start=1):
            stop = start + len(document)
            tokens[index, start:stop], positions[index, start:stop] = document, np.arange(len(document))
            segments[index, start:stop] = number
            places.append((index, slice(start, stop)))
            start = stop
    graph, parameters = nnx.split(model)

    @jax.jit
    def forward(parameters, tokens, positions, segments):
        decoder = nnx.merge(graph, parameters)
        return decoder.logits(decoder(tokens, positions, segments, compute_dtype=np.float32))

    logits = np.asarray(forward(parameters, tokens, positions, segments))[..., : model.config.vocabulary_size]
    return [logits[place] for place in places]


def _transformers(
    folder: pathlib.Path, lines: list[list[int]], new_tokens: int
) -> tuple[list[np.ndarray], list[list[int]]]:
    """Logits and greedy continuations of each line, one at a time."""
    with tempfile.TemporaryDirectory() as directory:
        answer = pathlib.Path(directory) / "answer.npz"
        request = {"folder": str(folder), "lines": lines, "new_tokens": new_tokens, "answer": str(answer)}
        done = subprocess.run(
            [sys.executable, "-m", "seallm_jax.cli.parity_child"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not answer.exists():
            message = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise SeallmError(f"transformers cannot run {folder}: {message[:300]}")
        with np.load(answer) as found:
            logits = [found[f"logits{number}"] for number in range(len(lines))]
            greedy = [found[f"greedy{number}"].tolist() for number in range(len(lines))]
    return logits, greedy


def _first_difference(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> dict[str, int] | None:
    for line, (a, b) in enumerate(zip(ours, theirs, strict=True), start=1):
        for position, (one, other) in enumerate(zip(a, b, strict=True), start=1):
            if one != other:
                return {"line": line, "position": position, "ours": one, "theirs": other}
    return None
