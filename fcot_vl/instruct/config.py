"""Settings shared by `label`, `rewrite` and `cot`: the answering model, its parallelism and its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcot_vl.instruct.backends.endpoint import EndpointTeacher
from fcot_vl.instruct.backends.local import Decoding, LocalModel, Teacher


@dataclass(kw_only=True)
class AskingConfig:
    """Settings of every verb that asks a model. Only `max_new_tokens` and `seed` belong to the settings of a run.

    Attributes:
        endpoint, model: OpenAI-compatible server and name of a model there, instead of a local model.
        max_new_tokens: Maximum number of tokens of an answer. An answer that is cut off there is not used.
        batch_size: Maximum number of conversations that a local model decodes together.
        requests: Maximum number of requests in flight at an endpoint.
        timeout: Seconds without a byte after which a request counts as lost and is sent again.
        price_in, price_out: Prices per million prompt and completion tokens. If given, the cost is in the figures of
            the run.
        max_skipped: Maximum share of unusable samples before the run stops.
        seed: Seed of all random draws.

    Raises:
        ValueError: If settings contradict each other.
    """

    endpoint: str | None = None
    model: str | None = None
    max_new_tokens: int = 1024
    batch_size: int = 16
    requests: int = 8
    timeout: float = 600.0
    price_in: float | None = None
    price_out: float | None = None
    max_skipped: float = 0.1
    seed: int = 0

    def check(self, local: str | None, flag: str) -> None:
        """Check that the settings do not contradict each other.

        Args:
            local: Value of the flag for a local model.
            flag: Name of that flag, for error messages.

        Raises:
            ValueError: If settings contradict each other.
        """
        if (self.endpoint is None) != (self.model is None):
            raise ValueError("--endpoint and --model, the model's name there, go together")
        if self.endpoint is not None and local is not None:
            raise ValueError(f"give either {flag}, loaded here, or --endpoint")
        if min(self.max_new_tokens, self.batch_size, self.requests) < 1:
            raise ValueError("--max-new-tokens, --batch-size and --requests must be at least 1")
        if not self.timeout > 0:
            raise ValueError(f"--timeout is in seconds and above 0, got {self.timeout:g}")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("--price-in and --price-out, of a million tokens, go together")
        if (
            self.price_in is not None
            and self.price_out is not None
            and min(self.price_in, self.price_out) < 0
        ):
            raise ValueError("--price-in and --price-out cannot be below 0")

    def answering(self, local: type[LocalModel], path: str, temperature: float = 0.0) -> Teacher:
        """Return the answering teacher: the endpoint if one is given, otherwise the model at `path`."""
        decoding = Decoding(self.max_new_tokens, temperature, self.seed)
        if self.endpoint is not None and self.model is not None:
            return EndpointTeacher(self.endpoint, self.model, decoding, self.requests, self.timeout)
        return local(path, decoding, self.batch_size)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """Return `{"cost": ...}` for the given numbers of tokens, or an empty dict if no price was given."""
        if self.price_in is None or self.price_out is None:
            return {}
        cost = prompt_tokens * self.price_in + completion_tokens * self.price_out
        return {"cost": round(cost / 1e6, 6)}
