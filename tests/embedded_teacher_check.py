"""Check the examples of stage 2: run by `stage/test_embedded_teacher.py` in a process of its own.

python tests/embedded_teacher_check.py PACKAGES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "embedded_teacher"))

from examples import FIRST_VISUAL, Batch, Mix
from model import WIDTH, build
from read_pages import VISION_FROM, GuidedTeacher, fresh
from read_patches import MEAN, STD, Reader, write_vision
from tiles import CLASSES, IGNORED, SLOTS
from transformers import AutoTokenizer

from fcot_vl.models.tiny import tiny_teacher_path

SIDE = 16  # patches of a tile
EXAMPLES = 6


def main(packages: Path) -> None:
    """Check examples of three sources, then one step of training on them."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_path())
    mix = Mix(packages, tokenizer, seed=0)
    examples = []
    for source in ("print", "pdf", "forms"):
        copied = right = 0
        for index in range(EXAMPLES):
            example = mix.example(index, {source: 1.0})
            assert example.source == source
            n_visual = example.ids.count(tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"))
            assert n_visual == 64 * len(example.tiles) == 64 * len(example.patches)
            assert example.ids[FIRST_VISUAL - 1 : FIRST_VISUAL + 1] == tokenizer.convert_tokens_to_ids(
                ["<img>", "<IMG_CONTEXT>"]
            )
            for token, label, look in zip(example.ids, example.labels, example.look, strict=True):
                assert label in (-100, token)
                if look < 0:
                    continue
                tile, place = divmod(look, 64)
                row, column = divmod(place, SIDE // 2)
                four = [2 * row * SIDE + 2 * column + step for step in (0, 1, SIDE, SIDE + 1)]
                shown = example.patches[tile, four].ravel()
                character = ord(tokenizer.convert_ids_to_tokens(token)) - 32
                copied += 1
                right += character in shown or IGNORED in shown
            examples.append(example)
        assert copied > 5 * EXAMPLES, source
        assert right == copied, (
            f"{source}: {copied - right} of {copied} characters are not where the answer looks"
        )
    torch.manual_seed(0)
    model = build(tokenizer)
    teacher = GuidedTeacher(model, torch.nn.Linear(WIDTH, SLOTS * CLASSES))
    batch = Batch.collate(examples[:2] + examples[-1:], tokenizer.pad_token_id)
    found = teacher.losses(batch, VISION_FROM)
    assert set(found) == {"ce", "right", "look", "slot", "guide", "patches", "loss"}
    found["loss"].backward()
    for name, parameter in teacher.named_parameters():
        assert parameter.grad is None or np.isfinite(float(parameter.grad.norm())), name
    assert float(teacher.slot_head.weight.grad.norm()) > 0
    assert float(model.model.vision_tower.embeddings.position_embeddings.grad.norm()) > 0
    with torch.no_grad():
        teacher.eval()
        pixels = (batch.pixels.float() - MEAN) / STD
        expected = model(input_ids=batch.ids, pixel_values=pixels).logits
        ours = model.lm_head(teacher.read(batch, True)[1])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    reader = Reader()
    write_vision(reader, packages / "vision.safetensors")
    begun = fresh(packages / "vision.safetensors", tokenizer)
    assert torch.equal(begun.patch_head.weight, reader.head.weight)
    for name, parameter in reader.tower.named_parameters():
        assert torch.equal(parameter, begun.model.model.vision_tower.get_parameter(name)), name
    print("fine")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
