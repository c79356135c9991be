"""Scores of coalitions: each merged, scored and written down once, found again by content.

A coalition's model is the base plus the mean of its members' differences from the base: the average of its checkpoints,
and the base itself where it has none. (Their sum would leave the region that the checkpoints of one run lie in.)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fcot_vl.merge.checkpoint import CheckpointError
from fcot_vl.message import one_line

FILE, LOG, SCRATCH = "coalitions.jsonl", "score.log", ".coalition"


class Scored(NamedTuple):
    """The score of one coalition, and by task where the judge knows tasks."""

    score: float
    tasks: dict[str, float]


class Coalitions:
    """Scores by coalition, kept in a folder's `coalitions.jsonl`; called with a coalition of player numbers.

    Args:
        folder: where the file is, and for a moment the model that is scored.
        base, members: content hashes, the players' in their order.
        scored_by: what identifies the judge: a data hash or a command; and whatever else decides a score.
        make: writes the model of a coalition into a folder.
        judge: scores a model folder; a second, empty folder is for what it needs to write.
        advance: called after every coalition that was scored or found for the first time.
    """

    def __init__(
        self,
        folder: Path,
        base: str,
        members: Sequence[str],
        scored_by: dict[str, Any],
        make: Callable[[frozenset[int], Path], None],
        judge: Callable[[Path, Path], Scored],
        advance: Callable[[frozenset[int]], None] = lambda _: None,
    ) -> None:
        self.folder, self.base, self.members, self.scored_by = folder, base, members, scored_by
        self.make, self.judge, self.advance = make, judge, advance
        self.kept = _read(folder / FILE)
        self.known: dict[frozenset[int], Scored] = {}

    def __call__(self, coalition: frozenset[int]) -> float:
        """Raises CheckpointError or ValueError if the model cannot be merged or scored."""
        if coalition not in self.known:
            key = self._key(coalition)
            if key not in self.kept:
                self.kept[key] = self._score(coalition, key)
            self.known[coalition] = self.kept[key]
            self.advance(coalition)
        return self.known[coalition].score

    def _key(self, coalition: frozenset[int]) -> str:
        """The same whatever the order and the place of the checkpoints."""
        content = [self.base, sorted(self.members[i] for i in coalition), self.scored_by]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _score(self, coalition: frozenset[int], key: str) -> Scored:
        scratch = self.folder / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            (scratch / "model").mkdir(parents=True)
            self.make(coalition, scratch / "model")
            scored = self.judge(scratch / "model", scratch / "scores")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not math.isfinite(scored.score):
            raise CheckpointError(f"a coalition's score is {scored.score}, which is no number to compare")
        row = {"key": key, "members": sorted(self.members[i] for i in coalition), **scored._asdict()}
        with (self.folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return scored


def command_score(command: str, model: Path, log: Path) -> Scored:
    """What a person's command prints last, as a number.

    Args:
        command: words, `{model}` among them for the folder; started without a shell. Its own errors go to `log`.

    Raises:
        CheckpointError: it cannot be started, fails, or prints something else.
    """
    words = [word.replace("{model}", str(model)) for word in shlex.split(command)]
    with log.open("a", encoding="utf-8") as errors:
        try:
            ran = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise CheckpointError(f"--score-command: {words[0]} does not start ({one_line(error)})") from None
        errors.write(ran.stdout)
    lines = [line.strip() for line in ran.stdout.splitlines() if line.strip()]
    if ran.returncode:
        raise CheckpointError(
            f"--score-command ended with exit code {ran.returncode}; what it said is in {log}. What was scored before "
            "is kept: the same command goes on from there"
        )
    try:
        return Scored(float(lines[-1]), {})
    except (IndexError, ValueError):
        said = repr(lines[-1][:80]) if lines else "nothing"
        raise CheckpointError(
            f"--score-command must print a number as its last line, it printed {said}; all of it is in {log}"
        ) from None


def _read(path: Path) -> dict[str, Scored]:
    """Rows of an interrupted run; a half-written last one is dropped, from the file too."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row["key"]: Scored(row["score"], row["tasks"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not the scores of coalitions ({one_line(error)}); delete it to score them again"
        ) from None
