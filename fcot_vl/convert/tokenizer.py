"""Conversion of the original tokenizer to one fast tokenizer, token for token, without running the checkpoint's code.

Three forms are supported: `tokenizer.json`; `vocab.json` with `merges.txt` (Qwen2); and a SentencePiece
`tokenizer.model` (InternLM2, Llama, Phi-3). The original reads the last form with a slow tokenizer; its handling of
spaces and added tokens is preserved. The ids of added tokens are checked one by one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from fcot_vl.common.errors import CheckpointError
from fcot_vl.convert.checkpoint import read_json

IMAGE_TOKEN = "<IMG_CONTEXT>"
IMAGE_TOKENS = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": IMAGE_TOKEN}
CONTROL, USER_DEFINED = 3, 4  # piece types of SentencePiece
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def added_tokens(folder: Path) -> dict[int, AddedToken]:
    """Return the tokens added to the vocabulary, by id, from `tokenizer_config.json` and `added_tokens.json`."""
    found: dict[int, AddedToken] = {}
    if (folder / "added_tokens.json").exists():
        for content, token_id in read_json(folder / "added_tokens.json").items():
            found[int(token_id)] = _whole(content, True)
    for token_id, fields in _settings(folder).get("added_tokens_decoder", {}).items():
        found[int(token_id)] = AddedToken(
            fields["content"],
            single_word=fields.get("single_word", False),
            lstrip=fields.get("lstrip", False),
            rstrip=fields.get("rstrip", False),
            normalized=fields.get("normalized", False),
            special=fields.get("special", True),
        )
    return dict(sorted(found.items()))


def image_token_id(folder: Path, tokenizer: PreTrainedTokenizerFast | None) -> int | None:
    """Return the id of `<IMG_CONTEXT>`, or None if no file in the folder defines it."""
    if tokenizer is not None:
        known: int | None = tokenizer.get_vocab().get(IMAGE_TOKEN)
        return known
    return next((i for i, token in added_tokens(folder).items() if token.content == IMAGE_TOKEN), None)


def load_tokenizer(folder: Path, language_model: str) -> PreTrainedTokenizerFast | None:
    """Load the tokenizer of the folder, or return None if there is none.

    Raises:
        CheckpointError: If its files contradict each other or cannot be read.
    """
    settings, added = _settings(folder), added_tokens(folder)
    if (folder / "tokenizer.json").exists():
        try:
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{folder / 'tokenizer.json'}: cannot be read ({error})") from None
        add_bos = settings.get("add_bos_token")
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        backend = Qwen2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).backend_tokenizer
        backend = _without_added(backend)
        add_bos = settings.get("add_bos_token", False)
    elif (folder / "tokenizer.model").exists():
        per_segment = language_model == "internlm2" or settings.get("legacy", True)
        backend = _from_sentencepiece(folder / "tokenizer.model", added, per_segment)
        add_bos = settings.get("add_bos_token", True)
    else:
        return None
    _add(backend, added, folder)
    special = _special_tokens(folder, settings, language_model, backend)
    if add_bos is not None:
        _set_bos(backend, special.get("bos_token") if add_bos else None)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=int(min(settings.get("model_max_length", 8192), 1_000_000)),
        **special,
        **IMAGE_TOKENS,
    )


def adds_bos(tokenizer: PreTrainedTokenizerFast | None) -> bool:
    """Return whether the tokenizer prepends its BOS token to a prompt."""
    if tokenizer is None or tokenizer.bos_token_id is None:
        return False
    return tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def _from_sentencepiece(path: Path, added: dict[int, AddedToken], per_segment: bool) -> Tokenizer:
    """Build a BPE model with byte fallback that encodes like the slow tokenizers of InternLM2 and Llama.

    Args:
        path: Path of the SentencePiece model.
        added: Added tokens by id.
        per_segment: Whether to prepend a space to every stretch between added tokens ("legacy") instead of only the
            first.
    """
    try:
        extractor = SentencePieceExtractor(str(path))
        proto = extractor.proto
        found = extractor.extract(BPE)
    except Exception as error:  # protobuf raises its own exception types
        raise CheckpointError(f"{path}: not a SentencePiece model ({error})") from None
    if proto.trainer_spec.model_type != 2:
        raise CheckpointError(f"{path}: a SentencePiece model that is not BPE; no InternVL has one")
    pieces = {index: piece.piece for index, piece in enumerate(proto.pieces)}
    # InternLM2 reserves entries such as [UNUSED_TOKEN_145] for tokens that the configuration names later
    vocabulary = {added[index].content if index in added else piece: index for index, piece in pieces.items()}
    unknown = pieces[proto.trainer_spec.unk_id]
    backend = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=found["merges"],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    )
    spaces: list[normalizers.Normalizer] = []
    if proto.normalizer_spec.precompiled_charsmap:
        spaces.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    prefix = proto.normalizer_spec.add_dummy_prefix
    if prefix and per_segment:
        spaces.append(normalizers.Prepend("▁"))
    backend.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    if prefix and not per_segment:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    control = [piece.piece for piece in proto.pieces if piece.type == CONTROL]
    backend.add_special_tokens([_whole(token, True) for token in (unknown, *control)])
    whole = [
        piece.piece for piece in proto.pieces if piece.type == USER_DEFINED and piece.piece in vocabulary
    ]
    backend.add_tokens([_whole(token, False) for token in whole])
    return backend


def _whole(content: str, special: bool) -> AddedToken:
    return AddedToken(content, normalized=False, special=special)


def _without_added(backend: Tokenizer) -> Tokenizer:
    """Return a tokenizer with the same vocabulary and rules, without the tokens that the class adds itself."""
    bare = Tokenizer(backend.model)
    bare.normalizer, bare.pre_tokenizer, bare.decoder = (
        backend.normalizer,
        backend.pre_tokenizer,
        backend.decoder,
    )
    return bare


def _add(backend: Tokenizer, added: dict[int, AddedToken], folder: Path) -> None:
    for token_id, token in added.items():
        if token.special:
            backend.add_special_tokens([token])
        else:
            backend.add_tokens([token])
        got = backend.token_to_id(token.content)
        if got != token_id:
            raise CheckpointError(
                f"{folder}: the added token {token.content} should have id {token_id} and gets {got}: the vocabulary "
                "and the added tokens do not belong together"
            )


def _special_tokens(
    folder: Path, given: dict[str, Any], language_model: str, backend: Tokenizer
) -> dict[str, str]:
    """Return the BOS, EOS, UNK and PAD tokens from the two files that may name them, or the defaults of the class."""
    if (folder / "special_tokens_map.json").exists():
        given = read_json(folder / "special_tokens_map.json") | given
    if language_model in ("internlm2", "llama", "phi3"):
        default = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    else:
        default = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    found = {}
    for name in SPECIAL:
        token: Any = given.get(name, default.get(name))
        token = token["content"] if isinstance(token, dict) else token
        if token is not None and backend.token_to_id(token) is not None:
            found[name] = token
    return found


def _set_bos(backend: Tokenizer, bos: str | None) -> None:
    if bos is None:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)  # changes only offsets
        return
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, backend.token_to_id(bos))]
    )


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.exists() else {}
