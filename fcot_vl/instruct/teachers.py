"""Who answers: what every teacher takes and gives, and models loaded here (`endpoint.py` has those behind a server).

All take conversations that end in a question and give a reply to each. What is wrong with one picture or one reply
is told in that reply; what would go wrong with every one (no memory, a wrong key) raises.
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
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList

from fcot_vl.data.collate import join_pictures, pad, tokenize_open
from fcot_vl.data.sources import kind_of, reason_of
from fcot_vl.message import one_line
from fcot_vl.model.inference import load_for_inference, stop_ids
from fcot_vl.stage import hash_files


@dataclass(frozen=True)
class Asked:
    """A conversation that ends in a question.

    Attributes:
        key: names the reply within a run, and gives a drawn answer its seed.
        messages: in turn; the pictures stand before the first question.
        load: gives the pictures. Conversations about the same pictures may share it, and then they are prepared once.
    """

    key: str
    messages: list[dict[str, str]]
    load: Callable[[], list[Image.Image]] = list


@dataclass(frozen=True)
class Reply:
    """An answer. finish: `stop` where the teacher ended it. kind, reason: why there is none."""

    text: str = ""
    tokens: int | None = None  # of the answer
    finish: str = ""
    kind: str = ""
    reason: str = ""
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Decoding:
    """How answers are made: greedy at temperature 0, else drawn by the seed and each question's key.

    max_new_tokens: most tokens of an answer.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0

    def seed_of(self, key: str) -> int:
        """The seed of one answer, 31 bits; the same for a question wherever in the data or a batch it stands."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{key}".encode()).digest()[:4], "big") >> 1


Known = Mapping[str, Reply]  # replies that are there already, by key
Take = Callable[
    [int, Reply], None
]  # (which of the conversations, its reply); called as soon as the reply is there


class Teacher(Protocol):
    """Answers conversations."""

    def identity(self) -> dict[str, str]:
        """What its answers depend on, for `stage.json`."""

    def answer(self, asked: Sequence[Asked], known: Known, take: Take) -> None:
        """Give a reply to each conversation that is not among `known`, in any order, from any thread."""


def broken(error: BaseException) -> Reply:
    """The reply where a conversation's pictures or text cannot be used."""
    return Reply(kind=kind_of(error), reason=reason_of(error))


