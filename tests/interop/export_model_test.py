"""What an export carries over, leaves out, and leaves behind when it fails."""

import errno
import json
import pathlib
import resource
import signal

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.interop import export_model as module
from seallm_jax.interop import tensor_block
from seallm_jax.interop.export_model import export_model
from seallm_jax.interop.import_model import import_model
from tests.interop.small_models import FAMILIES, all_tensors, huggingface_config, model_shape, same_bytes, write_folder


def write_tokenizer(folder, size=300, **settings):
    """The two files that an export asks for, of no real tokenizer."""
    folder.mkdir(exist_ok=True)
    vocabulary = {f"piece{index}": index for index in range(size)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    settings = {"bos_token": "piece1", "eos_token": "piece2"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / "tokenizer")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_import_and_export_give_the_same_bytes(tmp_path, tokenizer, model_type):
    tensors = write_folder(tmp_path / "first", huggingface_config(model_type))
    for number, imported in enumerate(
        (
            import_model(tmp_path / "first", param_dtype=jnp.bfloat16),
            import_model(tmp_path / "first", mesh=build_mesh(MeshConfig(data=1, fsdp=4, tensor=2))),
        )
    ):
        output = tmp_path / f"export{number}"
        export_model(
            imported.parameters, imported.config, tokenizer, output, base_directory=tmp_path / "first", shard_bytes=9999
        )
        assert same_bytes(all_tensors(output), tensors)
        written = json.loads((output / "config.json").read_text())
        assert model_shape(written) == model_shape(json.loads((tmp_path / "first" / "config.json").read_text()))


@pytest.mark.parametrize("tied", [False, True])
def test_an_extended_vocabulary(tmp_path, tokenizer, tied):
    """Rows that were added come out, rows that pad do not, whatever they hold."""
    import dataclasses

    tensors = write_folder(tmp_path / "base", huggingface_config("llama", tie_word_embeddings=tied))
    imported = import_model(tmp_path / "base", param_dtype=jnp.bfloat16)
    config = dataclasses.replace(imported.config, vocabulary_size=350, padded_vocabulary_size=384)
    parameters = jax.tree.map(
        lambda leaf: jnp.concatenate([leaf[:333], jnp.full((51, 32), 7, leaf.dtype)]) if len(leaf) == 384 else leaf,
        imported.parameters,
    )
    export_model(parameters, config, tokenizer, tmp_path / "out", dtype="bfloat16")
    written = all_tensors(tmp_path / "out")
    assert written.keys() == tensors.keys()
    for name in ("model.embed_tokens.weight", *(() if tied else ("lm_head.weight",))):
        assert written[name].shape == (350, 32) and (written[name][333:] == 7).all()
        assert written[name][:333].tobytes() == tensors[name].tobytes()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 350


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_blocks_of_rows(tmp_path, tokenizer, monkeypatch, rows):
    tensors = write_folder(tmp_path / "first", huggingface_config("olmo2"))
    imported = import_model(tmp_path / "first", mesh=build_mesh(MeshConfig(data=1, fsdp=2, tensor=4)))
    monkeypatch.setattr(tensor_block, "BLOCK_BYTES", rows * 32 * 2)
    export_model(imported.parameters, imported.config, tokenizer, tmp_path / "out", dtype="bfloat16")
    assert same_bytes(all_tensors(tmp_path / "out"), tensors)


def test_what_the_base_carried(tmp_path, tokenizer):
    ids = {"bos_token_id": 4, "eos_token_id": [2, 9], "pad_token_id": 0}
    write_folder(tmp_path / "base", huggingface_config("llama") | ids | {"dtype": "bfloat16"})
    generation = {"do_sample": True, "temperature": 0.6, "eos_token_id": [2, 9, 11], "bos_token_id": 4}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(generation))
    (tokenizer / "chat_template.jinja").write_text("{{ messages }}")
    (tokenizer / "vocab.json").write_text("{}")
    (tokenizer / "additional_chat_templates").mkdir()
    (tokenizer / "additional_chat_templates" / "tool.jinja").write_text("{{ tools }}")
    imported = import_model(tmp_path / "base")
    summary = export_model(
        imported.parameters, imported.config, tokenizer, tmp_path / "out", base_directory=tmp_path / "base"
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: config[key] for key in ids} == ids
    assert config["dtype"] == config["torch_dtype"] == summary.dtype == "bfloat16"
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == generation
    for name in ("chat_template.jinja", "vocab.json", "additional_chat_templates/tool.jinja", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_text() == (tokenizer / name).read_text()


def test_ends_of_turns_join_the_stops_of_the_base(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer", eos_token="piece5", pad_token="piece3")
    write_folder(tmp_path / "base", huggingface_config("llama", eos_token_id=7, bos_token_id=1))
    (tmp_path / "base" / "generation_config.json").write_text('{"top_p": 0.9, "eos_token_id": 7, "pad_token_id": null}')
    imported = import_model(tmp_path / "base")
    export_model(imported.parameters, imported.config, tokenizer, tmp_path / "out", base_directory=tmp_path / "base")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written == {"top_p": 0.9, "eos_token_id": [7, 5], "pad_token_id": 3, "bos_token_id": 1}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_and_an_interruption_leave_what_was_there(tmp_path, tokenizer, monkeypatch, failure):
    write_folder(tmp_path / "base", huggingface_config("qwen3"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").write_text("export")
    imported = import_model(tmp_path / "base")
    before = {child.name for child in tmp_path.iterdir()}
    write = pathlib.Path.write_text

    def fail(self, *arguments, **options):
        if self.name == "README.md":  # the tensors are there, the folder is not whole
            assert next(self.parent.glob("*.safetensors")).stat().st_size > 1000
            raise failure
        return write(self, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "write_text", fail)
    expected = SeallmError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is SeallmError else None):
        export_model(imported.parameters, imported.config, tokenizer, tmp_path / "out")
    assert {child.name for child in tmp_path.iterdir()} == before
    assert [child.name for child in (tmp_path / "out").iterdir()] == ["earlier"]


def test_a_disk_that_fills_up_among_the_tensors(tmp_path, tokenizer, monkeypatch):
    write_folder(tmp_path / "base", huggingface_config("qwen3"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier").write_text("export")
    imported = import_model(tmp_path / "base")
    before = {child.name for child in tmp_path.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that is too large is then an error of the write
    size = sum(file.stat().st_size for file in (tmp_path / "base").glob("*.safetensors"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limit[1]))
    try:
        with pytest.raises(SeallmError, match="cannot write .*out: File too large; what was there before is untouched"):
            export_model(imported.parameters, imported.config, tokenizer, tmp_path / "out", dtype="bfloat16")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {child.name for child in tmp_path.iterdir()} == before
    assert [child.name for child in (tmp_path / "out").iterdir()] == ["earlier"]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, tokenizer, monkeypatch):
    write_folder(tmp_path / "base", huggingface_config("qwen3"))
    imported = import_model(tmp_path / "base")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(SeallmError, match=r"it takes .* MB and the disk has 0\.0 MB left"):
        export_model(imported.parameters, imported.config, tokenizer, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_parameters_of_another_model(tmp_path, tokenizer):
    write_folder(tmp_path / "base", huggingface_config("llama"))
    imported = import_model(tmp_path / "base")
    tied = model_shape(huggingface_config("llama", tie_word_embeddings=True))
    with pytest.raises(SeallmError, match=r"have a head\.kernel; model\.tie_embeddings"):
        export_model(imported.parameters, tied, tokenizer, tmp_path / "out")
    parameters = nnx.State({key: value for key, value in imported.parameters.items() if key != "head"})
    with pytest.raises(SeallmError, match=r"have no head\.kernel; model\.tie_embeddings"):
        export_model(parameters, imported.config, tokenizer, tmp_path / "out")
