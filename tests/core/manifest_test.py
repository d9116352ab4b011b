"""A manifest's digest follows what determines the stage, and nothing else."""

from seallm_jax.core.manifest import Manifest


def test_round_trip_and_digest(tmp_path):
    manifest = Manifest("corpus", {"path": "d1"}, {"ngram": 5}, seed=0, outcome={"documents": 3}, seconds=1.5)
    manifest.write(tmp_path)
    again = Manifest.read(tmp_path)
    assert again == manifest and again.digest == manifest.digest
    slower = Manifest("corpus", {"path": "d1"}, {"ngram": 5}, seed=0, outcome={"documents": 4}, seconds=9.0)
    assert slower.digest == manifest.digest
    other = Manifest("corpus", {"path": "d2"}, {"ngram": 5}, seed=0, outcome={})
    assert other.digest != manifest.digest
    assert Manifest.read(tmp_path / "nowhere") is None
