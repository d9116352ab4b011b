"""Names on the Hub and folders, without a network."""

import pathlib

import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError

from seallm_jax.core.errors import SeallmError
from seallm_jax.interop.hub import model_folder
from seallm_jax.interop.import_model import import_model
from tests.interop.small_models import huggingface_config, write_folder


def test_a_folder_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert model_folder(tmp_path) == tmp_path
    assert model_folder("owner/name") == pathlib.Path("owner/name")
    assert model_folder(tmp_path / "nowhere") == tmp_path / "nowhere"  # the caller says what it lacks


@pytest.mark.parametrize(
    ("source", "revision"),
    [("owner/Model-1.5", None), ("owner/Model-1.5@main", "main"), ("o/m@refs/pr/3", "refs/pr/3")],
)
def test_a_name_is_downloaded(tmp_path, monkeypatch, source, revision):
    write_folder(tmp_path, huggingface_config("qwen2"))
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert import_model(source).tokenizer_path == tmp_path
    assert asked["name"] == source.partition("@")[0] and asked["revision"] == revision
    patterns = asked["allow_patterns"]
    for name in (
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "generation_config.json",
        "tokenizer.model",
        "qwen.tiktoken",
        "chat_template.jinja",
    ):
        assert any(pathlib.PurePath(name).match(pattern) for pattern in patterns), name
    assert not any(pathlib.PurePath("pytorch_model.bin").match(pattern) for pattern in patterns)


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ValueError(), HFValidationError("bad")])
def test_a_download_that_fails_is_one_line(monkeypatch, error):
    def download(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(SeallmError, match=r"cannot download owner/name .*: .*; check the name.*local folder") as found:
        import_model("owner/name")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("source", ["llama", "./owner/name", "/owner/name", "a/b/c", "owner/na me", ""])
def test_what_is_neither_is_not_asked_for(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(SeallmError, match=r"does not exist|no config\.json"):
        import_model(source)
