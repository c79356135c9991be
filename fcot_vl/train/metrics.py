"""Loss log of a training run: one row per optimizer step, kept across resumes.

`trainer.py` fills it. Reports and the last line of a stage's output read it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fcot_vl.common.files import read_rows, write_rows
from fcot_vl.train.mfu import peak_flops


class LossLog(TrainerCallback):
    """Callback that writes one row per optimizer step to `losses.jsonl`.

    A row holds `step`, `seconds` of training up to this step (over all resumes), `learning_rate`, and the means over
    the step's answer tokens that the trainer added. It also holds the speed over all processes: `tokens_per_second` of
    real tokens through the decoder, `data_wait`, the share of the time in which this process waited for pages, and
    where known `teraflops_per_second` and `mfu` (see `throughput`). If a trainer adds the losses of single tokens,
    `groups` holds each group's mean cross-entropy (`ce`) and number of answer tokens (`tokens`) in the step.

    Args:
        group_names: Tasks or sources whose losses are logged separately (see `data.groups`).
    """

    def __init__(
        self, path: Path, accelerator: Accelerator | None = None, group_names: Sequence[str] = ()
    ) -> None:
        self.path = path
        self.group_names = list(group_names)
        self._by_group: Tensor | int = 0
        self.accelerator = accelerator
        self.peak = peak_flops()
        self.last: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._answers: Tensor | int = 0
        self._tokens: Tensor | int = 0
        self._flops: float | None = 0.0
        self._waited = 0.0
        self._seconds_before = 0.0
        self._started = self._step_started = 0.0

    def add(
        self, means: dict[str, Tensor], answers: int, tokens: Tensor | int, flops: float | None = None
    ) -> None:
        """Add one batch.

        Args:
            means: Means over the batch's answer tokens.
            answers: Number of answer tokens.
            tokens: Number of real tokens in the batch's sequences.
            flops: Number of operations; None where it is unknown.
        """
        for name, mean in means.items():
            self._sums[name] = self._sums.get(name, 0) + mean.detach() * answers
        self._answers = self._answers + answers
        self._tokens = self._tokens + tokens
        self._flops = None if flops is None or self._flops is None else self._flops + flops

    def add_tokens(self, losses: Tensor, groups: Tensor) -> None:
        """Add the losses of each token of one batch.

        Args:
            losses: `[N]`, nats.
            groups: `[N]`, group number of each token.
        """
        sums = torch.zeros(2, len(self.group_names), dtype=torch.float64, device=losses.device)
        groups = groups.to(losses.device)
        sums[0].index_add_(0, groups, losses.detach().double())
        sums[1].index_add_(0, groups, torch.ones_like(losses, dtype=torch.float64))
        self._by_group = self._by_group + sums

    def waited(self, seconds: float) -> None:
        """Add time that the process spent waiting for pages."""
        self._waited += seconds

    def _over_processes(self) -> dict[str, float]:
        """Sum the step's values over the batches of all processes."""
        named = {**self._sums, "answers": self._answers, "tokens": self._tokens, "flops": self._flops or 0.0}
        sums = torch.stack([torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in named.values()])
        sums = torch.cat([sums, self._groups().flatten()])
        if self.accelerator is not None and self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums.to(self.accelerator.device), "sum")
        self._by_group = sums[len(named) :].view(2, -1)
        return dict(zip(named, sums.tolist(), strict=False))

    def _groups(self) -> Tensor:
        """Return the sum of losses and the number of tokens of each group, `[2, groups]`.

        The result is `[2, 0]` if no losses of single tokens were added.
        """
        found = self._by_group
        return found.cpu() if isinstance(found, Tensor) else torch.zeros(2, 0, dtype=torch.float64)

    def _group_means(self) -> dict[str, dict[str, float]]:
        return {
            name: {"ce": total / tokens, "tokens": int(tokens)}
            for name, total, tokens in zip(self.group_names, *self._groups().tolist(), strict=False)
            if tokens
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows written so far."""
        return read_rows(self.path)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = self._step_started = time.perf_counter()
        if not state.is_world_process_zero:
            return
        rows = [row for row in self.rows() if row["step"] <= state.global_step]
        write_rows(self.path, rows)
        self._seconds_before = rows[-1]["seconds"] if rows else 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        sums = self._over_processes()
        now = time.perf_counter()
        answers, tokens = max(sums.pop("answers"), 1), sums.pop("tokens")
        flops = sums.pop("flops")
        self.last = {name: total / answers for name, total in sums.items()} | self._speed(
            tokens, flops, max(now - self._step_started, 1e-9)
        )
        row = {
            "step": state.global_step,
            "seconds": round(self._seconds_before + now - self._started, 3),
            "learning_rate": kwargs["lr_scheduler"].get_last_lr()[-1],  # Muon's matrices come first
            **self.last,
        }
        if groups := self._group_means():
            row["groups"] = groups
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self._sums, self._answers, self._tokens, self._flops, self._waited = {}, 0, 0, 0.0, 0.0
        self._by_group = 0
        self._step_started = now

    def _speed(self, tokens: float, flops: float, seconds: float) -> dict[str, float]:
        found = {
            "tokens_per_second": round(tokens / seconds, 1),
            "data_wait": round(min(self._waited / seconds, 1.0), 4),
        }
        if flops:
            found["teraflops_per_second"] = float(f"{flops / seconds / 1e12:.4g}")
            if self.peak:
                processes = 1 if self.accelerator is None else self.accelerator.num_processes
                found["mfu"] = round(flops / seconds / (self.peak * processes), 4)
        return found


__all__ = ["LossLog"]
