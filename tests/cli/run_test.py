"""`seallm run` from raw text to a Hugging Face folder, on the embedded sample."""

import json
import shutil

import jax
import numpy as np
import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import RUN_STAGE_DIRECTORIES, RunDirectory
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.huggingface import import_model
from tests.cli.conftest import arguments

STAGES = tuple(RUN_STAGE_DIRECTORIES)


def outcome(workdir, stage):
    manifest = Manifest.read(RunDirectory(workdir).stage(stage))
    assert manifest is not None, f"{stage} has not finished"
    return manifest.outcome


def test_every_stage_finished_and_says_so(finished_run):
    result = json.loads((finished_run.parent / "work.json").read_text())
    assert sorted(result) == sorted(STAGES)
    for stage in STAGES:
        manifest = Manifest.read(RunDirectory(finished_run).stage(stage))
        assert manifest is not None and manifest.versions["jax"] == jax.__version__


def test_bits_per_byte_fall_on_held_out_text(finished_run):
    bits = outcome(finished_run, "evaluate")["bits_per_byte"]
    base, last = bits["base"], bits["preference"]
    change = {code: last[code]["bits_per_byte"] / base[code]["bits_per_byte"] - 1 for code in base}
    assert set(change) == {"en", "id", "ms", "vi", "th", "tl", "km", "lo", "my", "jv"}
    for code in ("km", "lo", "th", "my"):
        assert change[code] < -0.5, change
    for code in ("id", "vi", "jv", "ms", "tl"):
        assert change[code] < -0.05, change
    # training gains on top of what the new vocabulary alone gives
    for code in ("km", "lo", "th", "my", "id", "vi"):
        assert bits["pretrain"][code]["bits_per_byte"] < bits["vocab"][code]["bits_per_byte"]
    assert base["en"]["bytes"] == last["en"]["bytes"]


def test_the_low_resource_share_rises(finished_run):
    table = outcome(finished_run, "mixture")["tables"]["pretrain"]
    low = {"text/km", "text/lo", "text/my", "text/jv"}
    shares = {}
    for record in table:
        if record["source"] in low:
            shares[record["stage"]] = shares.get(record["stage"], 0) + record["share"]
    assert list(shares) == ["foundation", "balance", "low-resource"]
    assert shares["foundation"] < shares["balance"] < shares["low-resource"]


def test_exported_model_is_ours_in_transformers(finished_run):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = finished_run / "export"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = import_model(folder)
    assert model.config.vocab_size == ours.config.vocabulary_size == len(tokenizer)
    assert ours.config.padded_vocabulary_size > ours.config.vocabulary_size  # padded rows stay at home
    text = "ตลาดเช้า pasar pagi ຕະຫຼາດ ផ្សារ chợ sáng market"
    ids = np.array([tokenizer(text)["input_ids"]], np.int32)
    with torch.no_grad():
        theirs = model(torch.tensor(ids.astype(np.int64))).logits.numpy()
    positions = np.arange(ids.shape[1], dtype=np.int32)[None]
    decoder = ours.decoder()
    hidden = decoder(ids, positions, np.ones_like(ids), compute_dtype=np.float32)
    logits = np.asarray(decoder.logits(hidden))[..., : ours.config.vocabulary_size]
    assert np.abs(logits - theirs).max() <= 1e-4 * np.abs(theirs).max()
    assert model.generation_config.eos_token_id == sorted(
        {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    )
    for name in ("README.md", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (folder / name).exists()


def test_exported_parameters_are_the_trained_ones(finished_run):
    from seallm_jax.core.mesh import build_mesh
    from seallm_jax.core.schema import MeshConfig
    from seallm_jax.models.layout import abstract_decoder
    from seallm_jax.training.checkpoint import restore_parameters

    exported = import_model(finished_run / "export")
    shape = ModelConfig(**outcome(finished_run, "preference")["model"])
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    _, abstract = abstract_decoder(shape)
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated), abstract)
    trained = restore_parameters(finished_run / "preference" / "checkpoints", abstract, shape)
    size = shape.vocabulary_size
    for ours, theirs in zip(jax.tree.leaves(trained), jax.tree.leaves(exported.parameters), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape[0] != theirs.shape[0] or ours.shape[0] == shape.padded_vocabulary_size:
            ours, theirs = ours[:size], theirs[:size]
        np.testing.assert_array_equal(ours, theirs)


def test_the_report_is_one_page(finished_run):
    page = (finished_run / "report" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    for word in ("Bits per byte", "Khmer", "foundation", "Multiple choice"):
        assert word in page


def test_a_second_run_does_nothing(finished_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("manifest.json")}
    assert main(arguments("run", finished_run)) == 0
    assert capsys.readouterr().err.count("up to date") == len(STAGES)
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("manifest.json")} == before


def test_a_change_runs_what_depends_on_it_and_keeps_the_old_result(finished_run, tmp_path, capsys):
    copy = tmp_path / "work"
    shutil.copytree(finished_run, copy)
    assert main(arguments("generate", copy, "--config.generation.maximum_new_tokens=4")) == 0
    log = capsys.readouterr().err
    assert "the earlier result is now" in log.replace("\n", " ")
    assert len(list(copy.glob("generation.old-*"))) == 1


def test_inspect_shows_what_is_learned(finished_run, capsys, tmp_path):
    result = tmp_path / "rows.json"
    assert main(arguments("inspect", finished_run, "--source=instructions/th", f"--json={result}")) == 0
    assert "<|im_start|>" in capsys.readouterr().out
    segment = json.loads(result.read_text())["segments"][0]
    text = "".join(piece for piece, learned in zip(segment["tokens"][1:], segment["learned"], strict=True) if learned)
    assert text.count("<|im_end|>") >= 1 and "<|im_start|>" not in text and "user" not in text


def test_generate_and_evaluate_read_the_exported_folder(finished_run, tmp_path, capsys):
    output = tmp_path / "texts.jsonl"
    export = f"--model={finished_run / 'export'}"
    sampling = ["--maximum_new_tokens=4", "--temperature=0"]
    assert main(["generate", export, "--prompt=Pasar", "--prompt=ตลาด", *sampling, f"--output={output}"]) == 0
    assert [json.loads(line)["prompt"] for line in output.read_text().splitlines()] == ["Pasar", "ตลาด"]
    items = tmp_path / "quiz_id.jsonl"
    items.write_text(json.dumps({"question": "Ibu kota Indonesia?", "choices": ["Jakarta", "Hanoi"], "answer": 0}))
    result = tmp_path / "result.json"
    assert main(["evaluate", export, "--tasks", str(items), "--sequence_length=256", f"--json={result}"]) == 0
    assert json.loads(result.read_text())["choices"]["export"][0]["items"] == 1
    capsys.readouterr()


def test_a_hugging_face_folder_can_be_the_base(finished_run, tmp_path):
    workdir = tmp_path / "work"
    base = f"--config.base.path={finished_run / 'export'}"
    more = ["--config.vocab.size=64", "--config.vocab.minimum_frequency=2", "--stages=corpus,base,vocab"]
    assert main(arguments("run", workdir, base, *more)) == 0
    imported, extended = outcome(workdir, "base"), outcome(workdir, "vocab")
    assert imported["model"]["vocabulary_size"] == outcome(finished_run, "vocab")["model"]["vocabulary_size"]
    assert extended["base_size"] == imported["model"]["vocabulary_size"]
    assert extended["model"]["vocabulary_size"] == extended["base_size"] + extended["new_tokens"]
    assert extended["model"]["hidden_size"] == 64 and (workdir / "tokenizer" / "checkpoints").exists()
