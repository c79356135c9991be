"""Prompt templates by task: those of the package (`prompts/*.yaml`), those of the user, and examples of a tone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from fcot_vl.common.errors import one_line
from fcot_vl.common.hashing import hash_file
from fcot_vl.common.text import clean_text, has_surrogates
from fcot_vl.data.chat_format import IMAGE

PLACEHOLDERS = ("question", "answer", "task", "examples")
PROMPTS = Path(__file__).parent / "prompts"
DRAWN = 3  # number of examples in a prompt
LONGEST = 600  # maximum characters of the answer of an example
_BRACES = re.compile(r"\{([A-Za-z_]+)\}")


class PromptTemplates:
    """Prompt templates of a command.

    Args:
        command: `rewrite` or `cot`.
        own: YAML file whose keys override those of the package.
        tasks: Function that returns the tasks of the data. It is called only if `own` names a task that the package
            does not know.

    Attributes:
        by_task: Template of each task, or None if the answers of the task are not changed.

    Raises:
        ValueError: If a file is not a mapping of tasks to texts, a placeholder is unknown, or a task in `own` occurs
            neither in the package nor in the data.
    """

    def __init__(
        self, command: str, own: Path | None = None, tasks: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self.by_task = _read(PROMPTS / f"{command}.yaml")
        if own is not None:
            given = _read(own)
            unknown = given.keys() - self.by_task.keys()
            if unknown:
                _check_unknown_tasks(own, unknown, self.by_task.keys(), tasks())
            self.by_task |= given

    def fill(self, task: str, **values: str) -> str | None:
        """Return the prompt for a sample of a task, or None if the sample is not to be changed.

        Only the placeholders of the template itself are filled, so braces in `values` are safe.
        """
        template = self.by_task.get(task, self.by_task["default"])
        if template is None:
            return None
        return _BRACES.sub(lambda found: {"task": task, **values}[found[1]], template)

    def fingerprint(self) -> dict[str, str | None]:
        """Return the templates themselves, as a part of the settings of a run."""
        return dict(sorted(self.by_task.items()))


class StyleExamples:
    """Examples of the teacher's tone, drawn for each question by the seed.

    Args:
        path: JSON lines with `question` and `answer`, such as the output of `label`. Other lines are ignored.

    Raises:
        ValueError: If the file cannot be read or has no answer of at most 600 characters.
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
            question, answer = (
                clean_text(str(found.get(key) or "")).replace(IMAGE, "") for key in ("question", "answer")
            )
            if question.strip() and answer.strip() and len(answer) <= LONGEST:
                self.examples.append((question, answer))
        if not self.examples:
            raise ValueError(
                f"{path}: no line with a question and an answer of at most {LONGEST} characters; "
                "give the label-*.jsonl that `fcot-vl label` writes"
            )

    def draw(self, key: str) -> str:
        """Return examples for the question with this `key` as a part of a prompt; an empty string if there are none."""
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
            f"{path}: the file must map tasks to templates: `task: text`, or `task: null` to keep a task's answers"
        )
    for task, template in content.items():
        if not isinstance(task, str) or not (
            template is None or (isinstance(template, str) and template.strip())
        ):
            raise ValueError(f"{path}: {task}: a template must be a text or null, got {template!r}")
        if has_surrogates(template or ""):
            raise ValueError(f"{path}: {task}: the template is not valid Unicode; write it as UTF-8")
        for name in _BRACES.findall(template or ""):
            if name not in PLACEHOLDERS:
                known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                raise ValueError(f"{path}: {task}: unknown placeholder {{{name}}}; choose from {known}")
    return content


def _check_unknown_tasks(own: Path, unknown: set[str], known: Iterable[str], tasks: Iterable[str]) -> None:
    """Raise an error if a task that the package does not know is not a task of the data: it is probably a typo."""
    left, seen = set(unknown), set()
    for task in tasks:
        seen.add(task)
        left.discard(task)
        if not left:
            return
    there = ", ".join(sorted(seen)) or "none"
    raise ValueError(
        f"{own}: no sample has the task {min(left)!r}; tasks of the data: {there}; "
        f"tasks of the package: {', '.join(sorted(known))}"
    )
