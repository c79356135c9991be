"""Record what mergekit makes of small random checkpoints, for `tests/unit/merge/test_merge_folder.py` to compare with.

    python -m venv other && other/bin/pip install mergekit
    other/bin/python tools/record_mergekit.py

mergekit (LGPL-3.0) is no dependency and none of its code is here; it is run once, in an environment of its own, and its
results are kept in `tests/data/mergekit`. One file a dtype: tensors of the base (`base/`), of three checkpoints (`1/`,
`2/`, `3/`), and of what came out (`linear/`, `task_arithmetic/`, `ties/`), all in float32. TIES of bfloat16
checkpoints is left out: many of their differences are equal, and at the threshold mergekit drops some, we none.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "mergekit"
WEIGHTS = [0.5, 0.3, 0.9]  # do not sum to 1: what linear divides by must show
SCALE, DENSITY = 0.5, 0.3
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 24,
    "tie_word_embeddings": False,
}


def random_weights(seed: int, like: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A one-layer Llama's tensors, or a step of a fifth away from those of `like`."""
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (24, 16),
        f"{layer}.self_attn.q_proj.weight": (16, 16),
        f"{layer}.self_attn.k_proj.weight": (8, 16),
        f"{layer}.self_attn.v_proj.weight": (8, 16),
        f"{layer}.self_attn.o_proj.weight": (16, 16),
        f"{layer}.mlp.gate_proj.weight": (32, 16),
        f"{layer}.mlp.up_proj.weight": (32, 16),
        f"{layer}.mlp.down_proj.weight": (16, 32),
        f"{layer}.input_layernorm.weight": (16,),
        f"{layer}.post_attention_layernorm.weight": (16,),
        "model.norm.weight": (16,),
        "lm_head.weight": (24, 16),
    }
    draw = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return found if like is None else {name: like[name] + 0.2 * found[name] for name in found}


def run(settings: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    from mergekit.config import MergeConfiguration  # type: ignore[import-not-found]
    from mergekit.merge import run_merge  # type: ignore[import-not-found]
    from mergekit.options import MergeOptions  # type: ignore[import-not-found]

    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(settings), str(folder), options)
    merged: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        merged |= load_file(path)
    return merged


def record(dtype: torch.dtype, temporary: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    base = random_weights(0)
    models = {"base": base, **{str(i): random_weights(i, base) for i in (1, 2, 3)}}
    models = {m: {k: v.to(dtype) for k, v in weights.items()} for m, weights in models.items()}
    for model, weights in models.items():
        (temporary / name / model).mkdir(parents=True)
        save_file(weights, temporary / name / model / "model.safetensors", {"format": "pt"})
        config = json.dumps(LLAMA | {"dtype": name})
        (temporary / name / model / "config.json").write_text(config)
    checkpoints = [str(temporary / name / m) for m in ("1", "2", "3")]
    weighted: list[dict[str, Any]] = [
        {"model": path, "parameters": {"weight": weight, "density": DENSITY}}
        for path, weight in zip(checkpoints, WEIGHTS, strict=True)
    ]
    common = {
        "models": weighted,
        "dtype": "float32",
        "out_dtype": "float32",
    }  # not rounded: a tie would hide 1e-6
    with_base: dict[str, Any] = {
        **common,
        "base_model": str(temporary / name / "base"),
        "parameters": {"lambda": SCALE},
    }
    methods: dict[str, dict[str, Any]] = {
        "linear": {
            **common,
            "merge_method": "linear",
            "models": [{**m, "parameters": {"weight": m["parameters"]["weight"]}} for m in weighted],
        },
        "task_arithmetic": {**with_base, "merge_method": "task_arithmetic"},
    }
    if dtype == torch.float32:
        methods["ties"] = {**with_base, "merge_method": "ties"}
    for method, settings in methods.items():
        models[method] = run(settings, temporary / name / f"out-{method}")
    tensors = {f"{m}/{k}": v.contiguous() for m, weights in models.items() for k, v in weights.items()}
    metadata = {"mergekit": importlib.metadata.version("mergekit"), "torch": torch.__version__}
    DATA.mkdir(parents=True, exist_ok=True)
    save_file(tensors, DATA / f"{name}.safetensors", metadata)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for dtype in (torch.float32, torch.bfloat16):
            record(dtype, Path(temporary))
    print({path.name: path.stat().st_size for path in DATA.iterdir()})


if __name__ == "__main__":
    main()
