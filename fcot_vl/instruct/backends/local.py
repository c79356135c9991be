"""Interface of the backends that generate answers, and local models (`endpoint.py` has models behind a server).

Every backend takes conversations that end in a question, and gives a reply to each. A problem with one image or one
reply is reported in that reply. A problem that would affect every reply (out of memory, a wrong key) raises an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from fcot_vl.common.hashing import hash_model_folder
from fcot_vl.common.text import clean_text
from fcot_vl.data.collator import join_image_inputs, pad
from fcot_vl.data.skip_log import kind_of, reason_of
from fcot_vl.data.tokenization import tokenize_open
from fcot_vl.inference.decoding import decode_greedily, pad_id
from fcot_vl.inference.loading import load_for_inference, stop_ids
from fcot_vl.models.loading import checked


@dataclass(frozen=True)
class Request:
    """Conversation that ends in a question.

    Attributes:
        key: Name of the reply within a run. The seed of a sampled answer is derived from it.
        messages: Messages in order. The images come before the first question.
        load: Function that returns the images. Conversations about the same images may share it, and the images are
            then prepared once.
    """

    key: str
    messages: list[dict[str, str]]
    load: Callable[[], list[Image.Image]] = list


@dataclass(frozen=True)
class Reply:
    """Reply to a conversation.

    Attributes:
        text: The answer.
        tokens: Number of tokens of the answer.
        finish: Finish reason, `stop` if the model ended the answer.
        kind, reason: Category and reason if there is no answer.
        prompt_tokens: Number of tokens of the prompt.
    """

    text: str = ""
    tokens: int | None = None  # of the answer
    finish: str = ""
    kind: str = ""
    reason: str = ""
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Decoding:
    """Decoding settings: greedy at temperature 0, otherwise sampled with the seed and the key of each question.

    Attributes:
        max_new_tokens: Maximum number of tokens of an answer.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0

    def seed_of(self, key: str) -> int:
        """Return the 31-bit seed of one answer. It does not depend on the position in the data or in a batch."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{key}".encode()).digest()[:4], "big") >> 1


KnownReplies = Mapping[str, Reply]  # replies that are already known, by key
OnReply = Callable[
    [int, Reply], None
]  # (index of the conversation, its reply); called when the reply arrives


class GenerationBackend(Protocol):
    """Model, local or behind a server, that answers conversations."""

    def identity(self) -> dict[str, str]:
        """Return the properties that its answers depend on, for `stage.json`."""

    def answer(self, requests: Sequence[Request], known: KnownReplies, on_reply: OnReply) -> None:
        """Give a reply to each conversation that is not in `known`, in any order and from any thread."""


def error_reply(error: BaseException) -> Reply:
    """Return the reply for a conversation whose images or text cannot be used."""
    return Reply(kind=kind_of(error), reason=reason_of(error))


class LocalBackend:
    """Base class of local models, which decode left-padded batches of prompts of similar length.

    The batches do not depend on which replies are already known: known ones are generated again and ignored. An
    interrupted run therefore ends with the same answers as an uninterrupted one.

    Args:
        path: Folder or Hub id.
        decoding: Decoding settings.
        batch_size: Maximum number of conversations decoded together.
    """

    def __init__(self, path: str, decoding: Decoding, batch_size: int) -> None:
        self.path, self.decoding, self.batch_size = path, decoding, batch_size

    def identity(self) -> dict[str, str]:
        folder = Path(self.path)
        if not folder.is_dir():
            return {"teacher": self.path}
        return {"teacher": self.path, "weights": hash_model_folder(folder)}

    def answer(self, requests: Sequence[Request], known: KnownReplies, on_reply: OnReply) -> None:
        """Answer all unknown conversations in batches.

        Raises:
            ValueError: If the model cannot be loaded or memory runs out.
        """
        if all(one.key in known for one in requests):
            return
        self.load_model()  # first, so that a model that fails to load is not reported as an error of a sample
        prompts: dict[int, Any] = {}
        for at, one in enumerate(requests):
            try:
                prompts[at] = self.prompt(one)
            except Exception as error:  # as in training: unusual input may raise nearly anything
                on_reply(at, error_reply(error))
        order = sorted(prompts, key=lambda at: (-self.length(prompts[at]), at))
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            if all(requests[at].key in known for at in batch):
                continue
            for at, reply in self._batch({at: (requests[at], prompts[at]) for at in batch}).items():
                if requests[at].key not in known:
                    on_reply(at, reply)

    def prompt(self, request: Request) -> Any:
        """Tokenize a conversation up to the start of the answer. Errors of its images or text are raised."""
        raise NotImplementedError

    def length(self, prompt: Any) -> int:
        """Return the length of a prompt in tokens."""
        raise NotImplementedError

    def load_model(self) -> tuple[Any, Any]:
        """Return the model and its tokenizer, loaded on first use. A resumed run may have no request left."""
        raise NotImplementedError

    def inputs(
        self, batch: dict[int, tuple[Request, Any]], pad_id: int
    ) -> tuple[dict[str, Tensor], dict[int, Reply]]:
        """Return the model inputs for the usable conversations of a batch, and replies for the others."""
        raise NotImplementedError

    def _batch(self, batch: dict[int, tuple[Request, Any]]) -> dict[int, Reply]:
        model, tokenizer = self.load_model()
        stops = stop_ids(model, tokenizer)
        inputs, replies = self.inputs(batch, pad_id(model, tokenizer))
        left = [at for at in batch if at not in replies]
        if not left:
            return replies
        inputs = {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        processors = LogitsProcessorList()
        if self.decoding.temperature > 0:
            seeds = [self.decoding.seed_of(batch[at][0].key) for at in left]
            processors.append(SeededSampling(seeds, self.decoding.temperature, model.device))
        try:
            answers = decode_greedily(  # `SeededSampling` makes a sampled token the most likely one
                model, tokenizer, inputs, self.decoding.max_new_tokens, logits_processor=processors
            )
        except torch.OutOfMemoryError:
            raise ValueError(
                f"out of memory with {len(left)} answers at once; "
                "rerun the same command with a lower --batch-size to resume"
            ) from None
        prompt_lengths = inputs["attention_mask"].sum(1).tolist()
        for at, tokens, before in zip(left, answers, prompt_lengths, strict=True):
            ended = tokens[-1] in stops
            text = tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
            reason = "stop" if ended else "length"
            replies[at] = Reply(clean_text(text).strip(), len(tokens), reason, prompt_tokens=before)
        return replies


class SeededSampling(LogitsProcessor):
    """Logits processor that turns greedy decoding into sampling from softmax(logits / temperature).

    It adds Gumbel noise, so that the largest value is a sample. Each answer has its own noise generator. A sampled
    answer therefore does not depend on the other conversations of the batch (except for the rounding of padded sums).
    `generate`'s own sampling uses one stream for the whole batch.

    Args:
        seeds: One seed per row of the batch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = [scores.new_empty(scores.shape[-1], dtype=torch.float32) for _ in self.generators]
        for row, generator in zip(rows, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - torch.stack(rows).log()


class LocalVlm(LocalBackend):
    """Teacher or student with images, through transformers."""

    _loaded: tuple[Any, Any] | None = None

    def load_model(self) -> tuple[Any, Any]:
        return self._load_both()[0], self._load_both()[1].tokenizer

    def _load_both(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load_for_inference(self.path)
        return self._loaded

    def prompt(self, request: Request) -> Any:
        return tokenize_open(request.messages, request.load(), self._load_both()[1])

    def length(self, prompt: Any) -> int:
        return int(prompt.length())

    def inputs(
        self, batch: dict[int, tuple[Request, Any]], pad_id: int
    ) -> tuple[dict[str, Tensor], dict[int, Reply]]:
        processor = self._load_both()[1]
        replies: dict[int, Reply] = {}
        prepared: dict[Any, Any] = {}  # prepared images, by their `load` function
        for at, (one, _) in batch.items():
            try:
                if one.load not in prepared:
                    images = one.load()
                    prepared[one.load] = processor.image_inputs(images) if images else None
            except Exception as error:  # decoders may raise nearly any exception on damaged bytes
                replies[at] = error_reply(error)
        left = [one for at, one in batch.items() if at not in replies]
        if not left:
            return {}, replies
        inputs = pad([prompt.expand() for _, prompt in left], pad_id, side="left")
        del inputs["labels"]
        prepared_images = [prepared[one.load] for one, _ in left]
        inputs |= join_image_inputs([one for one in prepared_images if one]) | processor.prompt_inputs(
            inputs["input_ids"]
        )
        return inputs, replies


class LocalLlm(LocalBackend):
    """Text-only language model through transformers: any decoder with a chat template."""

    _loaded: tuple[Any, Any] | None = None

    def load_model(self) -> tuple[Any, Any]:
        if self._loaded is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            dtype = torch.bfloat16 if device == "cuda" else torch.float32
            with checked(self.path, "no language model can be loaded from here"):
                config = AutoConfig.from_pretrained(self.path, trust_remote_code=False)
                tokenizer = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False)
                model = AutoModelForCausalLM.from_pretrained(
                    self.path, config=config, dtype=dtype, trust_remote_code=False
                )
            if not tokenizer.chat_template:
                raise ValueError(
                    f"{self.path}: its tokenizer has no chat template; use an instruction-tuned model"
                )
            self._loaded = model.eval().to(device), tokenizer
        return self._loaded

    def prompt(self, request: Request) -> Tensor:
        tokenizer = self.load_model()[1]
        text = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])

    def length(self, prompt: Tensor) -> int:
        return len(prompt)

    def inputs(
        self, batch: dict[int, tuple[Request, Any]], pad_id: int
    ) -> tuple[dict[str, Tensor], dict[int, Reply]]:
        inputs = pad([(prompt, prompt) for _, prompt in batch.values()], pad_id, side="left")
        del inputs["labels"]
        return inputs, {}
