"""Which visual tokens an answer looked at, laid over the page, models side by side (paper, Fig. 6).

On top of `ask`: picture, question and models in; `attention.png`, `attention.html` (one file, nothing fetched) and
`attention.json` out. A token's cells are the page's pixels behind it: a student's token covers `ratio` of the
teacher's, in a row or in a window, as its compressor takes them.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from fcot_vl.ask import answered, asked, checked
from fcot_vl.data.images import open_image
from fcot_vl.model.compressor import WINDOWED
from fcot_vl.model.compressors.windows import WINDOWS
from fcot_vl.model.inference import load_for_inference, stop_ids
from fcot_vl.model.tiny import tiny_teacher_path
from fcot_vl.stage import git_commit, hardware, now, write_json

LONGEST = 1400  # pixels of the page's longer side in the HTML
DIM = 0.22  # brightness where nothing looked


@dataclass(frozen=True)
class Looked:
    """What one model answered and where it looked.

    Attributes:
        pieces: the answer, token by token.
        maps: `[tokens, rows, columns]`, share of that answer token's attention to the page in each cell (mean over
            heads and layers); sums to 1 less what the thumbnail got.
        on_page: `[tokens]`, share of all attention that visual tokens got, thumbnail included.
    """

    model: str
    compress_ratio: int
    visual_tokens: int
    answer: str
    pieces: list[str]
    maps: NDArray[np.float32]
    on_page: NDArray[np.float32]


def visualize(
    image_path: Path, question: str, output: Path, models: Sequence[str] = (), max_new_tokens: int = 64
) -> list[Looked]:
    """Answer a question with each model and draw where the answers' tokens attended.

    Args:
        models: folders or hub ids of InternVL teachers and students; the embedded teacher by default.
        max_new_tokens: most tokens of an answer.

    Raises:
        ImageError: the picture cannot be used.
        ValueError: no question, or a model of another family or compressor, whose tokens have no place on the page.
    """
    question = checked(question)
    page = open_image(image_path)
    found = []
    for name in models or ["embedded"]:
        print(f"visualize: {name}", flush=True)
        model, processor = load_for_inference(tiny_teacher_path() if name == "embedded" else name)
        found.append(look(name, model, processor, page, question, max_new_tokens))
    output.mkdir(parents=True, exist_ok=True)
    record = {"question": question, "commit": git_commit(), "hardware": hardware(), "date": now()}
    described = [
        {
            "model": one.model,
            "compress_ratio": one.compress_ratio,
            "visual_tokens": one.visual_tokens,
            "answer": one.answer,
            "pieces": one.pieces,
            "on_page": [round(float(share), 4) for share in one.on_page],
        }
        for one in found
    ]
    write_json(output / "attention.json", {**record, "models": described})
    draw(page, question, found, record, output / "attention.png")
    html = page_html(page, question, found)
    (output / "attention.html").write_text(html, encoding="utf-8")
    for one in found:
        print(f"{one.model} ({one.visual_tokens} visual tokens): {one.answer}")
    print(f"visualize: {output / 'attention.png'}, {output / 'attention.html'}")
    return found


def look(name: str, model: Any, processor: Any, page: Image.Image, question: str, limit: int) -> Looked:
    """One model's answer, and the attention of each of its tokens."""
    config = model.config
    ratio = int(getattr(config, "compress_ratio", 1))
    if config.model_type not in ("internvl", "fcot_vl"):
        raise ValueError(
            f"{name}: a {config.model_type} model; only InternVL's tokens can be laid over the page"
        )
    if ratio > 1 and config.compressor == "qformer":
        raise ValueError(
            f"{name}: tokens of the compressor qformer have no place on the page; all other compressors' do"
        )
    window = WINDOWS[ratio] if ratio > 1 and config.compressor in WINDOWED else None
    inputs = asked(question, page, model, processor)
    answer = answered(model, processor, inputs, limit)
    while answer and answer[-1] in stop_ids(model, processor.tokenizer):
        answer.pop()
    if not answer:
        raise ValueError(f"{name}: answered nothing to {question!r}")
    ids = torch.cat([inputs["input_ids"], inputs["input_ids"].new_tensor([answer])], dim=1)
    length = inputs["input_ids"].shape[1]
    rows = slice(length - 1, length + len(answer) - 1)  # each predicts a token of the answer
    with torch.inference_mode(), attention_of(model, rows) as sums:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"])
    seen = torch.stack(sums).mean(0)  # [answer tokens, keys]
    visual = seen[:, ids[0].cpu() == processor.image_token_id]
    on_page = visual.sum(1)
    grids = cells(visual / on_page[:, None], page.size, processor, ratio, window)
    return Looked(
        name,
        ratio,
        visual.shape[1],
        processor.tokenizer.decode(answer, skip_special_tokens=True).strip(),
        [processor.tokenizer.decode([token]) for token in answer],
        grids,
        on_page.numpy(),
    )


