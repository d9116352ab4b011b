"""The files beside `tokenizer.model` that make `transformers.AutoTokenizer` give the same ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from seallm_jax.tokenization.model_file import CONTROL, NORMAL, SPACE, UNKNOWN, USER_DEFINED

if TYPE_CHECKING:
    from seallm_jax.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer


def huggingface_files(tokenizer: SentencePieceTokenizer) -> dict[str, str]:
    """File name -> contents of tokenizer.json, tokenizer_config.json and chat_template.jinja.

    The class is `PreTrainedTokenizerFast`, which takes tokenizer.json as it is in transformers 4 and 5 alike.
    (`LlamaTokenizer` of transformers 5 rebuilds the pipeline and loses a leading space of a model with a prefix.)
    As users know it from Llama, `tokenizer(text)` puts BOS in front and no EOS at the end.
    """
    return {
        "tokenizer.json": _fast_tokenizer(tokenizer).to_str(pretty=True),
        "tokenizer_config.json": json.dumps(_config(tokenizer), ensure_ascii=False, indent=2) + "\n",
        "chat_template.jinja": tokenizer.chat_template,
    }


def merge_list(proto: Any) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model, first to be applied first.

    SentencePiece joins two neighbours when the result is a piece, the highest score first; `tokenizers` needs each pair
    by name: every way to split a piece into two pieces, in the order of the score, then of the id. Of one piece's
    splits the longest left part comes first (as transformers' converter does); SentencePiece takes the leftmost.
    """
    pieces = {piece.piece: index for index, piece in enumerate(proto.pieces) if piece.type == NORMAL}
    merges = []
    for text, _ in sorted(pieces.items(), key=lambda item: (-proto.pieces[item[1]].score, item[1])):
        for cut in range(len(text) - 1, 0, -1):
            if text[:cut] in pieces and text[cut:] in pieces:
                merges.append((text[:cut], text[cut:]))
    return merges


def _fast_tokenizer(tokenizer: SentencePieceTokenizer) -> Any:
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

    proto = tokenizer.copy_proto()
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    unknown = proto.pieces[tokenizer.unk_id].piece
    fast = tokenizers.Tokenizer(
        models.BPE(vocabulary, merge_list(proto), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    fast.normalizer = normalizers.Replace(" ", SPACE)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if tokenizer.adds_prefix:
        # One prefix at the very beginning, none after a special token. A single Metaspace would leave it out before a
        # text that begins with a space; after `Replace` there is no space left, so the first one always adds its own.
        fast.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=False),
                pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False),
            ]
        )
        steps.append(decoders.Strip(" ", 1, 0))
    fast.decoder = decoders.Sequence(steps)
    fast.add_tokens(
        [
            tokenizers.AddedToken(piece.piece, normalized=False, special=piece.type != USER_DEFINED)
            for piece in proto.pieces
            if piece.type in (CONTROL, UNKNOWN, USER_DEFINED)
        ]
    )
    bos = tokenizer.piece(tokenizer.bos_id)
    fast.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.bos_id)]
    )
    return fast


def _config(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    variables = tokenizer.template_variables
    others = [token for token in tokenizer.special_tokens if token not in variables.values()]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **variables,
        "additional_special_tokens": others,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": tokenizer.adds_prefix,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "chat_template": tokenizer.chat_template,
    }
    if tokenizer.model_max_length is not None:
        config["model_max_length"] = tokenizer.model_max_length
    return config
