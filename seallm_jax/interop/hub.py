"""A model's folder: on this machine, or downloaded from the Hugging Face Hub."""

from __future__ import annotations

import pathlib
import re

from seallm_jax.core.errors import SeallmError

# weights without pickles, config, generation config, tokenizers of every kind, chat templates
PATTERNS = ("*.safetensors", "*.json", "*.model", "*.tiktoken", "*.jinja", "merges.txt", "vocab.txt")
# the same weights once more, as Llama and Mistral publish them
IGNORED = ("original/*", "consolidated*")
NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?(@[\w./-]+)?", re.ASCII)


def model_folder(source: str | pathlib.Path) -> pathlib.Path:
    """The folder of a model.

    Args:
      source: a folder, or a name on the Hub: owner/name, or owner/name@revision. What is there already is not loaded
        again. A private model needs the token that `hf auth login` keeps.

    Raises:
      SeallmError: neither a folder nor a name, or a download that failed.
    """
    folder = pathlib.Path(source).expanduser()
    if folder.exists() or isinstance(source, pathlib.Path):
        return folder
    if not NAME.fullmatch(source) or "/" not in source:
        raise SeallmError(f"{source} does not exist; give a folder, or a name on the Hugging Face Hub as owner/name")
    name, _, revision = source.partition("@")
    from huggingface_hub import snapshot_download

    try:
        return pathlib.Path(
            snapshot_download(
                name, revision=revision or None, allow_patterns=list(PATTERNS), ignore_patterns=list(IGNORED)
            )
        )
    except Exception as error:  # of requests, httpx, the Hub and the file system, without a common ancestor
        raise SeallmError(
            f"cannot download {source} from the Hugging Face Hub: {_first_line(error)}; check the name and the "
            "network, log in with `hf auth login` if the model is gated, or give a local folder"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
