"""Model class for lmms-eval: any teacher or student folder, unchanged or with a training-free baseline.

lmms-eval finds this module through the entry point in `pyproject.toml`. Nothing else imports it, because lmms-eval is
installed in an environment of its own. The tasks of lmms-eval ask the questions and score the answers. This module
answers requests as `generator.py` answers samples: greedily, in left-padded batches, with the same prompt, the same
stop tokens and the same KV cache. `stages/lmms_eval.py` provides local data for its tasks.

Source: the interface of lmms-eval 0.7.3 for models that take a text and images ("simple").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image

from fcot_vl.common.progress import progress_bar
from fcot_vl.common.text import clean_text
from fcot_vl.data.tokenization import TokenizedPrompt, tokenize_question
from fcot_vl.evaluate.generator import Generator
from fcot_vl.inference.loading import load_for_inference
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.method import Method

MAX_NEW_TOKENS = 1024  # if a task sets no limit; the default of lmms-eval's own models
FEWSHOT_DELIMITER = "\n\n"


def manifest() -> Any:
    """Return the entry for lmms-eval's registry: the name `fcot_vl` and the class `FCoTVL`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("fcot_vl", simple_class_path=f"{__name__}.{FCoTVL.__name__}")


@dataclass(frozen=True)
class LmmsRequest:
    """One request without its pixels: its index, its prompt, a function that opens its images, and its stop rules."""

    index: int
    prompt: TokenizedPrompt
    images: Callable[[], list[Image.Image]]
    max_new_tokens: int
    until: tuple[str, ...]


class FCoTVL(lmms):
    """Teacher or student of any supported family, for lmms-eval.

    `--model_args NAME=VALUE,...` sets the arguments.

    Args:
        pretrained: Folder or hub id. Default: the embedded teacher.
        method, keep, layer, seed: Settings of a training-free baseline; see `Method`.
        batch_size, device: Flags of lmms-eval. With several processes, accelerate chooses the device.
        max_batch_size: Unused; lmms-eval passes it.

    Raises:
        ValueError: If the model cannot be loaded, or if the baseline is unknown, has wrong settings, or does not
            support this model.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        method: str = "none",
        keep: float | None = None,
        layer: int | None = None,
        seed: int = 0,
        batch_size: int | str | None = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.method = Method(method, keep, layer, seed)
        if not str(batch_size or 1).isdecimal() or int(batch_size or 1) < 1:
            raise ValueError(f"batch_size must be a number of at least 1, got {batch_size!r}.")
        self.batch_size = int(batch_size or 1)
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        alone = self.accelerator.num_processes == 1
        self.device = torch.device(device) if device and alone else self.accelerator.device
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        model, self.processor = load_for_inference(pretrained or tiny_teacher_path())
        self.generator = Generator(model.to(self.device), self.processor, self.method)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Return the answer to each request, in their order: text and numbers of tokens.

        Raises:
            ValueError: If a request asks for sampling or beam search (answers are greedy), or if its medium is not an
                image.
        """
        replies: list[Any] = [None] * len(requests)
        handle = self.method.apply(self.generator.model)
        try:
            with progress_bar() as progress:
                progress.disable = self._rank != 0
                bar = progress.add_task("requests", total=len(requests))
                for batch in batches([self._read(*each) for each in enumerate(requests)], self.batch_size):
                    answers = self.generator.split_until_it_fits(
                        batch, lambda piece: self._answer(piece, handle)
                    )
                    for one, reply in zip(batch, answers, strict=True):
                        replies[one.index] = reply
                    progress.update(bar, advance=len(batch))
        finally:
            if handle is not None:
                handle.remove()
        return replies

    def _read(self, index: int, request: Any) -> LmmsRequest:
        text, gen_kwargs, doc_to_visual, doc_id, task, split = request.args
        rows = self.task_dict[task][split]

        def images() -> list[Image.Image]:
            found = doc_to_visual(rows[doc_id]) or []
            if other := [type(one).__name__ for one in found if not isinstance(one, Image.Image)]:
                raise ValueError(f"task {task}, document {doc_id}: only images are supported, got {other[0]}")
            return [one.convert("RGB") for one in found]

        prompt = tokenize_question(text, images(), self.processor)
        return LmmsRequest(index, prompt, images, *stop_rules(gen_kwargs, task))

    def _answer(self, batch: Sequence[LmmsRequest], handle: PruneHandle | None) -> list[Any]:
        images = [one.images() if one.prompt.sizes else [] for one in batch]
        inputs = self.generator.input_builder.batch([one.prompt for one in batch], images, handle)
        inputs = {key: value.to(self.device) for key, value in inputs.items()}
        replies = []
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        answers = self.generator.decode(inputs, batch[0].max_new_tokens)
        for one, n_input, tokens in zip(batch, lengths, answers, strict=True):
            text = clean_text(self.processor.tokenizer.decode(tokens, skip_special_tokens=True))
            counts = TokenCounts(input_tokens=n_input, output_tokens=len(tokens))
            replies.append(GenerationResult(truncate_at(text, one.until), counts))
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raise NotImplementedError: document benchmarks ask for answers, not for likelihoods."""
        raise NotImplementedError(
            "fcot_vl only generates answers; tasks that compare likelihoods are not supported."
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raise NotImplementedError: document benchmarks have a single round."""
        raise NotImplementedError(
            "fcot_vl answers single questions; tasks with several rounds are not supported."
        )


def batches(requests: Sequence[LmmsRequest], batch_size: int) -> Iterator[list[LmmsRequest]]:
    """Yield batches of one token limit and similar length, the longest first, so that one too large fails at once."""
    ordered = sorted(requests, key=lambda one: (one.max_new_tokens, -one.prompt.length(), one.index))
    for _, group in groupby(ordered, key=lambda one: one.max_new_tokens):
        same = list(group)
        for first in range(0, len(same), batch_size):
            yield same[first : first + batch_size]


def stop_rules(gen_kwargs: Mapping[str, Any], task: str) -> tuple[int, tuple[str, ...]]:
    """Return the maximum number of tokens of an answer, and the strings at which it is cut.

    An empty line does not cut an answer. lmms-eval adds its delimiter of few-shot examples to every task without stop
    strings (`TaskConfig.__post_init__`), which would cut a reasoned answer after its first paragraph. The models of
    lmms-eval ignore it too.

    Raises:
        ValueError: If sampling or beam search is requested.
    """
    temperature, do_sample = gen_kwargs.get("temperature"), gen_kwargs.get("do_sample")
    drawn = do_sample if temperature is None else temperature > 0 and do_sample is not False
    if drawn or (gen_kwargs.get("num_beams") or 1) > 1:
        raise ValueError(
            f"task {task} requests sampling or beam search, but answers are greedy here: add "
            "--gen_kwargs temperature=0,do_sample=False,num_beams=1."
        )
    until = gen_kwargs.get("until") or []
    stops = [until] if isinstance(until, str) else until
    most = int(gen_kwargs.get("max_new_tokens") or MAX_NEW_TOKENS)
    return most, tuple(stop for stop in stops if stop and stop != FEWSHOT_DELIMITER)


def truncate_at(text: str, until: Sequence[str]) -> str:
    """Return the text up to the first occurrence of any of the strings."""
    return text[: min([len(text), *(at for stop in until if (at := text.find(stop)) >= 0)])]
