"""A teacher behind a server that speaks the OpenAI protocol: vLLM, SGLang and others.

Beside `teachers.py`. Nothing that was answered is lost: a reply is handed on in the thread it arrives in, and when
the endpoint fails for good, the requests in flight are still waited for.
"""

from __future__ import annotations

import base64
import io
import os
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from PIL import Image

from fcot_vl.instruct.teachers import Asked, Decoding, Known, Reply, Take, broken
from fcot_vl.message import one_line

WAITS = (
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    8.0,
)  # seconds before a request is sent again, each shortened by up to a quarter
MOST_WAIT = 60.0  # seconds that a server may ask for in Retry-After
MALFORMED = 2  # times a reply that cannot be read is asked for again: those may have been paid for
TEMPORARY = {408, 409, 425, 429}  # and all from 500 on
OF_THIS_RECORD = {400, 413, 422}  # what the server says about one record, not about all
PNG_BYTES = 4_000_000  # a picture larger than this as PNG is sent as JPEG of quality 95


class EndpointTeacher:
    """A model behind an OpenAI-compatible endpoint, several requests in flight.

    The key is taken from the environment, `OPENAI_API_KEY`, and from nowhere else. Requests that the server was too
    busy for (429, 5xx), that did not reach it or whose reply broke off are sent again with growing waits, or with
    those the server asks for. A draw is one request with a `seed`; servers that do not know it draw by themselves.

    Args:
        endpoint: such as `http://127.0.0.1:8000/v1`; pictures of the data are sent there.
        model: the name it goes by there.
        decoding: how answers are made.
        requests: most requests in flight.
        timeout: seconds without a byte from the server after which a request counts as lost.

    Raises:
        ValueError: no address, or the `openai` package is missing.
    """

    def __init__(
        self, endpoint: str, model: str, decoding: Decoding, requests: int, timeout: float = 600.0
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"{endpoint}: an endpoint is an address such as http://127.0.0.1:8000/v1")
        try:
            from openai import OpenAI
        except ImportError:
            raise ValueError(
                "an endpoint needs the openai package: pip install 'fcot-vl[endpoint]'"
            ) from None
        self.endpoint, self.model, self.decoding = endpoint, model, decoding
        self.requests, self.timeout = requests, timeout
        key = os.environ.get("OPENAI_API_KEY") or "none"  # local servers want none
        self._client = OpenAI(base_url=endpoint, api_key=key, max_retries=0, timeout=timeout)
        self._stop = threading.Event()

    def identity(self) -> dict[str, str]:
        """The address is left out: the same model may be served elsewhere when a run is resumed."""
        return {"teacher": f"{self.model} behind an endpoint"}

    def answer(self, asked: Sequence[Asked], known: Known, take: Take) -> None:
        """Raises ValueError when the endpoint refuses or is not reached, after the retries."""

        def one(at: int) -> None:
            if not self._stop.is_set():
                take(at, self._ask(asked[at]))

        self._stop.clear()
        with ThreadPoolExecutor(self.requests) as pool:
            waiting = [pool.submit(one, at) for at, question in enumerate(asked) if question.key not in known]
            try:
                for future in as_completed(waiting):
                    future.result()
            except BaseException:
                # Those in flight may be paid for: they are waited for, but not sent again.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _ask(self, asked: Asked) -> Reply:
        try:
            messages = _with_data_urls(asked.messages, asked.load())
        except Exception as error:  # decoders given damaged bytes raise nearly anything
            return broken(error)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.decoding.max_new_tokens,
            "temperature": self.decoding.temperature,
        }
        if self.decoding.temperature > 0:
            body["seed"] = self.decoding.seed_of(asked.key)
        malformed, waits = 0, iter(WAITS)
        while isinstance(outcome := self._once(body), _Failed):
            malformed += outcome.malformed
            wait = next(waits, None)
            if outcome.malformed and (wait is None or malformed > MALFORMED):
                return Reply(kind="malformed reply", reason=outcome.said)
            if wait is None or self._stop.wait(max(outcome.wait, wait * random.uniform(0.75, 1.0))):
                raise ValueError(f"{self.endpoint}: {outcome.said}; the same command goes on from here")
        return outcome

    def _once(self, body: dict[str, Any]) -> Reply | _Failed:
        """Send a request. Raises ValueError for what would stand in the way of every other one too."""
        import openai

        try:
            return _reply(self._client.chat.completions.create(**body))
        except openai.APIStatusError as error:
            status, said = error.status_code, one_line(error)
            if status in OF_THIS_RECORD:
                return Reply(kind="refused by the endpoint", reason=said)
            if status in TEMPORARY or status >= 500:
                return _Failed(f"{status}, {said}", _asked_wait(error.response.headers))
            raise ValueError(f"{self.endpoint}: {status}, {said}") from None
        except openai.APITimeoutError:
            return _Failed(f"no answer within {self.timeout:g} seconds (--timeout)")
        except openai.APIConnectionError as error:
            return _Failed(f"not reached ({one_line(error.__cause__ or error)})")
        except (openai.APIError, ValueError, TypeError, AttributeError, LookupError) as error:  # odd JSON
            return _Failed(one_line(error), malformed=True)


class _Failed:
    """A request that may be sent again. wait: seconds the server asks for. malformed: there was a reply, unreadable."""

    def __init__(self, said: str, wait: float = 0.0, malformed: bool = False) -> None:
        self.said, self.wait, self.malformed = said, wait, malformed


def _asked_wait(headers: Any) -> float:
    """Seconds of `retry-after-ms` or `Retry-After`, at most `MOST_WAIT`; a date there is left to our own waits."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, min(float(headers[name]) * unit, MOST_WAIT))
        except (KeyError, ValueError):
            continue
    return 0.0


def _reply(made: Any) -> Reply:
    """What a completion says; servers differ in what they leave out. Raises ValueError where it holds no answer."""
    choices = getattr(made, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    text = getattr(getattr(first, "message", None), "content", None)
    if not isinstance(text, str):
        raise ValueError(f"no answer in {str(made)[:80]!r}")
    usage = getattr(made, "usage", None)
    counts = [getattr(usage, name, None) for name in ("completion_tokens", "prompt_tokens")]
    used, before = (count if isinstance(count, int) else None for count in counts)
    text = text.encode("utf-8", "replace").decode()  # half a character, which no file could hold
    return Reply(text.strip(), used, str(getattr(first, "finish_reason", None)), prompt_tokens=before)


def _with_data_urls(messages: Sequence[dict[str, str]], images: Sequence[Image.Image]) -> Any:
    sent: list[dict[str, Any]] = [dict(message) for message in messages]
    if images:
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
