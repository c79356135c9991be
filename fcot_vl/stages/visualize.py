"""Draw attention maps over the image: the visual tokens that an answer attended to, for several models (paper, Fig. 6).

This module builds on `ask`. It takes an image, a question and models, and writes `attention.png`, `attention.html`
(one file that loads nothing else) and `attention.json`. The cells of a token are the pixels of the page that it
represents. A student's token covers `ratio` tokens of the teacher, in a row or in a window, depending on its
compressor.
"""

from __future__ import annotations

import base64
import io
import json
import logging
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

from fcot_vl.common.console import show
from fcot_vl.common.files import write_json
from fcot_vl.common.provenance import provenance
from fcot_vl.common.stage import lock_folder
from fcot_vl.common.text import clean_text
from fcot_vl.data.images import open_image
from fcot_vl.inference.loading import load_for_inference, stop_ids
from fcot_vl.models.compressors.registry import WINDOWED
from fcot_vl.models.compressors.windows import WINDOWS
from fcot_vl.models.internvl.image_processing import PaddingImageProcessor
from fcot_vl.models.tiny import tiny_teacher_path
from fcot_vl.stages.ask import check_question, generate_answer, question_tensors

logger = logging.getLogger(__name__)

LONGEST = 1400  # pixels of the page's longer side in the HTML
DIM = 0.22  # brightness of areas without attention


@dataclass(frozen=True)
class AnswerAttention:
    """Answer of one model with its attention to the page.

    Attributes:
        pieces: Texts of the answer's tokens.
        maps: `[tokens, rows, columns]`, share of an answer token's attention to visual tokens in each cell (mean over
            heads and layers). The sum over cells is 1 minus the share of the thumbnail.
        on_page: `[tokens]`, share of all attention that goes to visual tokens, including the thumbnail.
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
) -> list[AnswerAttention]:
    """Answer a question with each model and draw the attention of the answers' tokens to the page.

    Args:
        models: Folders or hub ids of InternVL teachers and students. Default: the embedded teacher.
        max_new_tokens: Maximum number of tokens of an answer.

    Raises:
        ImageError: If the image cannot be used.
        ValueError: If the question is empty, an answer is empty, or the family or compressor of a model gives its
            tokens no position in the image.
    """
    question = check_question(question)
    page = open_image(image_path)
    with lock_folder(output):
        found = []
        for name in models or ["embedded"]:
            logger.info(f"visualize: {name}")
            model, processor = load_for_inference(tiny_teacher_path() if name == "embedded" else name)
            found.append(answer_with_attention(name, model, processor, page, question, max_new_tokens))
        record = {"question": question, **provenance()}
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
        show(f"{one.model} ({one.visual_tokens} visual tokens): {one.answer}")
    logger.info(f"visualize: {output / 'attention.png'}, {output / 'attention.html'}")
    return found


def answer_with_attention(
    name: str, model: Any, processor: Any, page: Image.Image, question: str, limit: int
) -> AnswerAttention:
    """Return the answer of one model with the attention of each of its tokens."""
    config = model.config
    ratio = int(getattr(config, "compress_ratio", 1))
    if config.model_type not in ("internvl", "fcot_vl"):
        raise ValueError(
            f"{name}: a {config.model_type} model; only the tokens of InternVL have known positions in the image"
        )
    if ratio > 1 and config.compressor == "qformer":
        raise ValueError(
            f"{name}: tokens of the compressor qformer have no position in the image; use another compressor"
        )
    window = WINDOWS[ratio] if ratio > 1 and config.compressor in WINDOWED else None
    inputs = question_tensors(question, page, model, processor)
    answer = generate_answer(model, processor, inputs, limit)
    while answer and answer[-1] in stop_ids(model, processor.tokenizer):
        answer.pop()
    if not answer:
        raise ValueError(f"{name}: the answer to {question!r} is empty")
    ids = torch.cat([inputs["input_ids"], inputs["input_ids"].new_tensor([answer])], dim=1)
    length = inputs["input_ids"].shape[1]
    rows = slice(length - 1, length + len(answer) - 1)  # each position predicts a token of the answer
    with torch.inference_mode(), attention_of(model, rows) as sums:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"])
    seen = torch.stack(sums).mean(0)  # [answer tokens, keys]
    visual = seen[:, ids[0].cpu() == processor.image_token_id]
    on_page = visual.sum(1)
    grids = cells(visual / on_page[:, None], page.size, processor, ratio, window)
    return AnswerAttention(
        name,
        ratio,
        visual.shape[1],
        clean_text(processor.tokenizer.decode(answer, skip_special_tokens=True)).strip(),
        [clean_text(processor.tokenizer.decode([token])) for token in answer],
        grids,
        on_page.numpy(),
    )


@contextmanager
def attention_of(model: Any, rows: slice) -> Iterator[list[Tensor]]:
    """Collect the attention `[queries, keys]` of every decoder layer during a forward pass.

    The attention is averaged over heads and restricted to the queries `rows`. Inside the context, the decoder uses
    eager attention, because fused kernels return no weights. The weights of a layer are released before those of the
    next layer are computed.
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
    """Convert shares of visual tokens `[answers, tokens]` to `[answers, rows, columns]` over the page.

    Tiles are ordered row by row with the thumbnail last, and the tokens of a tile row by row. The thumbnail is left
    out. Each token is spread over the `ratio` cells that it covers: part of a row, or a window of rows and columns.
    """
    reader = processor.image_processor
    tile = (reader.size["height"], reader.size["width"])
    padded = reader.padded_size(size) if isinstance(reader, PaddingImageProcessor) else size
    columns, rows = get_optimal_tiled_canvas(
        (padded[1], padded[0]), tile, reader.min_patches, reader.max_patches
    )
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
    high, wide = rows * side, columns * side
    inside = (math.ceil(high * size[1] / padded[1]), math.ceil(wide * size[0] / padded[0]))
    return grid.reshape(-1, high, wide)[:, : inside[0], : inside[1]].numpy()


