"""Who answers: a model loaded here, or a server that speaks the OpenAI protocol (vLLM, SGLang and others).

Both take conversations that end in a question and give a reply to each. What is wrong with one picture or one reply
is told in that reply; what would go wrong with every one (no memory, a wrong key) raises.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from fcot_vl.data.collate import Prompt, join_pictures, pad, tokenize_open
from fcot_vl.data.sources import kind_of, reason_of
from fcot_vl.message import one_line
from fcot_vl.model.inference import load_for_inference, stop_ids
from fcot_vl.stage import hash_files

RETRIES = 6  # of a request, with waits that double from half a second to eight
PNG_BYTES = 4_000_000  # a picture larger than this as PNG is sent as JPEG of quality 95


@dataclass(frozen=True)
class Asked:
    """A conversation that ends in a question. load: gives its pictures, which stand before the first question."""

    messages: list[dict[str, str]]
    load: Callable[[], list[Image.Image]]


@dataclass(frozen=True)
class Reply:
    """An answer. finish: `stop` where the teacher ended it. kind, reason: why there is none."""

    text: str = ""
    tokens: int | None = None
    finish: str = ""
    kind: str = ""
    reason: str = ""


class Teacher(Protocol):
    """Answers conversations, in their order; calls `advance` with how many are answered."""

    def identity(self) -> dict[str, str]:
        """What its answers depend on, for `stage.json`."""

    def answer(self, asked: Sequence[Asked], advance: Callable[[int], None]) -> list[Reply]: ...


def broken(error: BaseException) -> Reply:
    """The reply where a conversation's pictures or text cannot be used."""
    return Reply(kind=kind_of(error), reason=reason_of(error))


