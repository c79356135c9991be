"""Tokenizers of original checkpoints against SentencePiece itself and the byte-level model they were made from."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import sentencepiece
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoProcessor, AutoTokenizer

import fcot_vl
from fcot_vl.common.errors import CheckpointError
from fcot_vl.convert.tokenizer import adds_bos, image_token_id, load_tokenizer
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.stages.ask import ask
from fcot_vl.stages.convert import convert

WORDS = [
    "total",
    "date",
    "invoice",
    "the",
    "what",
    "is",
    "of",
    "amount",
    "tax",
    "10%",
    "日期",
    "税",
    "née",
    "£4.20",
]
TEXTS = [
    "What is the total?",
    " two  spaces and a tab\there",
    "line one\nline two\n",
    "日期 税 née £4.20 😀",
    "",
]
IMAGE = ["<img>", "</img>", "<IMG_CONTEXT>"]


def corpus() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=8)) for _ in range(400)]


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("spm"), 370, [f"[UNUSED_TOKEN_{i}]" for i in range(4)])


def train(folder: Path, vocabulary: int, symbols: list[str]) -> Path:
    """A SentencePiece model as InternLM2's and Llama's: BPE, byte fallback, spaces as they are."""
    prefix = folder / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        character_coverage=0.99,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=symbols,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def folder_with(spm: Path, folder: Path, **settings: object) -> Path:
    """InternLM2's files: chat tokens in places the vocabulary keeps for them, image tokens behind it."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    places = [model.piece_to_id(f"[UNUSED_TOKEN_{i}]") for i in range(2)]
    added = dict(zip(("<|im_end|>", "<|im_start|>"), places, strict=True))
    added |= {token: len(model) + i for i, token in enumerate(IMAGE)}
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(spm.read_bytes())
    (folder / "added_tokens.json").write_text(json.dumps(added))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_models_encode_as_sentencepiece_does(spm: Path, tmp_path: Path, text: str) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokenizer = load_tokenizer(folder_with(spm, tmp_path / "source"), "internlm2")
    assert tokenizer is not None
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == model.encode(text)
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_every_stretch_between_added_tokens_is_encoded_on_its_own(spm: Path, tmp_path: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokenizer = load_tokenizer(folder_with(spm, tmp_path / "source"), "internlm2")
    assert tokenizer is not None
    ids = tokenizer("<|im_start|>user\nthe total<|im_end|>tax")["input_ids"]
    vocabulary = tokenizer.get_vocab()
    start, end = vocabulary["<|im_start|>"], vocabulary["<|im_end|>"]
    assert ids == [1, start, *model.encode("user\nthe total"), end, *model.encode("tax")]
    assert "[UNUSED_TOKEN_0]" not in vocabulary
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")
    assert adds_bos(tokenizer)
    assert image_token_id(tmp_path / "source", tokenizer) == len(model) + 2


def test_a_new_style_llama_tokenizer_puts_a_space_first_only(spm: Path, tmp_path: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    settings = {"legacy": False, "add_bos_token": False}
    tokenizer = load_tokenizer(folder_with(spm, tmp_path / "source", **settings), "phi3")
    assert tokenizer is not None and not adds_bos(tokenizer)
    end = tokenizer.get_vocab()["<|im_end|>"]
    ids = tokenizer("the total<|im_end|>tax")["input_ids"]
    assert ids[: ids.index(end)] == model.encode("the total")
    assert tokenizer.convert_ids_to_tokens(ids[ids.index(end) + 1 :])[0] == "t"


def test_a_token_that_strips_what_follows_keeps_doing_so(spm: Path, tmp_path: Path) -> None:
    folder = folder_with(spm, tmp_path / "source")
    n = len(sentencepiece.SentencePieceProcessor(model_file=str(spm)))
    token = {"content": "<|user|>", "rstrip": True, "lstrip": False, "normalized": False, "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {str(n + 3): token}}))
    tokenizer = load_tokenizer(folder, "phi3")
    assert tokenizer is not None
    assert tokenizer("<|user|>\n  tax")["input_ids"] == tokenizer("<|user|>tax")["input_ids"]


def byte_level(folder: Path) -> Tokenizer:
    """Qwen2's files, `vocab.json` and `merges.txt`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    folder.mkdir()
    tokenizer.model.save(str(folder))
    n = tokenizer.get_vocab_size()
    added = {t: n + i for i, t in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE])}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def test_byte_level_models_encode_as_before(tmp_path: Path) -> None:
    byte_level(tmp_path / "source")
    tokenizer = load_tokenizer(tmp_path / "source", "qwen2")
    assert tokenizer is not None and not adds_bos(tokenizer)
    vocabulary = json.loads((tmp_path / "source" / "added_tokens.json").read_text())
    ids = tokenizer("<|im_start|>user\ntotal<|im_end|>")["input_ids"]
    assert ids[0] == vocabulary["<|im_start|>"] and ids[-1] == vocabulary["<|im_end|>"]
    assert len(tokenizer) == max(vocabulary.values()) + 1
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.bos_token is None


def test_a_tokenizer_json_is_read_as_it_is(tmp_path: Path) -> None:
    byte_level(tmp_path / "first")
    first = load_tokenizer(tmp_path / "first", "qwen2")
    assert first is not None
    first.save_pretrained(tmp_path / "second")
    second = load_tokenizer(tmp_path / "second", "qwen2")
    assert second is not None
    for text in [*TEXTS, "<img><IMG_CONTEXT></img>"]:
        assert first(text)["input_ids"] == second(text)["input_ids"]


def test_added_tokens_that_do_not_fit_are_an_error(spm: Path, tmp_path: Path) -> None:
    folder = folder_with(spm, tmp_path / "source")
    added = json.loads((folder / "added_tokens.json").read_text())
    added["<IMG_CONTEXT>"] += 7
    (folder / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(CheckpointError, match=r"<IMG_CONTEXT> should have id \d+ and gets"):
        load_tokenizer(folder, "internlm2")


def test_no_tokenizer_and_a_broken_one(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path, "internlm2") is None
    (tmp_path / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        load_tokenizer(tmp_path, "internlm2")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: cannot be read"):
        load_tokenizer(tmp_path, "internlm2")


def test_what_is_saved_loads_with_the_auto_classes(spm: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(folder_with(spm, tmp_path / "source"), "internlm2")
    assert tokenizer is not None
    tokenizer.save_pretrained(tmp_path / "out")
    again = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nthe  total<|im_end|>"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_converted_folder_answers_through_the_processor(tmp_path: Path) -> None:
    """The recorded checkpoint with a tokenizer beside it: one first token, one placeholder a visual token."""
    source = tmp_path / "source"
    shutil.copytree(Path(__file__).resolve().parents[2] / "data" / "internvl2-tiny-internlm2", source)
    chat = ["<|im_start|>", "<|im_end|>"]
    (source / "tokenizer.model").write_bytes(train(tmp_path, 298, chat).read_bytes())
    out = convert(source, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(out)
    assert isinstance(processor, fcot_vl.FCoTVLProcessor)
    picture = Image.new("RGB", (300, 112), "white")
    message = {
        "role": "user",
        "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Total?"}],
    }
    inputs = processor.apply_chat_template(
        [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = inputs["input_ids"][0].tolist()
    assert ids[0] == 1 and ids.count(1) == 1
    assert ids.count(300) == 16 * len(inputs["pixel_values"]) and len(inputs["pixel_values"]) > 1
    assert ids.index(298) == ids.index(300) - 1 and ids[len(ids) - ids[::-1].index(300)] == 299
    assert load_for_inference(out)[0].generation_config.eos_token_id == [
        2,
        processor.tokenizer.get_vocab()[chat[1]],
    ]
    picture.save(tmp_path / "page.png")
    answer = ask(tmp_path / "page.png", "Total?", out, max_new_tokens=4)
    assert answer.kind == "teacher" and answer.tiles == len(inputs["pixel_values"])
