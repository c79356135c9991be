"""Backend for models behind a server with the OpenAI protocol: vLLM, SGLang and others.

No answer is lost. A reply is passed on in the thread in which it arrives. If the endpoint fails permanently, the
requests in flight are still awaited.
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

from fcot_vl.common.errors import one_line
from fcot_vl.common.text import clean_text
from fcot_vl.data.chat_format import with_image_parts
from fcot_vl.instruct.backends.local import Decoding, KnownReplies, OnReply, Reply, Request, error_reply

WAITS = (
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    8.0,
)  # seconds before each retry, each shortened by up to a quarter
MAX_WAIT = 60.0  # maximum seconds that a server may request in Retry-After
MALFORMED = 2  # maximum retries after an unreadable reply, because such replies may have been paid for
TEMPORARY = {408, 409, 425, 429}  # temporary errors; all statuses from 500 are temporary as well
SAMPLE_ERRORS = {400, 413, 422}  # errors that concern one sample only
PNG_BYTES = 4_000_000  # an image larger than this as PNG is sent as JPEG of quality 95


class EndpointBackend:
    """Model behind an OpenAI-compatible endpoint, with several requests in flight.

    The key is read only from the environment variable `OPENAI_API_KEY`. A request is sent again if the server was too
    busy (429, 5xx), if it did not reach the server, or if its reply broke off. The waits grow, or they are those that
    the server asks for. Each sampled answer is one request with a `seed`. Servers that do not support it sample with
    their own randomness.

    Args:
        endpoint: Address such as `http://127.0.0.1:8000/v1`. The images of the data are sent there.
        model: Name of the model at the endpoint.
        decoding: Decoding settings.
        requests: Maximum number of requests in flight.
        timeout: Seconds without a byte from the server after which a request counts as lost.

    Raises:
        ValueError: If the address is invalid or the `openai` package is missing.
    """

    def __init__(
        self, endpoint: str, model: str, decoding: Decoding, requests: int, timeout: float = 600.0
    ) -> None:
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"{endpoint}: not an endpoint; give a URL such as http://127.0.0.1:8000/v1")
        try:
            from openai import OpenAI
        except ImportError:
            raise ValueError(
                "an endpoint needs the openai package: pip install 'fcot-vl[endpoint]'"
            ) from None
        self.endpoint, self.model, self.decoding = endpoint, model, decoding
        self.requests, self.timeout = requests, timeout
        key = os.environ.get("OPENAI_API_KEY") or "none"  # local servers do not need a key
        self._client = OpenAI(base_url=endpoint, api_key=key, max_retries=0, timeout=timeout)
        self._stop = threading.Event()

    def identity(self) -> dict[str, str]:
        """Return the model name without the address: the same model may be served elsewhere when a run is resumed."""
        return {"teacher": f"{self.model} behind an endpoint"}

    def answer(self, requests: Sequence[Request], known: KnownReplies, on_reply: OnReply) -> None:
        """Send all unknown conversations to the endpoint.

        Raises:
            ValueError: If the endpoint refuses or cannot be reached after the retries.
        """

        def one(at: int) -> None:
            if not self._stop.is_set():
                on_reply(at, self._send(requests[at]))

        self._stop.clear()
        with ThreadPoolExecutor(self.requests) as pool:
            waiting = [
                pool.submit(one, at) for at, request in enumerate(requests) if request.key not in known
            ]
            try:
                for future in as_completed(waiting):
                    future.result()
            except BaseException:
                # Requests in flight may be paid for, so they are awaited, but not sent again.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _send(self, request: Request) -> Reply:
        try:
            messages = _with_data_urls(request.messages, request.load())
        except Exception as error:  # decoders may raise nearly any exception on damaged bytes
            return error_reply(error)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.decoding.max_new_tokens,
            "temperature": self.decoding.temperature,
        }
        if self.decoding.temperature > 0:
            body["seed"] = self.decoding.seed_of(request.key)
        malformed, waits = 0, iter(WAITS)
        while isinstance(outcome := self._send_once(body), _Failed):
            malformed += outcome.malformed
            wait = next(waits, None)
            if outcome.malformed and (wait is None or malformed > MALFORMED):
                return Reply(kind="malformed reply", reason=outcome.message)
            if wait is None or self._stop.wait(max(outcome.wait, wait * random.uniform(0.75, 1.0))):
                raise ValueError(f"{self.endpoint}: {outcome.message}; rerun the same command to resume")
        return outcome

    def _send_once(self, body: dict[str, Any]) -> Reply | _Failed:
        """Send a request once.

        Raises:
            ValueError: If the error would affect every other request too.
        """
        import openai

        try:
            return _reply(self._client.chat.completions.create(**body))
        except openai.APIStatusError as error:
            status, message = error.status_code, one_line(error)
            if status in SAMPLE_ERRORS:
                return Reply(kind="refused by the endpoint", reason=message)
            if status in TEMPORARY or status >= 500:
                return _Failed(f"{status}, {message}", _retry_after(error.response.headers))
            raise ValueError(f"{self.endpoint}: {status}, {message}") from None
        except openai.APITimeoutError:
            return _Failed(f"no answer within {self.timeout:g} seconds (--timeout)")
        except openai.APIConnectionError as error:
            return _Failed(f"not reached ({one_line(error.__cause__ or error)})")
        except (
            openai.APIError,
            ValueError,
            TypeError,
            AttributeError,
            LookupError,
            RecursionError,
        ) as error:  # unusual JSON
            return _Failed(one_line(error), malformed=True)


class _Failed:
    """Failed request that may be sent again.

    Attributes:
        wait: Seconds that the server asks to wait.
        malformed: True if a reply arrived but cannot be read.
    """

    def __init__(self, message: str, wait: float = 0.0, malformed: bool = False) -> None:
        self.message, self.wait, self.malformed = message, wait, malformed


def _retry_after(headers: Any) -> float:
    """Return the seconds of `retry-after-ms` or `Retry-After`, at most `MAX_WAIT`.

    A date there gives 0, so that our own waits apply.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, min(float(headers[name]) * unit, MAX_WAIT))
        except (KeyError, ValueError):
            continue
    return 0.0


