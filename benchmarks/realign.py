"""Time and peak memory of one re-alignment step: the shared backbone against a naive implementation.

    python benchmarks/realign.py [--sizes embedded vocabulary packs] [--rounds 3] [--steps 3] [--output FILE]
    python benchmarks/realign.py --together [--rounds 3] [--steps 3] [--output FILE]

Shared is what `fcot-vl realign` does: one backbone, one ViT pass, loss in chunks on answer positions. Naive is two
whole models, a ViT pass in each, full logits at every position, and torch's own KL and cross-entropy. Both get the same
weights and the same batch, and must give the same loss to 1e-5. Every measurement is a process of its own (its peak
memory is that of one way alone, interpreter and libraries included) and the two ways take turns.

Sizes: `embedded` is the embedded teacher's, a batch of 16 pages of unequal length. `vocabulary` is a narrow model with
the vocabulary of InternVL2-2B (92,553) on one sequence of 4,096 tokens: 5 tiles (1,280 visual tokens), 16 tokens of
question and 2,800 of answer, as in the transcription of a dense page (68% of the tokens are answer). Fewer answer
tokens would favour the shared implementation, which projects only those. `packs` is the same model on four pages of 1
to 3 tiles: one pack of 4,056 tokens for the shared way, a padded batch for the naive one.

`balanced` has the proportions of InternVL2-2B (per pack the ViT's arithmetic is a third of the decoder's, the head's on
all tokens an eighth) and a pack of two pages of 6 and 7 tiles, as InternVL cuts scans with its budget of 12: 82% of the
tokens are visual.

`--together` trains students of ratios 2, 4 and 8 on `balanced` in one run, against a run for each, all the shared way.

The floor is the shared way's matrix products alone at the rate of a plain 1024³ product on the same machine.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATIO = 2
TOGETHER = (2, 4, 8)


@dataclass(frozen=True)
class Size:
    """Shape of one model and its batch."""

    tile: int
    vision_width: int
    vision_layers: int
    width: int
    feed_forward: int
    layers: int
    vocabulary: int
    tiles: tuple[int, ...]  # per page
    answers: tuple[int, ...]  # answer tokens per page
    question: int = 16
    learning_rate: float = 1e-3
    packed: bool = False  # the shared way lays the pages into one row

    @property
    def tokens_per_tile(self) -> int:
        return (self.tile // 28) ** 2


SIZES = {
    "embedded": Size(224, 128, 4, 256, 512, 4, 106, (1, 2, 3, 4) * 4, tuple(range(150, 630, 30))),
    "vocabulary": Size(448, 128, 2, 192, 576, 4, 92_553, (5,), (2_800,)),
    "balanced": Size(448, 192, 3, 256, 1024, 8, 4_096, (6, 7), (300, 400), packed=True),
    "packs": Size(448, 128, 2, 192, 576, 4, 92_553, (1, 2, 1, 3), (400, 300, 500, 1_000), packed=True),
}


def measure(way: str, size: Size, steps: int) -> dict[str, Any]:
    """Run one implementation here; return seconds of each step after the first, peak memory, first loss, FLOPs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    if way == "naive":
        step, parameters = naive_step(size)
    else:  # "shared", or the ratios of its students
        step, parameters = shared_step(size, [RATIO] if way == "shared" else [int(r) for r in way.split(",")])
    optimizer = torch.optim.AdamW(parameters, lr=size.learning_rate)
    seconds, losses = [], []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = step()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with FlopCounterMode(display=False) as counter:
        step().backward()
    return {
        "seconds": seconds[1:],
        "losses": losses,
        "peak_bytes": peak,
        "flops": counter.get_total_flops(),
        "flops_per_second": matrix_product_rate(),
        "threads": torch.get_num_threads(),
    }


def matrix_product_rate() -> float:
    """Return the FLOPs per second of a 1024³ float32 product, the best of ten."""
    import torch

    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best


