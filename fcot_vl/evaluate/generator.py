"""Answer questions with one model and one method: planned by length, decoded batch by batch.

`evaluator.py` stores the answers. This module runs the model. It decodes greedily in left-padded batches
of one task and similar length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcot_vl.common.text import clean_text
from fcot_vl.data.dataset import Sample, StoredImage
from fcot_vl.data.images import LazyImage
from fcot_vl.data.tokenization import image_token_counts, tokenize_question
from fcot_vl.evaluate.tasks.minidoc import Task, score, task_of
from fcot_vl.inference.decoding import decode_greedily, pad_id
from fcot_vl.inference.inputs import InputBuilder
from fcot_vl.inference.kv_cache import preallocated_cache
from fcot_vl.prune.budget import tokens_by_layer
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.hooks import decoder_of
from fcot_vl.prune.method import IMAGE_METHODS, Method

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Question:
    """Plan of a question: the properties of a sample that are known without its pixels.

    Attributes:
        index: Index of the sample.
        total, kept: Nominal number of visual tokens before and after dropping.
        ink: Rough measure of the amount of text on the page.
        by_layer: Number of visual tokens that each decoder layer processes.
    """

    index: int
    id: str
    task: str
    metric: str
    text: str
    total: int
    kept: int
    ink: float
    by_layer: tuple[int, ...] = ()


class Generator:
    """Generate answers with one model and one method of dropping visual tokens.

    Args:
        model, processor: Model and processor that are ready to answer.
        method: Method that drops visual tokens.
        settings: Function that returns the settings of a question by its task and metric.

    Attributes:
        compress_ratio: Compress ratio of the model.
        n_layers: Number of layers of its decoder.
        max_batch: Maximum number of questions that fit in the device's memory together. None while all batches have
            fitted.
    """

    max_batch: int | None = None

    def __init__(
        self, model: Any, processor: Any, method: Method, settings: Callable[[str, str], Task] = task_of
    ) -> None:
        self.model, self.processor, self.method, self.settings = model, processor, method, settings
        self.compress_ratio = int(getattr(model.config, "compress_ratio", 1))
        self.n_layers = len(decoder_of(model).layers)
        self.input_builder = InputBuilder(processor, method, pad_id(model, processor.tokenizer))

    def plan(self, index: int, sample: Sample) -> Question:
        """Plan the question of sample `index`.

        Raises:
            ValueError: If the metric is unknown.
        """
        self.settings(sample.task, sample.metric)
        text = sample.question
        counts = image_token_counts(self.processor, sample.question_images)[1]
        total = sum(counts)
        kept = self.input_builder.visual_tokens(sample.question_images, counts)
        by_layer = [kept] * self.n_layers
        if self.method.name not in IMAGE_METHODS:
            by_layer = tokens_by_layer(self.method.drops(self.n_layers), self.n_layers, total)
        return Question(
            index,
            sample.id,
            sample.task,
            sample.metric,
            text,
            total,
            kept,
            _ink(sample.question_images),
            tuple(by_layer),
        )

    def answer(
        self, batch: Sequence[Question], samples: Sequence[Sample], handle: PruneHandle | None
    ) -> list[dict[str, Any]]:
        """Decode one batch of questions of one task.

        Returns:
            Rows of `predictions.jsonl`. Their score is None if the sample has no accepted answers.
        """
        task = self.settings(batch[0].task, batch[0].metric)
        inputs = self.prepare(samples, handle)
        answers = self.decode(inputs, task.max_new_tokens)
        if handle is not None:
            assert handle.kept == [question.by_layer[-1] for question in batch], (
                "other tokens were dropped than planned"
            )
        rows = []
        for question, sample, tokens in zip(batch, samples, answers, strict=True):
            prediction = clean_text(self.processor.tokenizer.decode(tokens, skip_special_tokens=True))
            rows.append(
                {
                    "id": question.id,
                    "task": question.task,
                    "question": question.text,
                    "prediction": prediction,
                    "answers": sample.answers,
                    "metric": question.metric,
                    "score": score(prediction, sample.answers, task) if sample.answers else None,
                    "density": sample.density,
                    "new_tokens": len(tokens),
                }
            )
        return rows

    def split_until_it_fits(
        self, batch: Sequence[Item], answer: Callable[[Sequence[Item]], list[Answer]]
    ) -> list[Answer]:
        """Apply `answer` to a batch, in pieces if the GPU has too little memory for all of it.

        Pieces are halved until they fit. All later batches use the size that fitted.

        Raises:
            ValueError: If not even a single question fits.
        """
        answers: list[Answer] = []
        while piece := batch[len(answers) : len(answers) + (self.max_batch or len(batch))]:
            try:
                answers += answer(piece)
                continue
            except torch.OutOfMemoryError:
                self.max_batch = len(piece) // 2  # handled below, where the error no longer holds tensors
            if not self.max_batch:
                raise ValueError(
                    "out of memory on the device with a single question; the answers so far are kept"
                )
            torch.cuda.empty_cache()
            logger.warning(
                f"out of memory with {len(piece)} questions at once, continuing with {self.max_batch}"
            )
        return answers

    def decode(self, inputs: dict[str, Tensor], max_new_tokens: int) -> list[list[int]]:
        """Return the tokens of each row's greedy answer, including the stop token."""
        cache = preallocated_cache(self.n_layers)
        tokenizer = self.processor.tokenizer
        return decode_greedily(self.model, tokenizer, inputs, max_new_tokens, past_key_values=cache)

    def prepare(self, samples: Sequence[Sample], handle: PruneHandle | None) -> dict[str, Tensor]:
        """Return the left-padded inputs of a batch on the model's device.

        For the method `smaller_page`, the blank tokens of the pages are passed to the handle.
        """
        images = [sample.question_images for sample in samples]
        prompts = [
            tokenize_question(sample.question, own, self.processor)
            for sample, own in zip(samples, images, strict=True)
        ]
        inputs = self.input_builder.batch(prompts, images, handle)
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    def costs(self, questions: Sequence[Question]) -> dict[str, float]:
        """Return the visual tokens per question, nominal and averaged over the decoder's layers."""
        n = len(questions)
        processed = sum(sum(question.by_layer) for question in questions)
        return {
            "visual_tokens_nominal": sum(question.kept for question in questions) / n,
            "visual_tokens_layer_mean": processed / (n * self.n_layers),
        }


def batches(questions: Iterable[Question], batch_size: int) -> Iterator[list[Question]]:
    """Yield batches of one task and similar length, the longest first, so that a batch too large fails at once.

    A batch decodes until its longest answer ends. Only the page indicates the length of an answer, so questions are
    also sorted by the ink of their pages.
    """
    ordered = sorted(questions, key=lambda q: (q.task, q.metric, -q.total, -q.ink, q.index))
    for _, group in groupby(ordered, key=lambda q: (q.task, q.metric)):
        same = list(group)
        for first in range(0, len(same), batch_size):
            yield same[first : first + batch_size]


def _ink(images: Sequence[Image.Image]) -> float:
    """Return the ink of images: the sum of their brightness steps along the rows, as a multiple of their contrast.

    The result is 0 for images whose pixels are read only on use. These are the images of benchmarks, which ask for
    short answers.
    """
    return sum(
        ink(image) for image in images if not isinstance(image, LazyImage) or isinstance(image, StoredImage)
    )


def ink(image: Image.Image) -> float:
    """Return the ink of one image."""
    brightness = np.asarray(image.convert("L"), dtype=np.float32)
    return float(np.abs(np.diff(brightness, axis=1)).sum() / max(1.0, float(np.ptp(brightness))))
