"""Time and peak memory of `fcot-vl convert` on random checkpoints of published sizes, against copying the same bytes.

    python benchmarks/convert.py FOLDER [--sizes 2B 8B] [--keep]

Writes InternVL2-2B or 8B (configuration as published, random bfloat16 weights, original layout: one file, or shards of
5 GB) into FOLDER, converts it in a process of its own, and compares three tensors bit for bit. The bound: peak memory
at most the largest shard + 1 GB. The floor: `cp` of the same bytes, taken right after. The last line is JSON.
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

from fcot_vl.convert.architecture import internvl_config

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
VIT_LAYER = re.compile(r"vision_tower\.encoder\.layer\.(\d+)\.")
BACK = {
    "embeddings.cls_token": "embeddings.class_embedding",
    "embeddings.patch_embeddings.projection": "embeddings.patch_embedding",
    "embeddings.position_embeddings": "embeddings.position_embedding",
    "attention.projection_layer": "attn.proj",
    "attention.q_proj": "attn.qkv",
    "lambda_": "ls",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "embed_tokens": "tok_embeddings",
    "self_attn.q_proj": "attention.wqkv",
    "self_attn.o_proj": "attention.wo",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "layer_norm": "0",
    "linear_1": "1",
    "linear_2": "3",
}


def original_config(size: str) -> dict[str, Any]:
    """`config.json` of the published checkpoint, as far as it decides shapes."""
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
    """Names and shapes in the original layout, from the target's."""
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(internvl_config(config, IMAGE_TOKEN))
    found = {}
    for name, tensor in model.state_dict().items():
        if re.search(r"\.[kv]_proj\.", name):
            continue  # part of the fused one
        shape = list(tensor.shape)
        if name.startswith("model.vision_tower."):
            name = VIT_LAYER.sub(r"vision_model.encoder.layers.\1.", name.removeprefix("model."))
            name = name.replace("vision_tower.", "vision_model.")
            shape[0] *= 3 if "q_proj" in name else 1
        elif name.startswith("model.multi_modal_projector."):
            name = name.replace("model.multi_modal_projector", "mlp1")
        elif name == "lm_head.weight":
            name = "language_model.output.weight"
        else:
            name = name.replace("model.language_model.", "language_model.model.")
            if "q_proj" in name:
                heads = config["llm_config"]["num_attention_heads"]
                shape[0] = shape[0] // heads * (heads + 2 * config["llm_config"]["num_key_value_heads"])
        for target, original in BACK.items():
            name = name.replace(target, original)
        found[name] = shape
    return found


def write_original(size: str, folder: Path) -> int:
    """Write the checkpoint; returns the bytes of its largest file."""
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
    """A renamed tensor, a cut one of the ViT and a cut one of the language model, bit for bit."""
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
                if name in file.keys():  # noqa: SIM118 - a safetensors file is no dict
                    tensor: torch.Tensor = file.get_tensor(name)
                    return tensor
        raise KeyError(name)


def measure(size: str, folder: Path) -> dict[str, Any]:
    source, output = folder / f"{size}-original", folder / f"{size}-converted"
    largest = write_original(size, source)
    command = f"from fcot_vl.convert.write import convert; convert({str(source)!r}, {str(output)!r})"
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
    parser.add_argument("--keep", action="store_true", help="keep the random checkpoints")
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
