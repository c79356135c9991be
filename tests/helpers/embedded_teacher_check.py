"""Check the examples of stage 2: run by `stage/test_embedded_teacher.py` in a process of its own.

python tests/helpers/embedded_teacher_check.py PACKAGES
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools" / "embedded_teacher"))

import start
from model import WIDTH, build
from read_pages import VISION_FROM, GuidedTeacher, begin
from read_patches import MEAN, STD, Reader, write_vision
from sequences import FIRST_VISUAL, Batch, Mix
from tiles import CLASSES, IGNORED, SLOTS
from transformers import AutoTokenizer, InternVLForConditionalGeneration, PreTrainedTokenizerFast

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
    check_start(packages, tokenizer)
    print("fine")


def check_start(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that stage 2 begins with the ViT of stage 1 and with what the narrower decoder computes."""
    narrow = build(tokenizer).config
    narrow.text_config.update({"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4})
    narrow.text_config.update(
        {"num_hidden_layers": 4, "layer_types": ["full_attention"] * 4, "intermediate_size": 512}
    )
    torch.manual_seed(1)
    old = InternVLForConditionalGeneration(narrow)
    for name, parameter in old.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    old.save_pretrained(folder / "old")
    reader = Reader()
    write_vision(reader, folder / "vision.safetensors")
    start.STEPS, start.BATCH = 2, 2
    sys.argv = ["start.py", *map(str, (folder / "vision.safetensors", folder / "old", folder / "start"))]
    start.main()
    begun = begin(folder / "start", tokenizer)
    assert torch.equal(begun.patch_head.weight, reader.head.weight)
    for name, parameter in reader.tower.named_parameters():
        assert torch.equal(parameter, begun.model.model.vision_tower.get_parameter(name)), name
    visible = torch.randn(1, 9, 256)
    ids = torch.randint(10, 90, (1, 7))
    with torch.no_grad():
        both = []
        for model, width in ((old.eval(), 256), (begun.model.eval(), 320)):
            embedded = torch.cat(
                [torch.nn.functional.pad(visible, (0, width - 256)), model.get_input_embeddings()(ids)], 1
            )
            both.append(model.lm_head(model.model.language_model(inputs_embeds=embedded).last_hidden_state))
    torch.testing.assert_close(both[1], both[0], rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
