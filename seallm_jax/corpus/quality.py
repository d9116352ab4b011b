"""A quality score for documents: hashed character n-grams and a logistic regression."""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_file
from seallm_jax.corpus.rolling_hash import ngram_hashes, text_codes

SAMPLE_CHARACTERS = 3000  # judged of a longer document: its beginning
ORDERS = (4,)  # characters an n-gram
BUCKET_BITS = 18
MAXIMUM_EXAMPLES = 20_000  # of each kind; of more, the first ones by hash
MINIMUM_EXAMPLES = 20
CALIBRATION_SHARE = 0.2
_SCALE = 100.0  # of the mean weight of an n-gram, so that a weight of 0.1 is large
_REGULARISATION = 3e-3
_FORMAT = "seallm quality 1"


class QualityClassifier:
    """How much a document resembles good text rather than bad text, as a calibrated probability.

    The log-odds are a linear function of the mean weight of a text's character n-grams, so that they do not grow with
    its length; characters, so that scripts without spaces need no segmentation. The weights are fitted by L-BFGS on
    four fifths of the examples; slope and offset that make the score a probability (Platt 1999) on the last fifth, both
    kinds counted as equally likely.

    Attributes:
      weights: float32 [2 ** BUCKET_BITS], one a hash bucket.
      offset: log-odds of a text without n-grams.
      information: numbers of examples and the area under the ROC curve on the fifth that was not fitted.
    """

    def __init__(self, weights: np.ndarray, offset: float, information: dict[str, Any] | None = None):
        self.weights = weights
        self.offset = offset
        self.information = information or {}

    @classmethod
    def train(cls, good: Iterable[str], bad: Iterable[str], *, seed: int = 0) -> QualityClassifier:
        """Fits the classifier to examples of both kinds; the same examples in any order give the same one.

        Raises:
          SeallmError: fewer than `MINIMUM_EXAMPLES` different texts of one kind.
        """
        examples = []
        for kind, texts in (("good", good), ("bad", bad)):
            chosen = _choose(texts, seed)
            if len(chosen) < MINIMUM_EXAMPLES:
                raise SeallmError(f"a quality classifier needs {MINIMUM_EXAMPLES} {kind} texts, got {len(chosen)}")
            examples.append(chosen)
        calibration = [texts[: max(4, round(CALIBRATION_SHARE * len(texts)))] for texts in examples]
        fitted = [texts[len(held) :] for texts, held in zip(examples, calibration, strict=True)]
        weights, offset = _fit(fitted)
        raw = cls(weights, offset)
        logits = [np.array([raw._logit(text) for text in texts]) for texts in calibration]
        slope, shift = _platt(logits)
        information = {
            "good": len(examples[0]),
            "bad": len(examples[1]),
            "held_out_auc": area_under_curve(*logits),
        }
        return cls((slope * weights).astype(np.float32), float(slope * offset + shift), information)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> QualityClassifier:
        """Reads what `save` wrote. Raises SeallmError for a missing or damaged file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                weights = file["weights"].astype(np.float32)
        except FileNotFoundError:
            raise SeallmError(f"quality classifier {path} does not exist") from None
        except Exception as error:  # whatever a damaged zip archive makes of itself
            raise SeallmError(f"{path} is no quality classifier: {error}") from error
        if header.get("format") != _FORMAT or weights.shape != (1 << BUCKET_BITS,):
            raise SeallmError(f"{path} is a quality classifier of another version; train it again")
        return cls(weights, float(header["offset"]), header["information"])

    def save(self, path: str | pathlib.Path) -> None:
        """Writes weights and settings into the one file `path` (.npz), atomically."""
        header = {"format": _FORMAT, "offset": self.offset, "information": self.information}
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), weights=self.weights)

    def score(self, text: str) -> float:
        """Probability in [0, 1] that the text is good."""
        return float(_sigmoid(self._logit(text)))

    def _logit(self, text: str) -> float:
        buckets = _buckets(text)
        mean = float(self.weights[buckets].mean()) if len(buckets) else 0.0
        return _SCALE * mean + self.offset


def area_under_curve(good: np.ndarray, bad: np.ndarray) -> float:
    """Probability that a good text has a higher score than a bad one, ties counted half (Mann-Whitney)."""
    ordered = np.sort(bad)
    below = np.searchsorted(ordered, good, "left") + np.searchsorted(ordered, good, "right")
    return float(below.mean() / (2 * len(bad)))


def _buckets(text: str) -> np.ndarray:
    """Hash buckets of all n-grams of the text's beginning, with repetitions."""
    codes = text_codes(" ".join(text[:SAMPLE_CHARACTERS].lower().split()))
    shift = np.uint64(64 - BUCKET_BITS)
    return np.concatenate([ngram_hashes(codes, order) >> shift for order in ORDERS]).astype(np.intp)


