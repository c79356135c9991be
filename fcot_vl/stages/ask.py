"""Answer one question about one image file with the embedded teacher, or by any teacher or student folder.

This is the shortest path through the package: image -> tiles -> model -> answer, with a description of the model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from fcot_vl.common.text import check_text, clean_text
from fcot_vl.data.chat_format import IMAGE
from fcot_vl.data.images import open_image
from fcot_vl.data.tokenization import question_inputs
from fcot_vl.inference.decoding import decode_greedily
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.models.tiny import tiny_teacher_path

EMBEDDED_NOTICE = (
    "note: the embedded teacher reads only MiniDoc-like pages (fixed-pitch print); "
    "for documents of your own give --model an InternVL checkpoint"
)


@dataclass(frozen=True)
class Answer:
    """Answer to a question, with the model that gave it."""

    text: str
    model: str
    kind: str  # "teacher" or "student"
    compress_ratio: int
    visual_positions: str | None  # None for a teacher
    tiles: int
    visual_tokens: int
    new_tokens: int
    seconds: float
    notice: str | None

    @property
    def answered_by(self) -> str:
        """Line with the model, its compress ratio, and the numbers of visual and new tokens."""
        ratio = f", compress ratio {self.compress_ratio}" if self.kind == "student" else ""
        return (
            f"{self.kind} {self.model}{ratio}: {self.visual_tokens} visual tokens from {self.tiles} "
            f"tile{'s' if self.tiles != 1 else ''}, {self.new_tokens} tokens answered in {self.seconds:.1f} s"
        )


def ask(
    image_path: str | Path, question: str, model: str | Path | None = None, max_new_tokens: int = 256
) -> Answer:
    """Answer one question about one image, with greedy decoding.

    Args:
        image_path: Image file (see `open_image`).
        question: Question in plain text.
        model: Folder or hub id of a teacher (see `docs/families.md`) or a student. None: the embedded teacher.
        max_new_tokens: Maximum number of tokens of the answer.

    Raises:
        ImageError: If the image cannot be used.
        ValueError: If the question is empty or `max_new_tokens` is below 1, or if the model cannot be loaded or belongs
            to no supported family.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    check_question(question)
    image = open_image(image_path)
    loaded, processor = load_for_inference(tiny_teacher_path() if model is None else model)
    inputs = question_tensors(question, image, loaded, processor)
    started = time.perf_counter()
    answer = generate_answer(loaded, processor, inputs, max_new_tokens)
    seconds = time.perf_counter() - started
    ratio = int(getattr(loaded.config, "compress_ratio", 1))
    return Answer(
        text=clean_text(processor.tokenizer.decode(answer, skip_special_tokens=True)).strip(),
        model="embedded" if model is None else str(model),
        kind="student" if ratio > 1 else "teacher",
        compress_ratio=ratio,
        visual_positions=loaded.config.visual_positions if ratio > 1 else None,
        tiles=processor.count_image_tiles(image.height, image.width),
        visual_tokens=int((inputs["input_ids"] == processor.image_token_id).sum()),
        new_tokens=len(answer),
        seconds=seconds,
        notice=EMBEDDED_NOTICE if model is None else None,
    )


def check_question(question: str) -> str:
    """Return the question without outer whitespace.

    Raises:
        ValueError: If the question is empty or not valid Unicode, as bytes that are not UTF-8 are.
    """
    if not question.strip():
        raise ValueError("the question is empty; ask something, for example: What is the total?")
    return check_text(question.strip(), "the question")


def question_tensors(question: str, image: Image.Image, model: Any, processor: Any) -> dict[str, Tensor]:
    """Return the model inputs for one question about one image, on the model's device.

    Raises:
        ValueError: If the question is empty or contains tokens that mark images.
    """
    question = check_question(question)
    marks = processor.tokenizer.convert_ids_to_tokens([*processor.image_marks[0], *processor.image_marks[1]])
    for token in (processor.image_token, *marks):
        if token in question and token != IMAGE:  # which keeps the place of the image in the text
            raise ValueError(f"the question holds {token}, which marks images; leave it out")
    inputs = question_inputs(question, [image], processor)
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return inputs


def generate_answer(model: Any, processor: Any, inputs: dict[str, Tensor], max_new_tokens: int) -> list[int]:
    """Return the tokens of a greedy answer, including the stop token."""
    return decode_greedily(model, processor.tokenizer, inputs, max_new_tokens)[0]
