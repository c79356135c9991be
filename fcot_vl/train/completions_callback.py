"""Periodic answers of a model about one page during training, to show its progress.

Every `reread_steps` steps, the first process lets each student answer a question about the same page. It logs the
answer and writes it to `rereads.jsonl` and to TensorBoard. The training does not depend on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from fcot_vl.common.files import append_rows
from fcot_vl.common.text import clean_text
from fcot_vl.data.dataset import Sample
from fcot_vl.data.tokenization import question_inputs

logger = logging.getLogger(__name__)

REREADS = "rereads.jsonl"
NEW_TOKENS = 64
SHOWN = 100  # maximum number of characters logged of an answer


@dataclass
class Reader:
    """Model that answers questions, with its compress ratio relative to the processor's own model."""

    model: Any
    ratio: int


class ReadAgain(TrainerCallback):
    """Callback that asks the readers the first question of a page.

    Args:
        readers: Readers by name.
        whole: Module that contains all readers. It is in evaluation mode while they answer.
        sample: Sample with the page and its question.
        processor: Processor with tokenizer, chat template and tiling.
        every: Number of steps between two readings; 0: never.
        autocast: Factory of the autocast context of the training.
        reporters: Callback handler of the trainer, among whose callbacks the TensorBoard callback is looked up.
    """

    def __init__(
        self,
        readers: Mapping[str, Reader],
        whole: Any,
        sample: Sample,
        processor: Any,
        every: int,
        autocast: Callable[[], Any],
        reporters: Any,
    ) -> None:
        self.readers = readers
        self.whole = whole
        self.sample = sample
        self.processor = processor
        self.every = every
        self.autocast = autocast
        self.reporters = reporters

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.every or state.global_step % self.every or not state.is_world_process_zero:
            return
        truth = next(m["content"] for m in self.sample.messages if m["role"] == "assistant")
        was_training = self.whole.training
        self.whole.eval()
        for name, reader in self.readers.items():
            answer = self.read(reader)
            row = {"step": state.global_step, "model": name, "page": self.sample.id}
            append_rows(Path(args.output_dir) / REREADS, [{**row, "answer": answer, "truth": truth}])
            logger.info(f"step {state.global_step}, {name} reads {self.sample.id}: {_short(answer)}")
            self._to_tensorboard(name, answer, truth, state.global_step)
        logger.info(f"  right answer: {_short(truth)}")
        self.whole.train(was_training)

    @torch.no_grad()
    def read(self, reader: Reader) -> str:
        """Return the reader's answer, decoded greedily."""
        question = self.sample.question
        inputs = question_inputs(question, self.sample.question_images, self.processor, reader.ratio)
        inputs = {name: tensor.to(reader.model.device) for name, tensor in inputs.items()}
        with self.autocast():
            tokens = reader.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return clean_text(self.processor.tokenizer.decode(answer, skip_special_tokens=True))

    def _to_tensorboard(self, name: str, answer: str, truth: str, step: int) -> None:
        for callback in self.reporters.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(f"reads/{name}", f"{answer}\n\n---\n\n{truth}", step)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"


__all__ = ["ReadAgain", "Reader"]
