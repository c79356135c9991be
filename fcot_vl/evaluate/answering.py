"""One model with one method: questions planned by length, answered batch by batch.

Between the runner, which keeps what was answered, and the model. Greedy decoding in batches of one task and similar
length, padded on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcot_vl.data.collate import Prompt, join_pictures, pad, picture_counts, tokenize_question
from fcot_vl.data.images import LazyPicture
from fcot_vl.data.sample import Sample
from fcot_vl.evaluate.benchmarks import Task, score, task_of
from fcot_vl.evaluate.cache import roomy_cache
from fcot_vl.model.inference import stop_ids
from fcot_vl.prune.engine import PruneHandle, decoder_of, n_kept, tokens_by_layer
from fcot_vl.prune.fewer_tiles import tile_limit
from fcot_vl.prune.method import OTHER_PAGE, Method
from fcot_vl.prune.smaller_page import SmallerPageHandle, choose_cells, shrink_page


@dataclass(frozen=True)
class Question:
    """What is known of a record without its pixels.

    index: of the record. total, kept: visual tokens before and after dropping, by name. ink: how much there is to read,
    roughly. by_layer: visual tokens that every decoder layer works on.
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


class Answerer:
    """One model with one method.

    Args:
        model, processor: ready to answer.
        method: how visual tokens are dropped.
        settings: the settings of a question by its task and metric.

    Attributes:
        compress_ratio: the model's. n_layers: of its decoder.
    """

    def __init__(
        self, model: Any, processor: Any, method: Method, settings: Callable[[str, str], Task] = task_of
    ) -> None:
        self.model, self.processor, self.method, self.settings = model, processor, method, settings
        self.compress_ratio = int(getattr(model.config, "compress_ratio", 1))
        self.n_layers = len(decoder_of(model).layers)
        self.stops = stop_ids(model, processor.tokenizer)
        pad_id = processor.tokenizer.pad_token_id
        self.pad: int = self.stops[0] if pad_id is None else pad_id

    def plan(self, index: int, sample: Sample) -> Question:
        """What is known of record `index` before it is answered. Raises ValueError for an unknown metric."""
        self.settings(sample.task, sample.metric)
        asked = _asked(sample)
        counts = picture_counts(self.processor, sample.images)[1]
        total = sum(counts)
        kept = total
        if self.method.name in OTHER_PAGE:
            spent = self._cells if self.method.name == "smaller_page" else self._tokens_of_fewer_tiles
            kept = sum(spent(image, n) for image, n in zip(sample.images, counts, strict=True))
        elif self.method.keep is not None and total:
            kept = n_kept(self.method.keep, total)
        by_layer = [kept] * self.n_layers
        if self.method.name not in OTHER_PAGE:
            by_layer = tokens_by_layer(self.method.drops(self.n_layers), self.n_layers, total)
        return Question(
            index,
            sample.id,
            sample.task,
            sample.metric,
            asked,
            total,
            kept,
            _ink(sample.images),
            tuple(by_layer),
        )

    def _cells(self, image: Image.Image, n_tokens: int) -> int:
        assert self.method.keep is not None
        w, h = choose_cells(image.width, image.height, n_kept(self.method.keep, n_tokens))
        return w * h

    def _tile_limit(self, image: Image.Image, n_tokens: int) -> int:
        """The most tiles that a page of `n_tokens` may be cut into to fit the budget."""
        assert self.method.keep is not None
        most = getattr(self.processor.image_processor, "max_patches", None)
        if most is None:
            raise ValueError("fewer tiles: laid out for InternVL's tiles; this model is of another family.")
        return tile_limit(
            lambda limit: self._tokens_at(image, limit), int(most), n_kept(self.method.keep, n_tokens)
        )

    def _tokens_at(self, image: Image.Image, limit: int) -> int:
        options = {"crop_to_patches": True, "max_patches": limit}
        tiles = self.processor.image_processor.get_number_of_image_patches(image.height, image.width, options)
        return int(tiles) * int(self.processor.image_seq_length)

    def _tokens_of_fewer_tiles(self, image: Image.Image, n_tokens: int) -> int:
        return self._tokens_at(image, self._tile_limit(image, n_tokens))

    @torch.inference_mode()
    def answer(
        self, batch: Sequence[Question], samples: Sequence[Sample], handle: PruneHandle | None
    ) -> list[dict[str, Any]]:
        """Decode one batch of questions of one task: rows of `predictions.jsonl`, unscored where no answer is known."""
        task = self.settings(batch[0].task, batch[0].metric)
        inputs = self.prepare(samples, handle)
        n_prompt = inputs["input_ids"].shape[1]
        generated = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=task.max_new_tokens,
            eos_token_id=self.stops,
            pad_token_id=self.pad,
            past_key_values=roomy_cache(self.n_layers),
        )
        if handle is not None:
            assert handle.kept == [question.by_layer[-1] for question in batch], "dropped other than planned"
        rows = []
        for question, sample, tokens in zip(batch, samples, generated[:, n_prompt:].tolist(), strict=True):
            length = next((i + 1 for i, token in enumerate(tokens) if token in self.stops), len(tokens))
            prediction = self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
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
                    "new_tokens": length,
                }
            )
        return rows

    def prepare(self, samples: Sequence[Sample], handle: PruneHandle | None) -> dict[str, Tensor]:
        """Left-padded inputs of a batch on the model's device; a smaller page's blank is told to the handle."""
        prompts = [tokenize_question(_asked(sample), sample.images, self.processor) for sample in samples]
        if isinstance(handle, SmallerPageHandle):
            prompts, found = self._smaller(prompts, samples, handle)
        elif self.method.name == "fewer_tiles":
            prompts, found = self._fewer(prompts, samples)
        else:
            found = [self.processor.picture_inputs(sample.images) for sample in samples if sample.images]
        inputs = pad([prompt.expand() for prompt in prompts], self.pad, side="left")
        del inputs["labels"]
        inputs |= join_pictures(found) | self.processor.prompt_inputs(inputs["input_ids"])
        return {key: value.to(self.model.device) for key, value in inputs.items()}

    def _smaller(
        self, prompts: list[Prompt], samples: Sequence[Sample], handle: SmallerPageHandle
    ) -> tuple[list[Prompt], list[dict[str, Tensor]]]:
        """The prompts and pictures of smaller pages; which of their tokens are not blank is told to the handle."""
        process, per_tile = self.processor.image_processor, int(self.processor.image_seq_length)
        assert self.method.keep is not None
        shrunk, found, handle.kept_per_row = [], [], []
        for prompt, sample in zip(prompts, samples, strict=True):
            pages = [
                shrink_page(image, n_kept(self.method.keep, count), process.size["height"], per_tile)
                for image, count in zip(sample.images, prompt.counts[1], strict=True)
            ]
            shrunk.append(replace(prompt, counts={1: tuple(len(page.tiles) * per_tile for page in pages)}))
            tiles = [tile for page in pages for tile in page.tiles]
            if tiles:
                read = process(tiles, crop_to_patches=False, return_tensors="pt")
                found.append({"pixel_values": read["pixel_values"]})
            handle.kept_per_row.append(
                torch.cat([torch.zeros(0, dtype=torch.bool), *(p.kept for p in pages)])
            )
        return shrunk, found

    def _fewer(
        self, prompts: list[Prompt], samples: Sequence[Sample]
    ) -> tuple[list[Prompt], list[dict[str, Tensor]]]:
        """The prompts and pictures of pages cut into fewer tiles."""
        cut, found = [], []
        for prompt, sample in zip(prompts, samples, strict=True):
            counts = []
            for image, count in zip(sample.images, prompt.counts[1], strict=True):
                limit = self._tile_limit(image, count)
                counts.append(self._tokens_at(image, limit))
                read = self.processor.image_processor(
                    [image], crop_to_patches=True, max_patches=limit, return_tensors="pt"
                )
                found.append({"pixel_values": read["pixel_values"]})
            cut.append(replace(prompt, counts={1: tuple(counts)}))
        return cut, found

    def costs(self, questions: Sequence[Question]) -> dict[str, float]:
        """Visual tokens per question, nominal and averaged over the decoder's layers."""
        n = len(questions)
        worked_on = sum(sum(question.by_layer) for question in questions)
        return {
            "visual_tokens_nominal": sum(question.kept for question in questions) / n,
            "visual_tokens_layer_mean": worked_on / (n * self.n_layers),
        }


def _asked(sample: Sample) -> str:
    return next(message["content"] for message in sample.messages if message["role"] == "user")


def batches(questions: Iterable[Question], batch_size: int) -> Iterator[list[Question]]:
    """Batches of one task and of similar length, the longest first, so that a batch too large fails at once.

    A batch decodes until its longest answer ends, and how long an answer gets shows on the page alone.
    """
    ordered = sorted(questions, key=lambda q: (q.task, q.metric, -q.total, -q.ink, q.index))
    for _, group in groupby(ordered, key=lambda q: (q.task, q.metric)):
        same = list(group)
        for first in range(0, len(same), batch_size):
            yield same[first : first + batch_size]


def _ink(images: Sequence[Image.Image]) -> float:
    """Edges of pictures: their steps of brightness along the lines, as multiples of their contrast.

    0 for pictures whose pixels are read only when they are used: those of benchmarks, which ask for few words anyway.
    """
    return sum(ink(image) for image in images if not isinstance(image, LazyPicture))


def ink(image: Image.Image) -> float:
    """The same of one picture."""
    brightness = np.asarray(image.convert("L"), dtype=np.float32)
    return float(np.abs(np.diff(brightness, axis=1)).sum() / max(1.0, float(np.ptp(brightness))))
