"""Files that are written completely or not at all, and logs that survive a kill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, writer: str = "") -> Iterator[Path]:
    """Yield a path beside `path` for a new file or folder, which takes the place of `path` when the block ends.

    A reader sees either the old file or the complete new one, which is then on the disk. A folder is replaced in two
    steps and its files are not synced. If the block raises, `path` stays as it was and nothing remains of the new
    content. What a killed process left is overwritten.

    Args:
        writer: Name of this writer, where several may write `path` at the same time.
    """
    partial = path.with_name(f".{path.name}{writer and '.'}{writer}.partial")
    _remove(partial)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)
        else:
            partial.chmod(0o644)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# A lone surrogate is written as the JSON escape that it came from, so that no text can stop a writer.
ESCAPED = "backslashreplace"


def json_line(row: Any) -> str:
    """Return one line of JSON that can always be encoded as UTF-8."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", ESCAPED).decode("utf-8") + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write JSON, completely or not at all."""
    with (
        replacing(path, str(os.getpid())) as partial,
        partial.open("w", encoding="utf-8", errors=ESCAPED) as file,
    ):
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value per line, completely or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json_line(row) for row in rows)


def append_rows(path: Path, rows: Iterable[Any]) -> None:
    """Append one JSON value per line; they are on the disk when this function returns."""
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(json_line(row) for row in rows))
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a log with one JSON value per line; return no rows if there is no file.

    A last line that was cut off by a kill is ignored.

    Raises:
        ValueError: If any other line is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise ValueError(
                    f"{path}: line {number} is not JSON; delete the folder and run again"
                ) from None
    return rows
