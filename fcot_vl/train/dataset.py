"""Datasets of a training run: all samples tokenized once, one by one or in packs.

Lengths are therefore known before the first step, unusable samples are skipped and listed (`data.skip_log`), and
`sampler.py` can plan the order. Images are decoded, or their cached features read, on access.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers.utils.logging import tqdm

from fcot_vl.data.chat_format import SampleError
from fcot_vl.data.collator import TokenizedSample
from fcot_vl.data.dataset import Sample
from fcot_vl.data.groups import group_names
from fcot_vl.data.packing import fill, plan_packs, tokens_of
from fcot_vl.data.skip_log import SkipLog, reason_of
from fcot_vl.data.tokenization import TokenizedPrompt, tokenize_prompt


class TrainingDataset(Dataset[TokenizedSample]):
    """Map-style dataset of the samples of a data folder.

    Args:
        samples: `SampleFolder`, or any sequence of samples.
        processor: Processor of the teacher (its tiling and chat template).
        max_length: Maximum length in tokens of a sample's sequence for the processor's own model. Longer samples are
            skipped.
        features: ViT features by index into `samples` (`feature_cache.FeatureCache`). Images are then not opened.
        ratios: Compress ratios of students that read the samples along with the processor's own model. Samples without
            an image are then skipped.
        skip_log: Log of skipped samples with their allowed share. By default, skipped samples are only counted.

    Attributes:
        kept: Indices into `samples` of the samples that are used.
        ids: Ids of the kept samples.
        lengths: Lengths of the kept samples in tokens.
        answers: Numbers of answer tokens of the kept samples.
        group_names: Groups (tasks or sources) for which losses are logged separately.
        groups: Group number of each kept sample.

    Raises:
        ValueError: If more samples are skipped than allowed, or if all are.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Any,
        max_length: int,
        features: Sequence[Tensor] | None = None,
        ratios: Sequence[int] = (),
        skip_log: SkipLog | None = None,
    ) -> None:
        self.samples = samples
        self.features = features
        self.skip_log = skip_log or SkipLog(samples, max_share=1.0)
        needs_image = bool(ratios) or features is not None
        self.prompts: list[TokenizedPrompt] = []
        self.kept: list[int] = []
        self.ids: list[str] = []
        tasks: list[str] = []
        for index in tqdm(range(len(samples)), desc="tokenize", unit="page", leave=False):
            with self.skip_log.skipping(index):
                sample = samples[index]
                prompt = tokenize_prompt(sample.messages, sample.images, processor, (1, *ratios))
                refuse_unfit(prompt, max_length, needs_image)
                self.prompts.append(prompt)
                self.kept.append(index)
                self.ids.append(sample.id)
                tasks.append(sample.task)
        self.skip_log.write()
        if not self.kept:
            raise ValueError(
                f"none of the {len(samples)} pages can be used with max_length {max_length}: {self.skip_log.describe()}"
            )
        self.lengths = [prompt.length() for prompt in self.prompts]
        self.answers = [int(prompt.is_answer.sum()) for prompt in self.prompts]
        named = group_names(samples, self.kept, tasks)
        self.group_names = sorted(set(named))
        numbers = {name: number for number, name in enumerate(self.group_names)}
        self.groups = [numbers[name] for name in named]

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(
        self,
    ) -> Iterator[TokenizedSample]:  # indices past the end give blanks, so no IndexError ends an iteration
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> TokenizedSample:
        if index >= len(self):
            return blank(self[index % len(self)])
        at = self.kept[index]
        prompt, name, group = self.prompts[index], self.ids[index], self.groups[index]
        if self.features is not None:
            prompt = self._muted_if_blank(at, prompt, self.features)
            return TokenizedSample(prompt, visual_features=self.features[at], id=name, group=group)
        prompt, images = self._open(at, prompt)
        return TokenizedSample(prompt, lambda: images, id=name, group=group)

    def _open(self, index: int, prompt: TokenizedPrompt) -> tuple[TokenizedPrompt, list[Image.Image]]:
        """Return the prompt and the decoded images of sample `index`.

        If an image cannot be decoded, return white images of the same sizes and a prompt without answer tokens. The
        batch then keeps its shape, and the sample its position, on every process and after every resume.
        """
        try:
            images = self.samples[index].images
            for image in images:
                image.load()
            if tuple((image.height, image.width) for image in images) != prompt.sizes:
                raise ValueError("the image has another size than before training")
            return prompt, images
        except Exception as error:  # damaged bytes make decoders raise nearly any error
            self.skip_log.add_pixels(index, reason_of(error))
            white = [Image.new("RGB", (width, height), "white") for height, width in prompt.sizes]
            return mute(prompt), white

    def _muted_if_blank(
        self, index: int, prompt: TokenizedPrompt, features: Sequence[Tensor]
    ) -> TokenizedPrompt:
        """Return the prompt of sample `index`, without answer tokens if its features are those of a blank image."""
        if not getattr(features, "is_blank", lambda _: False)(index):
            return prompt
        self.skip_log.add_pixels(index, "its pixels could not be decoded when features were cached")
        return mute(prompt)

    def describe(self) -> str:
        """Return the number of pages and of skipped samples, for the first line of the stage's output."""
        skipped = self.skip_log.describe()
        return f"{len(self):,} pages" + (f" (skipped: {skipped})" if skipped else "")


def refuse_unfit(prompt: TokenizedPrompt, max_length: int, needs_image: bool) -> None:
    """Raise SampleError for a valid sample that does not fit this run."""
    if needs_image and not prompt.sizes:
        raise SampleError("without an image", "text only: re-alignment and cached features need an image")
    if prompt.length() > max_length:
        raise SampleError("too long", f"{prompt.length():,} tokens are more than max_length {max_length}")


def mute(prompt: TokenizedPrompt) -> TokenizedPrompt:
    """Return a copy of the prompt without answer tokens."""
    return replace(prompt, is_answer=np.zeros_like(prompt.is_answer))


def blank(sample: TokenizedSample) -> TokenizedSample:
    """Return a copy of the sample without answer tokens to learn from."""
    return replace(sample, prompt=mute(sample.prompt), id="")


class PackedDataset(Dataset[list[TokenizedSample]]):
    """Map-style dataset of packs of samples; see `data.packing`.

    Attributes:
        packs: Indices into `samples`, one list per pack.
        lengths: Number of tokens of each pack, counted in the sequences of the processor's own model.
        answers: Number of answer tokens of each pack.
    """

    def __init__(self, samples: TrainingDataset, capacity: int, seed: int) -> None:
        self.samples = samples
        self.packs = plan_packs(samples.lengths, capacity, seed)
        self.lengths = [tokens_of(pack, samples.lengths) for pack in self.packs]
        self.answers = [tokens_of(pack, samples.answers) for pack in self.packs]
        self.fill = fill(self.packs, samples.lengths, capacity)
        self.group_names = samples.group_names
        self.capacity = capacity

    def __len__(self) -> int:
        return len(self.packs)

    def __iter__(self) -> Iterator[list[TokenizedSample]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> list[TokenizedSample]:
        if index >= len(self):
            return [blank(sample) for sample in self[index % len(self)]]
        return [self.samples[at] for at in self.packs[index]]

    def describe(self) -> str:
        """Return the number of pages and packs, for the first line of the stage's output."""
        return f"{self.samples.describe()} in {len(self):,} packs of {self.capacity:,} tokens, {self.fill:.1%} full"