def dimmed(page: Image.Image, grid: NDArray[np.float32]) -> Image.Image:
    """Return the page with areas of little attention in dark gray."""
    strength = np.sqrt(grid / max(float(grid.max()), 1e-12))  # the square root makes small shares visible
    mask = Image.fromarray((255 * strength).astype(np.uint8)).resize(page.size, Image.Resampling.BICUBIC)
    gray = page.convert("L").convert("RGB").point(lambda value: int(value * DIM + 40))
    return Image.composite(page, gray, mask)


def draw(
    page: Image.Image, question: str, found: Sequence[AnswerAttention], record: dict[str, Any], path: Path
) -> None:
    """Draw one panel per model with the mean over the tokens of its answer."""
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


def page_html(page: Image.Image, question: str, found: Sequence[AnswerAttention]) -> str:
    """Build one HTML file that shows the attention token by token."""
    small = page.copy()
    small.thumbnail((LONGEST, LONGEST))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    models = []
    for one in found:
        peak = one.maps.max(axis=(1, 2), keepdims=True)
        quantized = np.round(255 * np.sqrt(one.maps / np.maximum(peak, 1e-12))).astype(np.uint8)
        models.append(
            {
                "title": f"{one.model}: compress ratio {one.compress_ratio}, {one.visual_tokens} visual tokens",
                "pieces": one.pieces,
                "rows": one.maps.shape[1],
                "columns": one.maps.shape[2],
                "maps": base64.b64encode(quantized.tobytes()).decode("ascii"),
            }
        )
    content = {
        "question": question,
        "page": base64.b64encode(buffer.getvalue()).decode("ascii"),
        "models": models,
    }
    # escaped "<", so that the data cannot end the script element
    data = json.dumps(content).replace("<", "\\u003c")
    template = resources.files("fcot_vl.stages").joinpath("visualize.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data)
