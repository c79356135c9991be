"""Time and peak memory of `fcot-vl convert` on random checkpoints of published sizes, against copying the same bytes.

    python benchmarks/convert.py FOLDER [--sizes 2B 8B] [--keep]

Writes InternVL2-2B or 8B (configuration as published, random bfloat16 weights, original layout: one file, or shards of
5 GB) into FOLDER, converts it in a process of its own, and compares three tensors bit for bit. Bound: peak memory of
at most the largest shard + 1 GB. Lower bound of the time: `cp` of the same bytes, measured directly afterwards. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import InternVLForConditionalGeneration

from fcot_vl.convert.config import internvl_config
from fcot_vl.convert.tensor_map import POSITIONS, RENAMED, RENAMED_INTERNLM2, fill, pattern_of, runtime_name

GB = 1e9
SHARD = 5_000_000_000
TEXT = {
    "2B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 448,
    "patch_size": 14,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
}
IMAGE_TOKEN = 92_546
KV = re.compile(r"\.[kv]_proj\.")


def original_config(size: str) -> dict[str, Any]:
    """Return the parts of the published `config.json` that decide shapes."""
    llm = {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "vocab_size": 92_553,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        **TEXT[size],
    }
    return {
        "model_type": "internvl_chat",
        "llm_config": llm,
        "vision_config": VISION,
        "force_image_size": 448,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internlm2-chat",
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "torch_dtype": "bfloat16",
    }


def original_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """Return names and shapes in the original layout, derived from the target layout."""
    target = internvl_config(config, IMAGE_TOKEN)
    text = target.text_config
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(target)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    back = [(pattern_of(runtime_name(new)), old) for old, new in (RENAMED | RENAMED_INTERNLM2).items()]
    groups = text.num_attention_heads // text.num_key_value_heads
    fused = {  # the query's name, the fused tensor's, and how many times as many rows it has
        "model.vision_tower.encoder.layer.*.attention.q_proj.@": (
            "vision_model.encoder.layers.*.attn.qkv.@",
            3,
        ),
        "model.language_model.layers.*.self_attn.q_proj.@": (
            "language_model.model.layers.*.attention.wqkv.@",
            (groups + 2) / groups,
        ),
    }
    back += [(pattern_of(new), old) for new, (old, _) in fused.items()]
    rows = dict(fused.values())
    found = {POSITIONS: shapes.pop("model.vision_tower.embeddings.position_embeddings")}
    for name, shape in shapes.items():
        if KV.search(name):
            continue  # part of the fused one
        old, match = next((old, match) for pattern, old in back if (match := pattern.fullmatch(name)))
        found[fill(old, match)] = [round(shape[0] * rows.get(old, 1)), *shape[1:]]
    return found


def write_original(size: str, folder: Path) -> int:
    """Write the checkpoint and return the bytes of its largest file."""
    folder.mkdir(parents=True)
    config = original_config(size)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": IMAGE_TOKEN}))
    shards: list[dict[str, list[int]]] = [{}]
    for name, shape in original_shapes(config).items():
        if sum(2 * math.prod(s) for s in shards[-1].values()) + 2 * math.prod(shape) > SHARD:
            shards.append({})
        shards[-1][name] = shape
    torch.manual_seed(0)
    listed: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        )
        save_file({n: torch.randn(s, dtype=torch.bfloat16) for n, s in shard.items()}, folder / file)
        listed |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return max(path.stat().st_size for path in folder.glob("*.safetensors"))


def check(source: Path, output: Path) -> None:
    """Check a renamed tensor and split tensors of the ViT and the language model, bit for bit."""
    old, new = Tensors(source), Tensors(output)
    head = "language_model.lm_head.weight"
    assert torch.equal(new[head], old["language_model.output.weight"])
    qkv = old["vision_model.encoder.layers.7.attn.qkv.weight"]
    assert torch.equal(new["vision_tower.encoder.layer.7.attention.k_proj.weight"], qkv[1024:2048])
    wqkv = old["language_model.model.layers.9.attention.wqkv.weight"]
    text = json.loads((source / "config.json").read_text())["llm_config"]
    group = text["num_attention_heads"] // text["num_key_value_heads"]
    width = text["hidden_size"] // text["num_attention_heads"]
    second = wqkv[(group + 2) * width : (group + 2) * width * 2]  # of the second key-value head
    key = new["language_model.model.layers.9.self_attn.k_proj.weight"]
    assert torch.equal(key[width : 2 * width], second[group * width : (group + 1) * width])


class Tensors:
    """Tensors of a folder by name."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.safetensors"))

    def __getitem__(self, name: str) -> torch.Tensor:
        for path in self.files:
            with safe_open(path, framework="pt") as file:
                if name in file.keys():  # noqa: SIM118 - a safetensors file is not a dict
                    tensor: torch.Tensor = file.get_tensor(name)
                    return tensor
        raise KeyError(name)


def measure(size: str, folder: Path) -> dict[str, Any]:
    source, output = folder / f"{size}-original", folder / f"{size}-converted"
    largest = write_original(size, source)
    command = f"from fcot_vl.stages.convert import convert; convert({str(source)!r}, {str(output)!r})"
    report = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    started = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", f"{command}; {report}"], check=True, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    check(source, output)
    shutil.rmtree(output)
    output.mkdir()
    started = time.monotonic()
    for path in source.glob("*.safetensors"):
        shutil.copy(path, output)
    copying = time.monotonic() - started
    shutil.rmtree(output)
    return {
        "size": size,
        "gb": round(sum(p.stat().st_size for p in source.glob("*.safetensors")) / GB, 2),
        "largest_shard_gb": round(largest / GB, 2),
        "peak_gb": round(int(ran.stdout.splitlines()[-1]) * 1024 / GB, 2),
        "bound_gb": round(largest / GB + 1, 2),
        "seconds": round(seconds, 1),
        "copying_seconds": round(copying, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", choices=list(TEXT), default=list(TEXT))
    parser.add_argument("--keep", action="store_true", help="Keep the random checkpoints.")
    args = parser.parse_args()
    found = []
    for size in args.sizes:
        found.append(measure(size, args.folder))
        print(found[-1], flush=True)
        if not args.keep:
            shutil.rmtree(args.folder / f"{size}-original")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
