"""Disjoint sets, against SciPy's connected components."""

import numpy as np
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.corpus.disjoint_sets import DisjointSets


@settings(deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(
    st.just(n), st.lists(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=20), max_size=4)
)))  # fmt: skip
def test_sets_are_the_connected_components(case):
    size, batches = case
    sets = DisjointSets(size)
    for batch in batches:
        links = np.array(batch, np.int64).reshape(-1, 2)
        sets.link(links[:, 0], links[:, 1])
    links = np.array([link for batch in batches for link in batch], np.int64).reshape(-1, 2)
    graph = scipy.sparse.coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    smallest = np.array([np.flatnonzero(labels == label)[0] for label in labels])
    assert np.array_equal(sets.roots(np.arange(size)), smallest)
