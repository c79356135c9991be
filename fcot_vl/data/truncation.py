"""Refuse truncated images whatever Pillow's process-wide setting is.

`PIL.ImageFile.LOAD_TRUNCATED_IMAGES` is a global of the process, and any library may turn it on. Pillow then fills the
missing part of a damaged file with grey instead of raising. weasyprint turns it on when it is imported.
`refuse_truncated` keeps it off while an image is decoded. `kept_setting` restores it after an import.
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
    """State of one decoding.

    Attributes:
        held: True if nothing turned the setting on before the decoding ended, so that the result can be used.
    """

    held: bool = True


class _Guard:
    """Guard that counts the decoding threads. The first sets Pillow's setting and the warnings; the last restores both.

    Setting and resetting in each thread would fail: the second thread to enter would save the value set by the first,
    and restore that value if it ends last. The same is true for `warnings.catch_warnings`.
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
                # Our own pixel limit is more informative than Pillow's warning. A damaged EXIF block only
                # loses the rotation.
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
        """Forget the threads of the parent, because none of them runs in this process."""
        self.changed = threading.Condition()
        if self.running:
            self.running = []
            self._restore()

    def _look(self) -> None:
        """Turn the setting off. If another library turned it on meanwhile, mark all running decodings as unreliable."""
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
    """Make Pillow raise on truncated images inside the block, and silence its warnings.

    Any number of threads may be inside. Pillow's setting is restored when the last one leaves. If another library turns
    the setting on meanwhile, `held` of the yielded object is False after the block, and the image must be decoded
    again.
    """
    decoding = _GUARD.enter()
    try:
        yield decoding
    finally:
        _GUARD.leave(decoding)


@contextmanager
def kept_setting() -> Iterator[None]:
    """Restore Pillow's setting after the block, for imports that change it. Waits until no thread is decoding."""
    with _GUARD.changed:
        _GUARD.changed.wait_for(lambda: not _GUARD.running)
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before
