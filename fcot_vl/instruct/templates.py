"""Prompt templates by task: the package's own in `prompts/*.yaml`, a person's over them, and examples of a tone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from fcot_vl.message import one_line
from fcot_vl.stage import hash_file

PLACEHOLDERS = ("question", "answer", "task", "examples")
PROMPTS = Path(__file__).parent / "prompts"
DRAWN = 3  # examples in a prompt
LONGEST = 600  # characters of an example's answer: longer ones are not drawn
_BRACES = re.compile(r"\{([A-Za-z_]+)\}")


class Templates:
    """The templates of a verb.

    Args:
        verb: `rewrite` or `cot`.
        own: a YAML file whose keys go before the package's.
        tasks: gives the tasks of the data, read only where `own` names a task that the package does not know.

    Attributes:
        by_task: a template, or None where a task's answers are left as they are.

    Raises:
        ValueError: a file that is no mapping of tasks to texts, an unknown placeholder, a task that no record has.
    """

    def __init__(
        self, verb: str, own: Path | None = None, tasks: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self.by_task = _read(PROMPTS / f"{verb}.yaml")
        if own is not None:
            mine = _read(own)
            strange = mine.keys() - self.by_task.keys()
            if strange:
                _refuse_strange(own, strange, self.by_task.keys(), tasks())
            self.by_task |= mine

    def fill(self, task: str, **values: str) -> str | None:
        """The prompt for a record of a task, None where it is to be left as it is.

        Only the template's own placeholders are filled: braces in `values` do no harm.
        """
        template = self.by_task.get(task, self.by_task["default"])
        if template is None:
            return None
        return _BRACES.sub(lambda found: {"task": task, **values}[found[1]], template)

    def fingerprint(self) -> dict[str, str | None]:
        """What belongs to the settings of a run: the templates themselves."""
        return dict(sorted(self.by_task.items()))


class Style:
    """Examples of the teacher's tone, drawn for each question by the seed.

    Args:
        path: JSON lines with `question` and `answer`, such as `label` writes; other lines are passed over.

    Raises:
        ValueError: a file that cannot be read, or holds no answer of at most 600 characters.
    """

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path, self.seed = path, seed
        self.examples: list[tuple[str, str]] = []
        if path is None:
            return
        try:
            rows: list[Any] = [
                json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line
            ]
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read as JSON lines ({one_line(error)})") from None
        for row in rows:
            found = row if isinstance(row, dict) else {}
            question, answer = str(found.get("question") or ""), str(found.get("answer") or "")
            if question.strip() and answer.strip() and len(answer) <= LONGEST:
                self.examples.append((question, answer))
        if not self.examples:
            raise ValueError(
                f"{path}: no line with a question and an answer of at most {LONGEST} characters; "
                "give the label-*.jsonl that `fcot-vl label` writes"
            )

    def draw(self, key: str) -> str:
        """Examples for the question named `key`, as a part of a prompt; nothing where there are none."""
        if not self.examples:
            return ""
        drawn = random.Random(f"{self.seed}/{key}").sample(self.examples, min(DRAWN, len(self.examples)))
        shown = "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in drawn)
        return f"Answers in the tone to take:\n\n{shown}\n\nNow the one in hand.\n\n"

    def fingerprint(self) -> str | None:
        return None if self.path is None else hash_file(self.path)


def _read(path: Path) -> dict[str, str | None]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read ({one_line(error)})") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"{path}: templates are `task: text`, or `task: null` to leave a task's answers alone"
        )
    for task, template in content.items():
        if not isinstance(task, str) or not (
            template is None or (isinstance(template, str) and template.strip())
        ):
            raise ValueError(f"{path}: {task}: a template is a text or null, got {template!r}")
        for name in _BRACES.findall(template or ""):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                raise ValueError(f"{path}: {task}: unknown placeholder {{{name}}}; known are {known}")
    return content


def _refuse_strange(own: Path, strange: set[str], known: Iterable[str], tasks: Iterable[str]) -> None:
    """A task the package does not know must be one of the data's: else it is a slip, and would do nothing."""
    left, seen = set(strange), set()
    for task in tasks:
        seen.add(task)
        left.discard(task)
        if not left:
            return
    there = ", ".join(sorted(seen)) or "none"
    raise ValueError(
        f"{own}: no record has the task {min(left)!r}; tasks of the data: {there}; packaged: {', '.join(sorted(known))}"
    )
