"""Scores of coalitions: each coalition is merged, scored and recorded once, and found again by content.

The model of a coalition is the base plus the mean difference of its members from the base. This is the average of its
checkpoints, or the base itself for the empty coalition. (The sum of the differences would leave the region of the
checkpoints of one run.)
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fcot_vl.common.errors import CheckpointError, one_line
from fcot_vl.common.files import append_rows

FILE, LOG, SCRATCH = "coalitions.jsonl", "score.log", ".coalition"


class CoalitionScore(NamedTuple):
    """Score of one coalition, and its scores by task if the scorer reports tasks."""

    score: float
    tasks: dict[str, float]


class Coalitions:
    """Scores by coalition, stored in `coalitions.jsonl`; called with a coalition of player numbers.

    Args:
        folder: Folder of the file; also holds the model being scored, temporarily.
        base: Content hash of the base.
        members: Content hashes of the players, in order.
        scored_by: Identification of the scorer (a data hash or a command) and of everything else that affects a score.
        make: Function that writes the model of a coalition into a folder.
        score_model: Function that scores a model folder; its second argument is a folder for its own files.
        advance: Function called after every coalition that is scored, or found for the first time.
    """

    def __init__(
        self,
        folder: Path,
        base: str,
        members: Sequence[str],
        scored_by: dict[str, Any],
        make: Callable[[frozenset[int], Path], None],
        score_model: Callable[[Path, Path], CoalitionScore],
        advance: Callable[[frozenset[int]], None] = lambda _: None,
    ) -> None:
        self.folder, self.base, self.members, self.scored_by = folder, base, members, scored_by
        self.make, self.score_model, self.advance = make, score_model, advance
        self.stored = _read(folder / FILE)
        self.known: dict[frozenset[int], CoalitionScore] = {}

    def __call__(self, coalition: frozenset[int]) -> float:
        """Return the score of a coalition.

        Raises:
            CheckpointError: If the model cannot be merged or scored.
            ValueError: If the model cannot be merged or scored.
        """
        if coalition not in self.known:
            key = self._key(coalition)
            if key not in self.stored:
                self.stored[key] = self._score(coalition, key)
            self.known[coalition] = self.stored[key]
            self.advance(coalition)
        return self.known[coalition].score

    def _key(self, coalition: frozenset[int]) -> str:
        """Return a key that does not depend on the order or the location of the checkpoints."""
        content = [self.base, sorted(self.members[i] for i in coalition), self.scored_by]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _score(self, coalition: frozenset[int], key: str) -> CoalitionScore:
        scratch = self.folder / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            (scratch / "model").mkdir(parents=True)
            self.make(coalition, scratch / "model")
            scored = self.score_model(scratch / "model", scratch / "scores")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if not math.isfinite(scored.score):
            raise CheckpointError(
                f"the score of a coalition is {scored.score}, not a finite number; check --score-command"
            )
        row = {"key": key, "members": sorted(self.members[i] for i in coalition), **scored._asdict()}
        append_rows(self.folder / FILE, [row])
        return scored


def command_score(command: str, model: Path, log: Path) -> CoalitionScore:
    """Run a scoring command and return the number that it prints last.

    Args:
        command: Words of the command, with `{model}` for the folder; started without a shell. Its stderr and stdout are
            appended to `log`.

    Raises:
        CheckpointError: If the command cannot be started, fails, or does not print a number.
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
            f"--score-command ended with exit code {ran.returncode}; its output is in {log}. Earlier scores "
            "are kept; rerun the same command to resume"
        )
    try:
        return CoalitionScore(float(lines[-1]), {})
    except (IndexError, ValueError):
        said = repr(lines[-1][:80]) if lines else "nothing"
        raise CheckpointError(
            f"--score-command must print a number as its last line, it printed {said}; all of it is in {log}"
        ) from None


def _read(path: Path) -> dict[str, CoalitionScore]:
    """Read the rows of an interrupted run; an incomplete last row is dropped and removed from the file."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    try:
        rows = [json.loads(line) for line in whole.splitlines()]
        return {row["key"]: CoalitionScore(row["score"], row["tasks"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not the scores of coalitions ({one_line(error)}); delete it to score them again"
        ) from None