@contextmanager
def attention_of(model: Any, rows: slice) -> Iterator[list[Tensor]]:
    """Collect `[queries, keys]` of every decoder layer in a forward pass: mean over heads, for the queries `rows`.

    The decoder computes its attention step by step ("eager") meanwhile, since fused kernels give no weights; a layer's
    weights are let go before the next one's are made.
    """
    decoder = model.model.language_model
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")
    sums: list[Tensor] = []

    def keep(_: Any, __: Any, output: tuple[Tensor, Tensor]) -> None:
        sums.append(output[1][0, :, rows].float().mean(0).cpu())

    hooks = [layer.self_attn.register_forward_hook(keep) for layer in decoder.layers]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()
        decoder.set_attn_implementation(before)


def cells(
    shares: Tensor, size: tuple[int, int], processor: Any, ratio: int, window: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Shares of visual tokens `[answers, tokens]` as `[answers, rows, columns]` over the page, without the thumbnail.

    Tiles stand row by row, the thumbnail last; a tile's tokens stand row by row. Each is spread over the `ratio` cells
    behind it: a run of a row, or a window of rows and columns.
    """
    reader = processor.image_processor
    tile = (reader.size["height"], reader.size["width"])
    columns, rows = get_optimal_tiled_canvas((size[1], size[0]), tile, reader.min_patches, reader.max_patches)
    per_tile = processor.image_seq_length
    side = math.isqrt(per_tile * ratio)
    tiles = shares.reshape(shares.shape[0], -1, per_tile)[:, : rows * columns] / ratio
    if window is None:
        spread = tiles.repeat_interleave(ratio, dim=2)
    else:
        high, wide = window
        in_rows = tiles.unflatten(2, (side // high, side // wide))
        spread = in_rows.repeat_interleave(high, dim=2).repeat_interleave(wide, dim=3)
    grid = spread.reshape(-1, rows, columns, side, side).permute(0, 1, 3, 2, 4)
    return grid.reshape(-1, rows * side, columns * side).numpy()


def dimmed(page: Image.Image, grid: NDArray[np.float32]) -> Image.Image:
    """The page, gray and dark where little was looked at."""
    strength = np.sqrt(grid / max(float(grid.max()), 1e-12))  # the square root lets small shares be seen
    mask = Image.fromarray((255 * strength).astype(np.uint8)).resize(page.size, Image.Resampling.BICUBIC)
    gray = page.convert("L").convert("RGB").point(lambda value: int(value * DIM + 40))
    return Image.composite(page, gray, mask)


def draw(
    page: Image.Image, question: str, found: Sequence[Looked], record: dict[str, Any], path: Path
) -> None:
    """A panel a model: the mean over its answer's tokens."""
    width = 5.2
    height = width * page.height / page.width
    figure = Figure(figsize=(width * len(found), height + 1.05))
    for at, one in enumerate(found, 1):
        axes = figure.add_subplot(1, len(found), at)
        axes.imshow(dimmed(page, one.maps.mean(0)))
        axes.axis("off")
        answer = one.answer if len(one.answer) <= 60 else one.answer[:57] + "..."
        kind = f"student {one.compress_ratio}x" if one.compress_ratio > 1 else "teacher"
        name = Path(one.model).name[:32]
        axes.set_title(
            f"{name}, {kind}, {one.visual_tokens} visual tokens, {one.on_page.mean():.0%} of attention\n{answer!r}",
            fontsize=9,
            parse_math=False,
        )
    text = (
        f"{', '.join(one.model for one in found)}; attention of the answer's tokens, "
        "mean over heads, layers and tokens; "
        f"commit {(record['commit'] or 'unknown')[:8]}; {record['hardware']}; {record['date'][:10]}"
    )
    figure.text(0.01, 0.01, text, fontsize=6, color="#6b7480", wrap=True, parse_math=False)
    figure.suptitle(question, fontsize=11, parse_math=False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=150, facecolor="white")


def page_html(page: Image.Image, question: str, found: Sequence[Looked]) -> str:
    """The same as one file for a browser, token by token."""
    small = page.copy()
    small.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    models = []
    for one in found:
        peak = one.maps.max(axis=(1, 2), keepdims=True)
        quantised = np.round(255 * np.sqrt(one.maps / np.maximum(peak, 1e-12))).astype(np.uint8)
        models.append(
            {
                "title": f"{one.model}: compress ratio {one.compress_ratio}, {one.visual_tokens} visual tokens",
                "pieces": one.pieces,
                "rows": one.maps.shape[1],
                "columns": one.maps.shape[2],
                "maps": base64.b64encode(quantised.tobytes()).decode("ascii"),
            }
        )
    content = {
        "question": question,
        "page": base64.b64encode(buffer.getvalue()).decode("ascii"),
        "models": models,
    }
    # "<" cannot end the script it stands in
    data = json.dumps(content).replace("<", "\\u003c")
    template = resources.files("fcot_vl").joinpath("visualize.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data)
