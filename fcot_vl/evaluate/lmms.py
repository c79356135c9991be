"""The model that lmms-eval runs: any teacher or student folder, as it is or with a training-free peer.

lmms-eval finds it through the entry point in `pyproject.toml` and nothing else imports it: lmms-eval lives in an
environment of its own. There, its tasks ask and score; here, requests are answered as `runner.py` answers records:
greedily, in left-padded batches, with the same prompt, the same tokens that end an answer, and the same KV cache.
`lmms_task.py` gives its tasks local data.

Source: the interface of lmms-eval 0.7.3 for models that take a text and pictures ("simple").
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

from fcot_vl.data.collate import Prompt, tokenize_question
from fcot_vl.evaluate.answering import Answerer
from fcot_vl.model.inference import load_for_inference
from fcot_vl.model.tiny import tiny_teacher_path
from fcot_vl.progress import progress_bar
from fcot_vl.prune.handle import PruneHandle
from fcot_vl.prune.method import Method

MAX_NEW_TOKENS = 1024  # where a task sets no limit; what lmms-eval's own models take then
FEWSHOT_DELIMITER = "\n\n"


def manifest() -> Any:
    """What lmms-eval's registry takes: the name `fcot_vl` and this class."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("fcot_vl", simple_class_path=f"{__name__}.{FCoTVL.__name__}")


@dataclass(frozen=True)
class Asked:
    """One request without its pixels: which it is, its prompt, where its pictures are, where its answer ends."""

    index: int
    prompt: Prompt
    pictures: Callable[[], list[Image.Image]]
    max_new_tokens: int
    until: tuple[str, ...]


class FCoTVL(lmms):
    """A teacher or student of any family here.

    Args, as `--model_args NAME=VALUE,...` gives them:
        pretrained: folder or hub id; without it the embedded teacher.
        method, keep, layer, seed: a training-free peer, as for `Method`.
        batch_size, device: lmms-eval's own flags; `device` is left to accelerate where several processes run.
        max_batch_size: lmms-eval passes it; not used.

    Raises ValueError for a model that cannot be loaded, and for a peer that is unknown, wrongly set, or not for this
    model.
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
        self.answerer = Answerer(model.to(self.device), self.processor, self.method)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """An answer to each request, in their order: text and numbers of tokens.

        Raises ValueError for a request that draws or searches (answers are greedy), or whose medium is no picture.
        """
        replies: list[Any] = [None] * len(requests)
        handle = self.method.apply(self.answerer.model)
        try:
            with progress_bar() as progress:
                progress.disable = self._rank != 0
                bar = progress.add_task("requests", total=len(requests))
                for batch in batches([self._read(*each) for each in enumerate(requests)], self.batch_size):
                    answers = self.answerer.fitted(batch, lambda piece: self._answer(piece, handle))
                    for one, reply in zip(batch, answers, strict=True):
                        replies[one.index] = reply
                    progress.update(bar, advance=len(batch))
        finally:
            if handle is not None:
                handle.remove()
        return replies

    def _read(self, index: int, request: Any) -> Asked:
        text, gen_kwargs, doc_to_visual, doc_id, task, split = request.args
        rows = self.task_dict[task][split]

        def pictures() -> list[Image.Image]:
            found = doc_to_visual(rows[doc_id]) or []
            if other := [type(one).__name__ for one in found if not isinstance(one, Image.Image)]:
                raise ValueError(
                    f"task {task}, document {doc_id}: only pictures are read, this is {other[0]}."
                )
            return [one.convert("RGB") for one in found]

        prompt = tokenize_question(text, pictures(), self.processor)
        return Asked(index, prompt, pictures, *ending(gen_kwargs, task))

    def _answer(self, batch: Sequence[Asked], handle: PruneHandle | None) -> list[Any]:
        pictures = [one.pictures() if one.prompt.sizes else [] for one in batch]
        inputs = self.answerer.shown.batch([one.prompt for one in batch], pictures, handle)
        inputs = {key: value.to(self.device) for key, value in inputs.items()}
        replies = []
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        answers = self.answerer.decode(inputs, batch[0].max_new_tokens)
        for one, n_input, tokens in zip(batch, lengths, answers, strict=True):
            text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True)
            counts = TokenCounts(input_tokens=n_input, output_tokens=len(tokens))
            replies.append(GenerationResult(cut(text, one.until), counts))
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Raises NotImplementedError: the document benchmarks ask for answers, none for likelihoods."""
        raise NotImplementedError("fcot_vl answers questions; tasks of likelihoods are not supported.")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises NotImplementedError: none of the document benchmarks has several rounds."""
        raise NotImplementedError(
            "fcot_vl answers single questions; tasks of several rounds are not supported."
        )


def batches(asked: Sequence[Asked], batch_size: int) -> Iterator[list[Asked]]:
    """Batches of one limit of tokens and of similar length, the longest first: one too large fails at once."""
    ordered = sorted(asked, key=lambda one: (one.max_new_tokens, -one.prompt.length(), one.index))
    for _, group in groupby(ordered, key=lambda one: one.max_new_tokens):
        same = list(group)
        for first in range(0, len(same), batch_size):
            yield same[first : first + batch_size]


def ending(gen_kwargs: Mapping[str, Any], task: str) -> tuple[int, tuple[str, ...]]:
    """Where an answer ends: its most tokens, and the strings it is cut at.

    An empty line does not cut: lmms-eval puts its delimiter of few-shot examples into every task that names no end
    (`TaskConfig.__post_init__`), which would cut a worked answer after its first paragraph. Its own models leave it
    out too.

    Raises ValueError where a draw or a search is asked for.
    """
    temperature, do_sample = gen_kwargs.get("temperature"), gen_kwargs.get("do_sample")
    drawn = do_sample if temperature is None else temperature > 0 and do_sample is not False
    if drawn or (gen_kwargs.get("num_beams") or 1) > 1:
        raise ValueError(
            f"task {task} draws or searches its answers, here they are greedy: add "
            "--gen_kwargs temperature=0,do_sample=False,num_beams=1."
        )
    until = gen_kwargs.get("until") or []
    stops = [until] if isinstance(until, str) else until
    most = int(gen_kwargs.get("max_new_tokens") or MAX_NEW_TOKENS)
    return most, tuple(stop for stop in stops if stop and stop != FEWSHOT_DELIMITER)


def cut(text: str, until: Sequence[str]) -> str:
    """The text up to the first of some strings."""
    return text[: min([len(text), *(at for stop in until if (at := text.find(stop)) >= 0)])]
