"""Write a trained embedded teacher as a model folder: weights in bfloat16, configuration, tokenizer, processor.

    python tools/embedded_teacher/write_model.py work/stage2/state.safetensors OUTPUT

The state may be that of a training under way: `fcot-vl ask --model OUTPUT` shows what it reads so far.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from model import TILE, build
from safetensors import safe_open
from transformers import AutoTokenizer

from fcot_vl.models import FCoTVLProcessor
from fcot_vl.models.internvl.image_processing import PaddingImageProcessor
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.synthesize.documents.tiling import MAX_ENLARGEMENT, MOST_TILES, TOKENS_A_TILE

OF_MODEL = (
    "model.model."  # of the names in a state: the trainer's module, whose attribute `model` is the teacher
)


def export(state: Path, output: Path) -> None:
    """Write the teacher in `state`, as `read_pages.py` saves it, to the folder `output`."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_path())
    model = build(tokenizer)
    with safe_open(state, "pt") as file:
        model.load_state_dict(
            {n.removeprefix(OF_MODEL): file.get_tensor(n) for n in file.keys() if n.startswith(OF_MODEL)}  # noqa: SIM118
        )
    model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(output)
    settings = FCoTVLProcessor.from_pretrained(tiny_teacher_path()).image_processor.to_dict()
    images = PaddingImageProcessor.from_dict(
        settings
        | {
            "max_patches": MOST_TILES,
            "max_enlargement": MAX_ENLARGEMENT,
            "size": {"height": TILE, "width": TILE},
        }
    )
    FCoTVLProcessor(images, tokenizer, TOKENS_A_TILE, tokenizer.chat_template).save_pretrained(output)
    size = (output / "model.safetensors").stat().st_size
    print(
        f"{output}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {size / 1e6:.1f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="state.safetensors of stage 2")
    parser.add_argument("output", type=Path, help="folder of the model")
    args = parser.parse_args()
    export(args.state, args.output)


if __name__ == "__main__":
    main()
