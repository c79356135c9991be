"""Settings that `label`, `rewrite` and `cot` share: who answers, how many at once, at what price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcot_vl.instruct.endpoint import EndpointTeacher
from fcot_vl.instruct.teachers import Decoding, LocalModel, Teacher


@dataclass(kw_only=True)
class AskingConfig:
    """What every verb that asks a model takes. Only `max_new_tokens` and `seed` belong to the settings of a run.

    Attributes:
        endpoint, model: an OpenAI-compatible server and the name of a model there, in place of one loaded here.
        max_new_tokens: most tokens of an answer; one cut off there is not used.
        batch_size: most conversations decoded together here.
        requests: most requests in flight at an endpoint.
        timeout: seconds without a byte after which a request counts as lost and is sent again.
        price_in, price_out: of a million tokens asked and answered; given, the run's cost is in its figures.
        max_skipped: share of the records that may be unusable before the run stops.
        seed: of everything that is drawn.

    Raises:
        ValueError: settings that do not go together.
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
        """Raises ValueError for what does not go together; `local` is what the flag of a model loaded here says."""
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
        """Who answers: the endpoint where one is given, else the model at `path`."""
        decoding = Decoding(self.max_new_tokens, temperature, self.seed)
        if self.endpoint is not None and self.model is not None:
            return EndpointTeacher(self.endpoint, self.model, decoding, self.requests, self.timeout)
        return local(path, decoding, self.batch_size)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """`{"cost": ...}` of so many tokens, or nothing where no price was given."""
        if self.price_in is None or self.price_out is None:
            return {}
        cost = prompt_tokens * self.price_in + completion_tokens * self.price_out
        return {"cost": round(cost / 1e6, 6)}