class LocalModel:
    """What models loaded here share: left-padded batches of similar length.

    The batches are the same whether some of their replies are known or not (those are made again and not taken), so
    an interrupted run ends with the answers of one that was not.

    Args:
        path: folder or hub id.
        decoding: how answers are made.
        batch_size: most conversations decoded together.
    """

    def __init__(self, path: str, decoding: Decoding, batch_size: int) -> None:
        self.path, self.decoding, self.batch_size = path, decoding, batch_size

    def identity(self) -> dict[str, str]:
        folder = Path(self.path)
        if not folder.is_dir():
            return {"teacher": self.path}
        files = [*folder.glob("*.safetensors"), *folder.glob("config.json")]
        return {"teacher": self.path, "weights": hash_files(files)}

    def answer(self, asked: Sequence[Asked], known: Known, take: Take) -> None:
        """Raises ValueError when the model cannot be loaded or memory runs out."""
        if all(one.key in known for one in asked):
            return
        self.loaded()  # before the first record, so that a model that cannot be loaded is not that record's fault
        prompts: dict[int, Any] = {}
        for at, one in enumerate(asked):
            try:
                prompts[at] = self.prompt(one)
            except Exception as error:  # as for training: odd input raises nearly anything
                take(at, broken(error))
        order = sorted(prompts, key=lambda at: (-self.length(prompts[at]), at))
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            if all(asked[at].key in known for at in batch):
                continue
            for at, reply in self._batch({at: (asked[at], prompts[at]) for at in batch}).items():
                if asked[at].key not in known:
                    take(at, reply)

    def prompt(self, asked: Asked) -> Any:
        """A conversation tokenised up to where the answer starts. Raises whatever its pictures or text raise."""
        raise NotImplementedError

    def length(self, prompt: Any) -> int:
        """Tokens of a prompt."""
        raise NotImplementedError

    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer, loaded when first used: a resumed run may have nothing left to ask."""
        raise NotImplementedError

    def inputs(
        self, batch: dict[int, tuple[Asked, Any]], pad_id: int
    ) -> tuple[dict[str, Tensor], dict[int, Reply]]:
        """What the model takes, for those of a batch that can be asked, and replies for the others."""
        raise NotImplementedError

    def _batch(self, batch: dict[int, tuple[Asked, Any]]) -> dict[int, Reply]:
        model, tokenizer = self.loaded()
        stops = stop_ids(model, tokenizer)
        pad_id = stops[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        inputs, replies = self.inputs(batch, pad_id)
        left = [at for at in batch if at not in replies]
        if not left:
            return replies
        inputs = {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        draws = LogitsProcessorList()
        if self.decoding.temperature > 0:
            seeds = [self.decoding.seed_of(batch[at][0].key) for at in left]
            draws.append(Drawn(seeds, self.decoding.temperature, model.device))
        try:
            with torch.inference_mode():
                made = model.generate(
                    **inputs,
                    do_sample=False,  # `Drawn` makes the most likely token a drawn one
                    num_beams=1,
                    max_new_tokens=self.decoding.max_new_tokens,
                    eos_token_id=stops,
                    pad_token_id=pad_id,
                    logits_processor=draws,
                )
        except torch.OutOfMemoryError:
            raise ValueError(
                f"no memory for {len(left)} answers at once; lower --batch-size, the same command goes on"
            ) from None
        asked = inputs["attention_mask"].sum(1).tolist()
        answers = made[:, inputs["input_ids"].shape[1] :].tolist()
        for at, tokens, before in zip(left, answers, asked, strict=True):
            end = next((i for i, token in enumerate(tokens) if token in stops), None)
            text = tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
            used = len(tokens) if end is None else end + 1
            replies[at] = Reply(text, used, "length" if end is None else "stop", prompt_tokens=before)
        return replies


class Drawn(LogitsProcessor):
    """Greedy decoding made a draw from softmax(logits / temperature): the largest of logits plus Gumbel noise.

    Each answer's noise comes from a generator of its own, so a draw does not depend on what is decoded beside it
    (but for the rounding of padded sums), where `generate`'s sampling takes one stream for the whole batch.

    Args:
        seeds: one a row of the batch.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        rows = [scores.new_empty(scores.shape[-1], dtype=torch.float32) for _ in self.generators]
        for row, generator in zip(rows, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self.temperature - torch.stack(rows).log()


class LocalTeacher(LocalModel):
    """A teacher or student over pictures, through transformers."""

    _loaded: tuple[Any, Any] | None = None

    def loaded(self) -> tuple[Any, Any]:
        return self._both()[0], self._both()[1].tokenizer

    def _both(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load_for_inference(self.path)
        return self._loaded

    def prompt(self, asked: Asked) -> Any:
        return tokenize_open(asked.messages, asked.load(), self._both()[1])

    def length(self, prompt: Any) -> int:
        return int(prompt.length())

    def inputs(
        self, batch: dict[int, tuple[Asked, Any]], pad_id: int
    ) -> tuple[dict[str, Tensor], dict[int, Reply]]:
        processor = self._both()[1]
        replies: dict[int, Reply] = {}
        prepared: dict[Any, Any] = {}  # the pictures, by what loads them
        for at, (one, _) in batch.items():
            try:
                if one.load not in prepared:
                    images = one.load()
                    prepared[one.load] = processor.picture_inputs(images) if images else None
            except Exception as error:  # decoders given damaged bytes raise nearly anything
                replies[at] = broken(error)
        left = [one for at, one in batch.items() if at not in replies]
        if not left:
            return {}, replies
        inputs = pad([prompt.expand() for _, prompt in left], pad_id, side="left")
        del inputs["labels"]
        pictures = [prepared[one.load] for one, _ in left]
        inputs |= join_pictures([one for one in pictures if one]) | processor.prompt_inputs(
            inputs["input_ids"]
        )
        return inputs, replies


class LocalWriter(LocalModel):
    """A language model without eyes, through transformers; any decoder with a chat template."""

    _loaded: tuple[Any, Any] | None = None

    def loaded(self) -> tuple[Any, Any]:
        if self._loaded is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            dtype = torch.bfloat16 if device == "cuda" else torch.float32
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.path)
                model = AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype)
            except Exception as error:  # a missing file, an unknown architecture, broken weights, the network
                raise ValueError(
                    f"{self.path}: no language model can be loaded ({one_line(error)})"
                ) from None
            if not tokenizer.chat_template:
                raise ValueError(f"{self.path}: its tokenizer has no chat template; take an instruct model")
            self._loaded = model.eval().to(device), tokenizer
        return self._loaded

    def prompt(self, asked: Asked) -> Tensor:
        tokenizer = self.loaded()[1]
        text = tokenizer.apply_chat_template(asked.messages, add_generation_prompt=True, tokenize=False)
        return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])

    def length(self, prompt: Tensor) -> int:
        return len(prompt)

    def inputs(
        self, batch: dict[int, tuple[Asked, Any]], pad_id: int
    ) -> tuple[dict[str, Tensor], dict[int, Reply]]:
        inputs = pad([(prompt, prompt) for _, prompt in batch.values()], pad_id, side="left")
        del inputs["labels"]
        return inputs, {}
