"""One of several gloo processes of a training; started by `tests/stage/test_processes.py` through torchrun."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import DistributedType, PartialState
from torch.distributed.tensor import DTensor
from training_case import post_train_config, realign_config

from fcot_vl.cli.app import leave_process_group
from fcot_vl.stages.post_train import post_train
from fcot_vl.stages.realign import realign
from fcot_vl.train.metrics import LossLog
from fcot_vl.train.trainer import StageTrainer


def allow_fsdp_on_cpu() -> None:
    """accelerate shards on accelerators only; call the CPU one, for everything after the backend is chosen."""
    inner = PartialState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        inner(self, *args, **kwargs)
        if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_XPU

    PartialState.__init__ = init


def note_pages(folder: Path) -> None:
    """Write which pages each step of this process reads, and how many parameters lie in shards."""
    inner = StageTrainer._get_grad_norm
    path = folder.with_suffix(f".{os.environ.get('RANK', '0')}.pages")

    def get_grad_norm(self: Any, model: Any, grad_norm: Any = None) -> Any:
        shards = sum(isinstance(p, DTensor) for p in model.parameters())
        row = {"step": self.state.global_step + 1, "pages": list(self.sample_ids), "shards": shards}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return inner(self, model, grad_norm)

    StageTrainer._get_grad_norm = get_grad_norm


def stop_after(step: int) -> None:
    inner = LossLog.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        inner(self, args, state, control, **kwargs)
        if state.global_step == step:
            os._exit(7)

    LossLog.on_step_end = on_step_end


def main(stage: str, folder: Path, model: str, data: str, overrides: dict[str, Any]) -> None:
    if overrides.get("fsdp"):
        allow_fsdp_on_cpu()
    if "stop_after" in overrides:
        stop_after(overrides.pop("stop_after"))
    note_pages(folder)
    if stage == "realign":
        realign(realign_config(folder, **overrides), model, data)
    else:
        post_train(post_train_config(folder, **overrides), model, data)
    leave_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # gloo's threads now and then abort a process while Python tears it down


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:5], json.loads(sys.argv[5]))