def teacher_and_batch(
    size: Size, ratios: Sequence[int] = (RATIO,), packed: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Return a random teacher at ratio 1 and one batch: sequences of teacher and students, and the pixels."""
    import torch
    from transformers import InternVLVisionConfig, Qwen2Config

    from fcot_vl.data.collator import pack, pad
    from fcot_vl.models import FCoTVLConfig, FCoTVLForConditionalGeneration

    vision = InternVLVisionConfig(
        hidden_size=size.vision_width,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.vision_width // 64,
        intermediate_size=4 * size.vision_width,
        image_size=size.tile,
        patch_size=14,
        initializer_range=0.07,
    )
    text = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 64,
        num_key_value_heads=size.width // 64,
        initializer_range=0.07,
        tie_word_embeddings=False,
    )
    context = 6
    config = FCoTVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=context,
        compress_ratio=1,
        tie_word_embeddings=False,
    )
    teacher = FCoTVLForConditionalGeneration(config)
    torch.nn.init.normal_(teacher.lm_head.weight, std=0.07)

    generator = torch.Generator().manual_seed(1)
    texts = [
        torch.randint(7, size.vocabulary, (size.question + answer,), generator=generator)
        for answer in size.answers
    ]

    def sequences(tokens_per_tile: int) -> dict[str, torch.Tensor]:
        pairs = []
        for tiles, text_ids in zip(size.tiles, texts, strict=True):
            ids = torch.cat([torch.full((tiles * tokens_per_tile,), context), text_ids])
            labels = ids.clone()
            labels[: tiles * tokens_per_tile + size.question] = -100
            pairs.append((ids, labels))
        return pack(pairs) if packed else pad(pairs, pad_token_id=0)

    pixels = torch.randn(sum(size.tiles), 3, size.tile, size.tile, generator=generator)
    batch = {
        "teacher": sequences(size.tokens_per_tile),
        "students": {ratio: sequences(size.tokens_per_tile // ratio) for ratio in ratios},
        "pixel_values": pixels,
    }
    return teacher, batch


def shared_step(size: Size, ratios: Sequence[int]) -> tuple[Callable[[], Any], Any]:
    from fcot_vl.models import SharedBackbone
    from fcot_vl.train.losses import realign_loss

    teacher, batch = teacher_and_batch(size, ratios, size.packed)
    backbone = SharedBackbone(teacher, ratios)

    def step() -> Any:
        output = backbone(**batch)
        losses = [
            realign_loss(output.teacher_hidden, hidden, backbone.lm_head_weight, output.labels).loss
            for hidden in output.student_hidden.values()
        ]
        return sum(losses)

    return step, list(backbone.adaptors.parameters())


def naive_step(size: Size) -> tuple[Callable[[], Any], Any]:
    import torch
    from torch.nn import functional as F

    from fcot_vl.models import FCoTVLConfig, FCoTVLForConditionalGeneration

    teacher, batch = teacher_and_batch(size)
    student = FCoTVLForConditionalGeneration(FCoTVLConfig.from_teacher(teacher.config, RATIO))
    student.load_state_dict(teacher.state_dict(), strict=False)
    adaptor = student.model.multi_modal_projector
    adaptor.compressor.reset_parameters()
    teacher.requires_grad_(False).eval()
    student.requires_grad_(False).eval()
    adaptor.requires_grad_(True)
    inputs, student_inputs = batch["teacher"], batch["students"][RATIO]

    def answer_logits(model: Any, sequences: dict[str, Any]) -> Any:
        ids, mask = sequences["input_ids"], sequences["attention_mask"]
        logits = model(
            input_ids=ids, attention_mask=mask, pixel_values=batch["pixel_values"], use_cache=False
        ).logits
        return logits[:, :-1][sequences["labels"][:, 1:] != -100]

    def step() -> Any:
        with torch.no_grad():
            teacher_logits = answer_logits(teacher, inputs)
        logits = answer_logits(student, student_inputs)
        targets = inputs["labels"][:, 1:]
        kl = F.kl_div(
            F.log_softmax(logits, dim=-1),
            F.log_softmax(teacher_logits, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
        return kl + F.cross_entropy(logits, targets[targets != -100])

    return step, list(adaptor.parameters())


def in_a_process(way: str, name: str, steps: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", way, "--sizes", name, "--steps", str(steps)]
    here = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        raise SystemExit(f"{way} at {name} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def compare(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """Run both implementations in turn, print a table and return its figures."""
    runs: dict[str, list[dict[str, Any]]] = {"naive": [], "shared": []}
    for round_ in range(rounds):
        for way, done in runs.items():
            print(f"{name}: round {round_ + 1} of {rounds}, {way}", file=sys.stderr, flush=True)
            done.append(in_a_process(way, name, steps))
    for naive, shared in zip(runs["naive"][0]["losses"], runs["shared"][0]["losses"], strict=True):
        assert abs(naive - shared) < 1e-5, f"losses differ: naive {naive}, shared {shared}"
    size = SIZES[name]
    figures: dict[str, Any] = {
        "tokens": sum(
            t * size.tokens_per_tile + size.question + a
            for t, a in zip(size.tiles, size.answers, strict=True)
        ),
        "answer_tokens": sum(size.answers),
        "loss_difference": abs(runs["naive"][0]["losses"][0] - runs["shared"][0]["losses"][0]),
    }
    for way, done in runs.items():
        seconds = [s for run in done for s in run["seconds"]]
        figures[way] = {
            "seconds": statistics.median(seconds),
            "seconds_range": [min(seconds), max(seconds)],
            "peak_mib": statistics.median(run["peak_bytes"] for run in done) / 2**20,
            "gflops": done[0]["flops"] / 1e9,
        }
    rate = max(run["flops_per_second"] for done in runs.values() for run in done)
    figures["floor_seconds"] = runs["shared"][0]["flops"] / rate
    figures["gflops_per_second"] = rate / 1e9
    figures["threads"] = runs["shared"][0]["threads"]
    figures["time_ratio"] = figures["shared"]["seconds"] / figures["naive"]["seconds"]
    figures["memory_ratio"] = figures["shared"]["peak_mib"] / figures["naive"]["peak_mib"]
    print_table(name, figures)
    return figures


def compare_together(rounds: int, steps: int) -> dict[str, Any]:
    """Compare three students in one run with three runs; the runs take turns."""
    together = ",".join(map(str, TOGETHER))
    ways = [together, *map(str, TOGETHER)]
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for round_ in range(rounds):
        for way in ways:
            print(f"together: round {round_ + 1} of {rounds}, ratios {way}", file=sys.stderr, flush=True)
            runs[way].append(in_a_process(way, "balanced", steps))
    alone = sum(runs[way][0]["losses"][0] for way in ways[1:])
    assert abs(runs[together][0]["losses"][0] - alone) < 1e-4, "the losses differ"
    seconds = {
        way: statistics.median(s for run in done for s in run["seconds"]) for way, done in runs.items()
    }
    gflops = {way: done[0]["flops"] / 1e9 for way, done in runs.items()}
    figures = {
        "ratios": list(TOGETHER),
        "seconds": seconds,
        "peak_mib": {
            way: statistics.median(run["peak_bytes"] for run in done) / 2**20 for way, done in runs.items()
        },
        "gflops": gflops,
        "time_ratio": seconds[together] / sum(seconds[way] for way in ways[1:]),
        "flops_ratio": gflops[together] / sum(gflops[way] for way in ways[1:]),
        "threads": runs[together][0]["threads"],
    }
    print(f"\n{'ratios':8}{'s/step':>9}{'peak MiB':>10}{'GFLOP':>8}")
    for way in ways:
        print(f"{way:8}{seconds[way]:9.3f}{figures['peak_mib'][way]:10.0f}{gflops[way]:8.0f}")
    print(
        f"together over one after the other: {figures['time_ratio']:.2f} of the time, "
        f"{figures['flops_ratio']:.2f} of the operations",
        flush=True,
    )
    return figures


def print_table(name: str, figures: dict[str, Any]) -> None:
    print(
        f"\n{name}: {figures['tokens']:,} tokens of the teacher, {figures['answer_tokens']:,} of them answer, "
        f"ratio {RATIO}, {figures['threads']} threads; losses differ by {figures['loss_difference']:.1e}"
    )
    print(f"{'':8}{'s/step':>9}{'range':>18}{'peak MiB':>10}{'GFLOP':>8}")
    for way in ("naive", "shared"):
        row = figures[way]
        low, high = row["seconds_range"]
        spread = f"{low:.3f} to {high:.3f}"
        print(f"{way:8}{row['seconds']:9.3f}{spread:>18}{row['peak_mib']:10.0f}{row['gflops']:8.0f}")
    print(f"{'ratio':8}{figures['time_ratio']:9.2f}{'':18}{figures['memory_ratio']:10.2f}")
    print(f"floor {figures['floor_seconds']:.3f} s at {figures['gflops_per_second']:.0f} GFLOP/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    parser.add_argument(
        "--together", action="store_true", help="three students in one run against three runs"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, SIZES[arguments.sizes[0]], arguments.steps)))
        return
    from fcot_vl.common.files import write_json
    from fcot_vl.common.provenance import provenance, versions

    result = {
        "benchmark": "realign",
        **(
            {"together": compare_together(arguments.rounds, arguments.steps)}
            if arguments.together
            else {"sizes": {n: compare(n, arguments.rounds, arguments.steps) for n in arguments.sizes}}
        ),
        **provenance(),
        "versions": versions(),
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
