"""Create the data of the ablation of worked answers (docs/results): `python tools/short_sums.py FOLDER [SAMPLES]`.

`FOLDER/short`: the first training samples of MiniDoc, with sums answered by their result alone. `FOLDER/sums`: the
sums among the first 480 samples, for `fcot-vl cot`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fcot_vl.data.dataset import Sample, write_shard
from fcot_vl.synthesize.minidoc import make_sample

PER_SHARD = 480


def short(index: int) -> Sample:
    """Return a training sample of MiniDoc; the answer of a sum is the text after "Answer: "."""
    sample = make_sample("train", index, 0)
    if sample.task == "sums":
        for message in sample.messages:
            if message["role"] == "assistant":
                message["content"] = message["content"].rpartition("Answer: ")[2]
    return sample


def main(folder: Path, samples: int) -> None:
    """Write both folders."""
    for name in ("short", "sums"):
        (folder / name).mkdir(parents=True)
    for first in range(0, samples, PER_SHARD):
        shard = [short(index) for index in range(first, min(first + PER_SHARD, samples))]
        write_shard(folder / "short" / f"short-{first // PER_SHARD:03d}.parquet", shard)
        if first == 0:
            write_shard(folder / "sums" / "sums.parquet", [one for one in shard if one.task == "sums"])
        print(f"{first + len(shard)} of {samples} samples", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3840)
