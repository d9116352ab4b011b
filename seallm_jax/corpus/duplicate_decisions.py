"""The last phase of removing duplicates: reading the documents again and leaving out those that go."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator

from seallm_jax.core.errors import SeallmError
from seallm_jax.corpus.document import Document, Rejected
from seallm_jax.corpus.duplicate_clusters import REASONS


def drop_duplicates(documents: Iterable[Document], decisions: pathlib.Path) -> Iterator[Document | Rejected]:
    """Yields every document of a unit, or its rejection as exact duplicate, same address or near duplicate.

    Args:
      documents: those that `DuplicateSignatures` took, in the same order.
      decisions: the unit's file in the output of `cluster_duplicates`.

    Raises:
      SeallmError: there are more or fewer documents than signatures.
    """
    try:
        codes = decisions.read_bytes()
    except OSError as error:
        raise SeallmError(f"cannot read {decisions}: {error.strerror or error}; run the corpus stage again") from error
    number = 0
    for number, document in enumerate(documents, start=1):
        if number > len(codes):
            break
        reason = REASONS[codes[number - 1]]
        if reason:
            yield document.rejected(reason)
        else:
            yield document
    if number != len(codes):
        raise SeallmError(f"{decisions}: {len(codes)} decisions for {number} documents or more; the input has changed")
