"""Settings shared by `label`, `rewrite` and `cot`: the model that answers, its parallelism and its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcot_vl.instruct.backends.endpoint import EndpointBackend
from fcot_vl.instruct.backends.local import Decoding, GenerationBackend, LocalBackend


@dataclass(kw_only=True)
class BackendConfig:
    """Settings of the model that answers. Only `max_new_tokens` and `seed` belong to the settings of a run.

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
            raise ValueError(
                "--endpoint and --model (the name of the model at the endpoint) must be given together"
            )
        if self.endpoint is not None and local is not None:
            raise ValueError(
                f"{flag} (a model loaded here) and --endpoint exclude each other; give one of them"
            )
        if min(self.max_new_tokens, self.batch_size, self.requests) < 1:
            raise ValueError("--max-new-tokens, --batch-size and --requests must be at least 1")
        if not self.timeout > 0:
            raise ValueError(f"--timeout must be a number of seconds above 0, got {self.timeout:g}")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError("--price-in and --price-out (prices per million tokens) must be given together")
        if (
            self.price_in is not None
            and self.price_out is not None
            and min(self.price_in, self.price_out) < 0
        ):
            raise ValueError(
                f"--price-in and --price-out must be at least 0, got {self.price_in:g} and {self.price_out:g}"
            )

    def create_backend(
        self, local: type[LocalBackend], path: str, temperature: float = 0.0
    ) -> GenerationBackend:
        """Return the backend: the endpoint if one is given, otherwise the model at `path`."""
        decoding = Decoding(self.max_new_tokens, temperature, self.seed)
        if self.endpoint is not None and self.model is not None:
            return EndpointBackend(self.endpoint, self.model, decoding, self.requests, self.timeout)
        return local(path, decoding, self.batch_size)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """Return `{"cost": ...}` for the given numbers of tokens, or an empty dict if no price was given."""
        if self.price_in is None or self.price_out is None:
            return {}
        cost = prompt_tokens * self.price_in + completion_tokens * self.price_out
        return {"cost": round(cost / 1e6, 6)}
