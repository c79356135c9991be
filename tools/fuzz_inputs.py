"""Odd inputs for tools/fuzz.py: things that are right, changed in their structure or in their bytes."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WATCH: Any = None  # the audit hook, disarmed while inputs are written
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    42,
    10**30,
    1e308,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "a",
    "\ud83d",
    "x" * 5000,
    "a\0b",
    "../../../etc/passwd",
    "http://127.0.0.1:9/x.png",
    "data:image/png;base64,AAAA",
    "<image>",
    "<image>\n" * 3,
    "<IMG_CONTEXT>",
    "{{ 1 }}",
    "a.png",
    "cut.png",
    "none.png",
    [],
    {},
    [[]],
    [None],
    ["a.png", "a.png"],
    {"path": "a.png"},
    {"bytes": "AA=="},
    [{"from": "human", "value": "x"}],
    "internvl",
    "llama",
    "float16",
    "/dev/zero",
    "/proc/self/mem",
]
CODE: dict[str, Any] = {  # entries that make libraries run or fetch code
    "auto_map": dict.fromkeys(
        ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor"), "code.C"
    ),
    "attn_implementation": "someone/kernel",
    "model_type": "made_up",
    "llm_config": {"model_type": "qwen2", "auto_map": {"AutoConfig": "someone/repo--code.C"}},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "tokenizer_class": "MadeUpTokenizer",
    "image_processor_type": "MadeUpImageProcessor",
    "processor_class": "MadeUpProcessor",
    "custom_generate": "someone/repo",
    "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "_name_or_path": "someone/repo",
}
JSON_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
)
RECORDS: list[Any] = [
    {
        "id": 1,
        "image": "a.png",
        "conversations": [{"from": "human", "value": "<image>\nRead."}, {"from": "gpt", "value": "t"}],
    },
    {
        "id": "b",
        "images": ["a.png", "b.png"],
        "messages": [
            {"role": "user", "content": "A: <image> B: <image>"},
            {"role": "assistant", "content": "same"},
        ],
    },
    {"image": "a.png", "question": "What?", "answers": ["x", 42]},
    {
        "messages": [
            {"role": "system", "content": "s"},
            {
                "role": "user",
                "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Read."}],
            },
            {"role": "assistant", "content": "t"},
        ]
    },
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], "height": 3},
]
PIECES = [
    "{{ message }}",
    "{{ messages }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if x %}",
    "{{ raise_exception('no') }}",
    "{{ ''.__class__ }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ messages[99] }}",
    "{{ 1 / 0 }}",
    "{{ namespace() }}",
    "{% set ns = namespace(a=1) %}",
    "{{ 'a' * 1000 }}",
    "{{ range(10) | list }}",
    "{{ x.y.z }}",
    "{%",
    "{{ tools | tojson }}",
    "{{ strftime_now('%Y') }}",
    "{{ '<IMG_CONTEXT>' }}",
    "{{ eos_token }}",
    "{% include 'x' %}",
    "{% import 'os' as os %}",
    "{{ self }}",
    "{{ messages | map(attribute='content') | join }}",
    "\ud83d",
    "{{ '%s' | format }}",
]


def changed(value: Any, random_: random.Random) -> Any:
    """Return a JSON value with one part replaced, removed, renamed, repeated or added."""
    value = json.loads(json.dumps(value))
    holders: list[Any] = [[value]]
    for holder in holders:
        holders += [
            one
            for one in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(one, dict | list)
        ]
    holder = random_.choice(holders[1:] or holders)
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    action = random_.randrange(6)
    if not keys or action == 0:
        name = random_.choice(["id", "image", "images", "picture", "video", "role", *CODE])
        odd = CODE[name] if name in CODE and random_.random() < 0.8 else random_.choice(ODD)
        if isinstance(holder, dict):
            holder[name] = odd
        else:
            holder.append(odd)
        return value
    key: Any = random_.choice(keys)
    if action == 1:
        del holder[key]
    elif action == 2 and isinstance(holder, dict):
        holder[random_.choice([str(key).upper(), f"{key}s", "", "\ud83d"])] = holder.pop(key)
    elif action == 3:
        holder[key] = random_.choice([[holder[key]], {"a": holder[key]}, str(holder[key]), [holder[key]] * 3])
    else:
        holder[key] = random_.choice(ODD)
    return value


def broken(data: bytes, random_: random.Random) -> bytes:
    """Return bytes that are cut short, or with some changed, put in, repeated or taken out."""
    if not data:
        return data
    at = random_.randrange(len(data))
    match random_.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + random_.randbytes(random_.randrange(1, 9)) + data[at:]
        case 2:
            return data[:at] + data[at + random_.randrange(1, 40) :]
        case 3:
            return data[:at] + data[max(0, at - random_.randrange(60)) :]
        case 4:
            return (
                data[:at]
                + random_.choice([b"\xff\xfe", b"\0", b"[" * 3000, b'"', b"}", b"\\ud83d"])
                + data[at + 1 :]
            )
    changed_ = bytearray(data)
    for _ in range(random_.randrange(1, 8)):
        changed_[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(changed_)


def odd_json(value: Any, random_: random.Random) -> bytes:
    """Return a JSON value, changed in its structure, and now and then in its bytes."""
    for _ in range(random_.randrange(1, 4)):
        value = changed(value, random_)
    data = json.dumps(value, ensure_ascii=random_.random() < 0.5).encode("utf-8", "surrogatepass")
    return broken(data, random_) if random_.random() < 0.25 else data


ORIGINAL = Path(__file__).resolve().parents[1] / "tests" / "data" / "internvl2-tiny-internlm2"


def prepare(kind: str, folder: Path, teacher: Path) -> None:
    """Write the files that all inputs of a kind have in common."""
    if kind == "records":
        Image.new("RGB", (30, 20), "white").save(folder / "a.png")
        Image.new("RGB", (20, 30), "white").save(folder / "b.png")
        (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:50])
    if kind == "checkpoints":
        for path in teacher.iterdir():
            if path.is_file():
                shutil.copy(path, folder / path.name)
        (folder / "original").mkdir()
        for path in ORIGINAL.glob("*.json"):
            shutil.copy(path, folder / "original" / path.name)
        (folder / "code.py").write_text("raise SystemExit('code of a stranger')\n")
        (folder / "custom_generate").mkdir()
        shutil.copy(folder / "code.py", folder / "custom_generate" / "generate.py")


def unwatched(write: Callable[[], Any]) -> None:
    """Write an input while the audit hook is disarmed."""
    WATCH.armed = False
    write()
    WATCH.armed = True


def write_records(folder: Path, random_: random.Random) -> Path:
    """Write a file of a record or two, as JSON or JSON lines."""
    records = [odd_json(random_.choice(RECORDS), random_) for _ in range(random_.randrange(1, 3))]
    lines = random_.random() < 0.5
    path = folder / ("odd.jsonl" if lines else "odd.json")
    data = b"\n".join(records) if lines else b"[" + b",".join(records) + b"]"
    if random_.random() < 0.1:
        meta = {"s": {"root": ".", "annotation": "odd.jsonl", "repeat_time": 1}}
        path, data = folder / "odd.json", odd_json(meta, random_)

    def write() -> None:
        for other in ("odd.json", "odd.jsonl"):
            (folder / other).unlink(missing_ok=True)
        path.write_bytes(data)

    unwatched(write)
    return path


def write_checkpoint(folder: Path, random_: random.Random) -> str:
    """Make one JSON file of the checkpoint odd, with the others as they are, and return its name."""
    name = random_.choice(JSON_FILES)
    whole = originals(folder)
    data = odd_json(json.loads(whole[name]), random_)

    def write() -> None:
        for other, content in whole.items():
            (folder / other).write_bytes(content)
        if name == JSON_FILES[-1]:
            (folder / name).write_bytes(data)
        else:
            (folder / JSON_FILES[-1]).unlink(missing_ok=True)
            (folder / name).write_bytes(data)

    unwatched(write)
    return name


def write_original(folder: Path, random_: random.Random) -> Path:
    """Make the configuration or the added tokens of a checkpoint in the original layout odd."""
    names = ("config.json", "added_tokens.json")
    odd = names[random_.random() < 0.2]
    contents = {name: (ORIGINAL / name).read_bytes() for name in names}
    contents[odd] = odd_json(json.loads(contents[odd]), random_)
    unwatched(lambda: [(folder / "original" / name).write_bytes(data) for name, data in contents.items()])
    return folder / "original"


@cache
def originals(folder: Path) -> dict[str, bytes]:
    """Return the JSON files of a checkpoint as they were, with an index of its weights."""
    found = {name: (folder / name).read_bytes() for name in JSON_FILES if (folder / name).exists()}
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        weights = dict.fromkeys(file.keys(), "model.safetensors")
    return found | {JSON_FILES[-1]: json.dumps({"metadata": {}, "weight_map": weights}).encode()}


def template(random_: random.Random, right: str) -> str:
    """Return an odd chat template."""
    for _ in range(random_.randrange(1, 4)):
        if random_.random() < 0.7:  # behind a tag, where most pieces are valid
            at = random_.choice([found.end() for found in re.finditer(r"[%}]}|$", right)])
            right = right[:at] + random_.choice(PIECES) + right[at:]
        else:
            right = broken(right.encode("utf-8", "surrogatepass"), random_).decode("utf-8", "replace") or " "
    return right


def conversation(random_: random.Random) -> tuple[list[dict[str, str]], list[Image.Image]]:
    """Return a conversation with up to two images."""
    question = random_.choice(["Read.", "A: <image> B: <image>", "", "<image>", "{{ x }}", "<|im_end|>"])
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "text"}]
    if random_.random() < 0.2:
        messages.insert(0, {"role": "system", "content": "s"})
    marks = question.count("<image>")
    return messages, [Image.new("RGB", (30, 20))] * (marks or random_.randrange(3))


@cache
def images() -> list[bytes]:
    """Return small images of every format and mode that is accepted."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise, "RGBA")
    found = []
    for kind, modes in {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "JPEG": ("L", "RGB", "CMYK"),
        "WEBP": ("RGB", "RGBA"),
        "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I", "F", "LAB", "I;16"),
        "GIF": ("L", "P"),
        "BMP": ("1", "L", "RGB"),
    }.items():
        for mode in modes:
            image = (
                Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
                if mode == "I;16"
                else rgba.convert("RGB")
            )
            image = rgba if mode in ("RGBA", "LA") else image
            options = {"compression": "tiff_lzw"} if kind == "TIFF" and mode in ("L", "RGB") else {}
            if mode not in ("LAB", "I;16"):
                image = image.convert(mode) if mode not in ("I", "F") else image.convert("L").convert(mode)
            exif = Image.Exif()
            exif[0x0112] = 6
            buffer = io.BytesIO()
            with_exif = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
            (Image.fromarray(noise[..., :3], "LAB") if mode == "LAB" else image).save(
                buffer, kind, **options, **with_exif
            )
            found.append(buffer.getvalue())
    frames = [rgba.convert("P"), rgba.convert("L").convert("P")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return [*found, buffer.getvalue()]


def image_bytes(random_: random.Random) -> bytes:
    """Return an image file that is damaged, or whose header lies about its size, or two files in one."""
    data = random_.choice(images())
    if data.startswith(b"\x89PNG") and random_.random() < 0.2:
        size = [random_.choice([0, 1, 31, 33, 999, 20_000, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
        header = b"IHDR" + struct.pack(">II", *size) + data[24:29]
        data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    if random_.random() < 0.05:
        return data[: random_.randrange(1, 60)] + random_.choice(images())
    for _ in range(random_.randrange(1, 4)):
        data = broken(data, random_)
    return data