def _reply(made: Any) -> Reply:
    """Read a completion. Servers differ in the fields that they omit.

    Raises:
        ValueError: If it has no answer.
    """
    choices = getattr(made, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    text = getattr(getattr(first, "message", None), "content", None)
    if not isinstance(text, str):
        raise ValueError(f"no answer in {str(made)[:80]!r}")
    usage = getattr(made, "usage", None)
    counts = [getattr(usage, name, None) for name in ("completion_tokens", "prompt_tokens")]
    used, before = (count if isinstance(count, int) else None for count in counts)
    return Reply(
        clean_text(text).strip(), used, str(getattr(first, "finish_reason", None)), prompt_tokens=before
    )


def _with_data_urls(messages: Sequence[dict[str, str]], images: Sequence[Image.Image]) -> Any:
    if not images:
        return [dict(message) for message in messages]
    sent = with_image_parts(messages, len(images))
    urls = iter([_data_url(image) for image in images])
    for message in sent:
        parts = message["content"]
        if len(parts) == 1 and parts[0]["type"] == "text":
            message["content"] = parts[0]["text"]
            continue
        for part in parts:
            if part["type"] == "image":
                part |= {"type": "image_url", "image_url": {"url": next(urls)}}
    return sent


def _data_url(image: Image.Image) -> str:
    buffer, kind = io.BytesIO(), "png"
    image.save(buffer, "PNG", compress_level=1)
    if buffer.tell() > PNG_BYTES:
        buffer, kind = io.BytesIO(), "jpeg"
        image.convert("RGB").save(buffer, "JPEG", quality=95)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
