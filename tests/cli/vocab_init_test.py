"""`seallm vocab init`: an extended checkpoint that transformers loads."""

import numpy as np
import pytest
import transformers

from seallm_jax.cli.main import main
from seallm_jax.core.sample import sample_path
from seallm_jax.tokenization.extension import Extension

torch = pytest.importorskip("torch")
CORPUS = sample_path("corpus")
SIZE, PADDING = 700, 20


def save_model(directory, rows):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(directory)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("init")
    model, extended = root / "model", root / "extended"
    save_model(model, SIZE + PADDING)  # rows beyond the tokenizer, as Qwen has them
    assert main(["vocab", "learn", "--corpus", str(CORPUS / "en.jsonl"), f"--size={SIZE}", f"--output={model}"]) == 0
    corpus = ["--corpus", str(CORPUS / "th.jsonl")]
    assert main(["vocab", "extend", f"--tokenizer={model}", *corpus, "--size=60", f"--output={extended}"]) == 0
    return model, extended


def matrices(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    weights = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    return [weight.detach().numpy() for weight in weights]


@pytest.mark.parametrize("output", ["same", "first"])
def test_new_rows_follow_the_old_ones(folders, tmp_path, output):
    model, extended = folders
    options = [f"--model={model}", f"--tokenizer={extended}", f"--output_initialization={output}"]
    assert main(["vocab", "init", *options, f"--output={tmp_path / 'out'}"]) == 0
    extension = Extension.load(extended)
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out")) == SIZE + 60
    for number, (old, new) in enumerate(zip(matrices(model), matrices(tmp_path / "out"), strict=True)):
        assert new.shape == (SIZE + 60, 16)  # new ids lie where the padding was
        np.testing.assert_array_equal(new[:SIZE], old[:SIZE])
        for row, ids in zip(new[SIZE:], extension.source_ids, strict=True):
            expected = old[ids[0]] if number == 1 and output == "first" else old[ids].mean(axis=0)
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_tokenizer_and_checkpoint_that_do_not_fit(folders, tmp_path, capsys):
    model, extended = folders
    other = tmp_path / "other"
    save_model(other, SIZE)
    assert main(["vocab", "learn", "--corpus", str(CORPUS / "id.jsonl"), f"--size={SIZE}", f"--output={other}"]) == 0
    arguments = ["vocab", "init", f"--output={tmp_path / 'out'}"]
    assert main([*arguments, f"--model={other}", f"--tokenizer={extended}"]) == 1
    assert f"{extended} extends another tokenizer than that of {other}" in capsys.readouterr().err
    assert main([*arguments, f"--model={model}", f"--tokenizer={model}"]) == 1
    assert "has no extension.json" in capsys.readouterr().err
    small = tmp_path / "small"
    save_model(small, SIZE - 10)
    Extension.load(extended)
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        (small / name).write_bytes((model / name).read_bytes())
    assert main([*arguments, f"--model={small}", f"--tokenizer={extended}"]) == 1
    assert not (tmp_path / "out").exists()
    assert "do not belong together" in capsys.readouterr().err


def test_a_method_that_reads_text_needs_some(folders, tmp_path, capsys):
    model, extended = folders
    options = [f"--model={model}", f"--tokenizer={extended}", "--initialization=weighted_mean"]
    assert main(["vocab", "init", *options, f"--output={tmp_path / 'out'}"]) == 1
    assert "needs text" in capsys.readouterr().err
    text = ["--corpus", str(CORPUS / "th.jsonl")]
    assert main(["vocab", "init", *options, *text, f"--output={tmp_path / 'out'}"]) == 0
