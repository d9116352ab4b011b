"""`seallm neurons` on the small run: the file fits the model and is what training reads."""

from __future__ import annotations

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest

from seallm_jax.cli.context import Context
from seallm_jax.cli.main import main
from seallm_jax.cli.neurons import _batches, _draw, _last_finished, _next_step
from seallm_jax.core.config import load_config
from seallm_jax.core.languages import Languages
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import RunDirectory
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import EvaluationConfig, PackingConfig, RunConfig
from seallm_jax.data.row import PackedRow, Piece
from seallm_jax.data.shards import ShardReader, ShardWriter, open_shards
from seallm_jax.models.neurons import Neurons
from tests.cli.conftest import CONFIGS, arguments

# fewer rows than devices, and no whole number of batches
MORE = ("--languages", "th", "lo", "--share=0.1", "--rows=5", "--kinds", "mlp", "--config.evaluation.batch_rows=4")


@pytest.fixture(scope="module")
def found(finished_run, tmp_path_factory):
    """(standard output, what --json wrote, path of the file of neurons)."""
    import contextlib
    import io

    directory = tmp_path_factory.mktemp("neurons")
    path, result, shown = directory / "some" / "neurons.json", directory / "result.json", io.StringIO()
    with contextlib.redirect_stdout(shown):
        line = arguments("neurons", finished_run, *MORE, "--stage=vocab", f"--output={path}", f"--json={result}")
        assert main(line) == 0
    return shown.getvalue(), json.loads(result.read_text()), path


def test_the_file_holds_neurons_of_the_model_and_how_they_were_found(finished_run, found):
    _, result, path = found
    (layers,) = Neurons.read(path).chosen.values()
    assert len(layers) == 2 and all(0 <= n < 128 for layer in layers for n in layer)
    (row,) = result["kinds"]
    count = sum(map(len, layers))
    assert row["neurons"] == 256 and row["chosen"] == count == row["lower layers"] + row["upper layers"]
    assert 0 < count <= 2 * 26  # the most important tenth of two languages, less that of English
    about = json.loads(path.read_text())
    assert about["languages"] == ["th", "lo"] and about["without"] == ["en"]
    assert set(about["rows"]) == {"th", "lo", "en"} and max(about["rows"].values()) <= 5
    assert about["stage"] == "vocab" and about["model"] == Manifest.read(finished_run / "tokenizer").digest


def test_it_shows_the_next_step(found):
    shown, _, path = found
    assert "mlp" in shown and f"--stage=pretrain --config.pretrain.optimizer.neurons={path}" in shown


def test_the_last_finished_stage_is_the_default(finished_run, tmp_path):
    config = load_config(CONFIGS / "smoke.py", [])
    context = Context(config, RunDirectory(finished_run), Progress.silent(), "")
    assert _last_finished(context) == "preference"
    assert _next_step(context, "preference", "n.json").endswith("in a run that starts from this model")
    shutil.copytree(finished_run / "pretrain", tmp_path / "pretrain", ignore=shutil.ignore_patterns("checkpoints"))
    assert _last_finished(dataclasses.replace(context, directory=RunDirectory(tmp_path))) == "pretrain"


def test_rows_are_drawn_from_all_text_of_a_language_by_the_seed(finished_run):
    readers = [reader for reader in open_shards(finished_run / "tokens") if reader.index.kind == "text"]

    def names(count, seed):
        return [(reader.index.name, row) for reader, row in _draw(readers, "th", count, seed)]

    everything = names(10**6, 0)
    (reader,) = (reader for reader in readers if reader.index.language == "th")
    assert sorted(everything) == [("text/th", row) for row in range(len(reader))]
    assert names(3, 0) == everything[:3] == names(3, 0) != names(3, 1)


def test_only_text_in_the_language_has_weight(tmp_path):
    """Rows of a group of languages: those without it are not drawn, and of the others its documents count."""
    with ShardWriter(tmp_path) as writer:
        for row in range(6):
            ids = np.arange(5, dtype=np.int32)
            writer.write(PackedRow.of([Piece(ids, language=0), Piece(ids[: 2 + row % 2], language=row % 2)]))
        about = {"tokenizer_digest": "t", "inputs_digest": "i", "documents": 12}
        writer.finish(kind="text", language="group", languages=("en", "lo"), sequence_length=16, **about)
    context = types.SimpleNamespace(
        config=RunConfig(packing=PackingConfig(sequence_length=16), evaluation=EvaluationConfig(batch_rows=2)),
        languages=Languages(("th", "lo", "en")),
    )
    drawn = _draw([ShardReader(tmp_path)], "lo", 9, seed=0)
    assert sorted(row for _, row in drawn) == [1, 3, 5]
    first, last = _batches(context, "lo", drawn)
    np.testing.assert_array_equal(first.loss_weights, [[0] * 4 + [1] * 2 + [0] * 10] * 2)
    np.testing.assert_array_equal(last.loss_weights, [first.loss_weights[0], [0] * 16])
    assert (last.segment_ids[1] == 0).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--languages", "xx"], "no packed text in 'xx'; there is text in "),
        (["--languages", "th", "en"], "en is among the languages and among those left out"),
        (["--languages", "th", "--share=2"], "the share of neurons is 2"),
        (["--languages", "th", "--rows=0"], "--rows is 0"),
        (["--languages", "th", "--kinds", "mpl"], "no neurons of kind 'mpl'; there are mlp, attention.query"),
        (["--languages", "th", "--stage=base"], "invalid choice: 'base'"),
    ],
)
def test_mistakes_are_one_line(finished_run, tmp_path, more, message, capsys):
    path = tmp_path / "neurons.json"
    assert main(arguments("neurons", finished_run, *more, f"--output={path}")) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not path.exists()
