"""Refuse truncated pictures whatever Pillow's process-wide switch says.

`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` is a global of the process: any library may turn it on, and from then on Pillow
fills the missing part of a damaged file with grey instead of raising. weasyprint turns it on when it is imported.
`refuse_truncated` keeps it off while a picture is decoded, and `kept_setting` undoes what an import does to it.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import ImageFile


@dataclass
class Decoding:
    """One decoding. `held`: nothing turned the switch on before it ended, so the result can be used."""

    held: bool = True


class _Guard:
    """Counts the threads that decode: the first one sets Pillow's switch and the warnings, the last one restores both.

    A setting and resetting by each thread would not do: the second thread to enter would remember the first one's
    setting, and leave it behind when it ends last. That holds for `warnings.catch_warnings` too.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.running: list[Decoding] = []
        self.before = False
        self.quiet = warnings.catch_warnings()

    def enter(self) -> Decoding:
        with self.changed:
            if not self.running:
                self.before = ImageFile.LOAD_TRUNCATED_IMAGES
                # Our own limit on pixels says more than Pillow's warning; a damaged EXIF block only loses the rotation.
                self.quiet = warnings.catch_warnings()
                self.quiet.__enter__()
                warnings.simplefilter("ignore")
            self._look()
            decoding = Decoding()
            self.running.append(decoding)
            return decoding

    def leave(self, decoding: Decoding) -> None:
        with self.changed:
            self._look()
            self.running = [other for other in self.running if other is not decoding]
            if not self.running:
                self._restore()
                self.changed.notify_all()

    def after_fork(self) -> None:
        """Forget the parent's threads: none of them runs in this process."""
        self.changed = threading.Condition()
        if self.running:
            self.running = []
            self._restore()

    def _look(self) -> None:
        """Turn the switch off. Where another library turned it on meanwhile, no running decoding can be trusted."""
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            self.before = True
            for decoding in self.running:
                decoding.held = False

    def _restore(self) -> None:
        ImageFile.LOAD_TRUNCATED_IMAGES = self.before
        self.quiet.__exit__(None, None, None)


_GUARD = _Guard()
os.register_at_fork(after_in_child=_GUARD.after_fork)


@contextmanager
def refuse_truncated() -> Iterator[Decoding]:
    """Let Pillow raise on truncated pictures inside the block, and be silent about the rest.

    Any number of threads may be inside. Pillow's switch is restored when the last one leaves. If another library turns
    the switch on meanwhile, `held` of the yielded object is False after the block: decode again.
    """
    decoding = _GUARD.enter()
    try:
        yield decoding
    finally:
        _GUARD.leave(decoding)


@contextmanager
def kept_setting() -> Iterator[None]:
    """Restore Pillow's switch after the block, for imports that change it. Waits until no thread decodes."""
    with _GUARD.changed:
        _GUARD.changed.wait_for(lambda: not _GUARD.running)
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