def _choose(texts: Iterable[str], seed: int) -> list[str]:
    """Different texts, in the order of a hash, at most `MAXIMUM_EXAMPLES`."""
    kept: dict[bytes, str] = {}
    for text in texts:
        kept[hashlib.blake2b(f"{seed}\0{text}".encode(errors="surrogatepass"), digest_size=16).digest()] = text
        if len(kept) > 2 * MAXIMUM_EXAMPLES:
            kept = dict(itertools.islice(sorted(kept.items()), MAXIMUM_EXAMPLES))
    return [text for _, text in sorted(kept.items())][:MAXIMUM_EXAMPLES]


def _fit(examples: Sequence[Sequence[str]]) -> tuple[np.ndarray, float]:
    """Weights float64 [buckets] and offset of the regularised logistic regression; index 0 of `examples` is good."""
    import scipy.optimize
    import scipy.sparse

    rows, columns, values = [], [], []
    for row, text in enumerate(itertools.chain(*examples)):
        buckets, counts = np.unique(_buckets(text), return_counts=True)
        rows.append(np.full(len(buckets), row, np.int32))
        columns.append(buckets.astype(np.int32))
        values.append((_SCALE * counts / counts.sum()).astype(np.float32))
    used, places = np.unique(np.concatenate(columns), return_inverse=True)
    shape = (len(rows), len(used))
    features = scipy.sparse.csr_array((np.concatenate(values), (np.concatenate(rows), places)), shape=shape)
    sign = np.repeat([1.0, -1.0], [len(texts) for texts in examples])
    share = np.repeat([0.5 / len(texts) for texts in examples], [len(texts) for texts in examples])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offset = parameters[:-1], parameters[-1]
        margin = sign * (features @ weights + offset)
        slope = -share * sign * _sigmoid(-margin)
        gradient = np.append(features.T @ slope + _REGULARISATION * weights, slope.sum())
        return float(share @ np.logaddexp(0, -margin) + _REGULARISATION / 2 * weights @ weights), gradient

    start = np.zeros(len(used) + 1)
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    weights = np.zeros(1 << BUCKET_BITS)
    weights[used] = found.x[:-1]
    return weights, float(found.x[-1])


def _platt(logits: Sequence[np.ndarray]) -> tuple[float, float]:
    """Slope and shift that make logits of good and bad texts probabilities; smoothed targets, as Platt has them."""
    import scipy.optimize

    good, bad = logits
    values = np.concatenate(logits)
    targets = np.repeat([(len(good) + 1) / (len(good) + 2), 1 / (len(bad) + 2)], [len(good), len(bad)])
    share = np.repeat([0.5 / len(good), 0.5 / len(bad)], [len(good), len(bad)])

    def loss(parameters: np.ndarray) -> float:
        slope, shift = np.exp(parameters[0]), parameters[1]
        scaled = slope * values + shift
        return float(share @ (np.logaddexp(0, scaled) - targets * scaled))

    found = scipy.optimize.minimize(loss, np.zeros(2), method="BFGS")
    return float(np.exp(found.x[0])), float(found.x[1])


def _sigmoid(value):
    return 1 / (1 + np.exp(-np.clip(value, -500, 500)))