class LocalTeacher:
    """A model through transformers, greedy, in left-padded batches of similar length.

    Args:
        path: folder or hub id of a teacher or student.
        max_new_tokens: most tokens of an answer.
        batch_size: most conversations decoded together.
    """

    def __init__(self, path: str, max_new_tokens: int, batch_size: int) -> None:
        self.path, self.max_new_tokens, self.batch_size = path, max_new_tokens, batch_size
        self._loaded: tuple[Any, Any] | None = None

    def identity(self) -> dict[str, str]:
        folder = Path(self.path)
        if not folder.is_dir():
            return {"teacher": self.path}
        files = [*folder.glob("*.safetensors"), *folder.glob("config.json")]
        return {"teacher": self.path, "weights": hash_files(files)}

    def answer(self, asked: Sequence[Asked], advance: Callable[[int], None]) -> list[Reply]:
        """Raises ValueError when the model cannot be loaded or memory runs out."""
        if self._loaded is None:  # a resumed run may have nothing left to ask
            self._loaded = load_for_inference(self.path)
        processor = self._loaded[1]
        replies: dict[int, Reply] = {}
        prompts: dict[int, Prompt] = {}
        for at, one in enumerate(asked):
            try:
                prompts[at] = tokenize_open(one.messages, one.load(), processor)
            except Exception as error:  # as for training: odd input raises nearly anything
                replies[at] = broken(error)
        advance(len(replies))
        order = sorted(prompts, key=lambda at: (-prompts[at].length(), at))
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            replies |= self._batch({at: (asked[at], prompts[at]) for at in batch})
            advance(len(batch))
        return [replies[at] for at in range(len(asked))]

    def _batch(self, batch: dict[int, tuple[Asked, Prompt]]) -> dict[int, Reply]:
        assert self._loaded is not None
        model, processor = self._loaded
        replies: dict[int, Reply] = {}
        found = []
        for at, (one, _) in batch.items():
            try:
                images = one.load()
                found.append(processor.picture_inputs(images) if images else None)
            except Exception as error:  # decoders given damaged bytes raise nearly anything
                replies[at] = broken(error)
        left = [at for at in batch if at not in replies]
        if not left:
            return replies
        stops = stop_ids(model, processor.tokenizer)
        pad_id = processor.tokenizer.pad_token_id
        pad_id = stops[0] if pad_id is None else pad_id
        inputs = pad([batch[at][1].expand() for at in left], pad_id, side="left")
        del inputs["labels"]
        inputs |= join_pictures([one for one in found if one]) | processor.prompt_inputs(inputs["input_ids"])
        inputs = {
            key: value.to(model.device, model.dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        try:
            with torch.inference_mode():
                made = model.generate(
                    **inputs,
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=self.max_new_tokens,
                    eos_token_id=stops,
                    pad_token_id=pad_id,
                )
        except torch.OutOfMemoryError:
            raise ValueError(
                f"no memory for {len(left)} pages at once; lower --batch-size, the same command goes on"
            ) from None
        for at, tokens in zip(left, made[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            end = next((i for i, token in enumerate(tokens) if token in stops), None)
            text = processor.tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
            used = len(tokens) if end is None else end + 1
            replies[at] = Reply(text, used, "length" if end is None else "stop")
        return replies


class EndpointTeacher:
    """A model behind an OpenAI-compatible endpoint, several requests in flight.

    The key is taken from the environment, `OPENAI_API_KEY`, and from nowhere else. Requests that the server was too
    busy for (429, 5xx) or that did not reach it are sent again with growing waits.

    Args:
        endpoint: such as `http://127.0.0.1:8000/v1`; pictures of the data are sent there.
        model: the name it goes by there.
        max_new_tokens: most tokens of an answer.
        requests: most requests in flight.

    Raises:
        ValueError: no address, or the `openai` package is missing.
    """

    def __init__(self, endpoint: str, model: str, max_new_tokens: int, requests: int) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"{endpoint}: an endpoint is an address such as http://127.0.0.1:8000/v1")
        try:
            from openai import OpenAI
        except ImportError:
            raise ValueError("an endpoint needs the openai package: pip install 'fcot-vl[label]'") from None
        self.endpoint, self.model = endpoint, model
        self.max_new_tokens, self.requests = max_new_tokens, requests
        key = os.environ.get("OPENAI_API_KEY") or "none"  # local servers want none
        self._client = OpenAI(base_url=endpoint, api_key=key, max_retries=RETRIES)

    def identity(self) -> dict[str, str]:
        """The address is left out: the same model may be served elsewhere when a run is resumed."""
        return {"teacher": f"{self.model} behind an endpoint"}

    def answer(self, asked: Sequence[Asked], advance: Callable[[int], None]) -> list[Reply]:
        """Raises ValueError when the endpoint refuses or is not reached, after the retries."""
        with ThreadPoolExecutor(self.requests) as pool:
            waiting = [pool.submit(self._ask, one) for one in asked]
            replies = []
            try:
                for future in waiting:
                    replies.append(future.result())
                    advance(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return replies

    def _ask(self, asked: Asked) -> Reply:
        import openai

        try:
            messages = _with_data_urls(asked.messages, asked.load())
        except Exception as error:  # decoders given damaged bytes raise nearly anything
            return broken(error)
        try:
            made = self._client.chat.completions.create(
                model=self.model, messages=messages, max_tokens=self.max_new_tokens, temperature=0
            )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return Reply(kind="refused by the endpoint", reason=one_line(error))
        except openai.APIStatusError as error:
            raise ValueError(f"{self.endpoint}: {error.status_code}, {one_line(error)}") from None
        except openai.APIConnectionError as error:
            cause = one_line(error.__cause__ or error)
            raise ValueError(
                f"{self.endpoint}: not reached ({cause}); the same command goes on from here"
            ) from None
        except (openai.APIError, ValueError) as error:
            return Reply(kind="malformed reply", reason=one_line(error))
        return _reply(made)


def _reply(made: Any) -> Reply:
    """What a completion says; servers differ in what they leave out."""
    choices = getattr(made, "choices", None)
    text = getattr(getattr(choices[0], "message", None), "content", None) if choices else None
    if not choices or not isinstance(text, str):
        return Reply(kind="malformed reply", reason=f"no answer in {str(made)[:80]!r}")
    tokens = getattr(getattr(made, "usage", None), "completion_tokens", None)
    return Reply(text.strip(), tokens, str(choices[0].finish_reason))


def _with_data_urls(messages: Sequence[dict[str, str]], images: Sequence[Image.Image]) -> Any:
    sent: list[dict[str, Any]] = [dict(message) for message in messages]
    first = next(message for message in sent if message["role"] == "user")
    pictures = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in images]
    first["content"] = [*pictures, {"type": "text", "text": first["content"]}]
    return sent


def _data_url(image: Image.Image) -> str:
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG", compress_level=1)
    if buffer.tell() > PNG_BYTES:
        buffer, kind = io.BytesIO(), "jpeg"
        image.convert("RGB").save(buffer, "JPEG", quality=95)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
