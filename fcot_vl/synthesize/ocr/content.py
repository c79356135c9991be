"""Content of the pages: Faker's text in several languages, or a folder of the user's own texts.

A `Content` belongs to one sample and only uses the random numbers of that sample. A sample is therefore the same in
every process and in every order. Faker's instances are slow to build. There is one per process and locale, and it is
seeded again for every sample.
"""

from __future__ import annotations

import datetime
import random
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fcot_vl.synthesize.ocr.fonts import Language

if TYPE_CHECKING:
    from faker import Faker

INSTALL = "pip install 'fcot-vl[synthesize]'"
LOCALES: dict[Language, tuple[str, ...]] = {
    "latin": ("en_US",) * 8 + ("de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "cs_CZ"),
    "zh": ("zh_CN",),
}
_CHUNK = 8192  # bytes read from a corpus file at a time
_HEAD = 65536  # bytes used to detect the language of a corpus file
_SENTENCE = re.compile(r"[^.!?。！？]+[.!?。！？]+[”\"')）]*")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LONGEST = 300
_FIRST_DAY = datetime.date(1950, 1, 1).toordinal()
_LAST_DAY = datetime.date(2030, 12, 31).toordinal()


@dataclass(frozen=True)
class Sources:
    """Content of the user: a folder of texts and a folder of HTML files. Default: Faker."""

    corpus: Path | None = None
    html: Path | None = None


class Corpus:
    """Texts of a folder (``*.txt`` and ``*.md``, UTF-8), by language. Files are read in parts, never as a whole.

    Raises:
        ValueError: If the folder has no text.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Language, list[tuple[Path, int]]] = {"latin": [], "zh": []}
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".txt", ".md") and path.is_file() and path.stat().st_size:
                with path.open("rb") as file:
                    head = file.read(_HEAD).decode("utf-8", "ignore")
                letters = sum(c.isalpha() for c in head)
                if letters:
                    chinese = len(_HAN.findall(head)) > letters / 2
                    self.files["zh" if chinese else "latin"].append((path, path.stat().st_size))
        if not any(self.files.values()):
            raise ValueError(
                f"{folder}: no text here; --corpus takes a folder of *.txt or *.md files in UTF-8"
            )

    def sentences(self, rng: random.Random, language: Language) -> list[str]:
        """Return consecutive sentences from a random position, at least one.

        Raises:
            ValueError: If the folder has no text of that language.
        """
        files = self.files[language]
        if not files:
            name = "Chinese" if language == "zh" else "Latin"
            raise ValueError(
                f"{self.folder}: no {name} text in this --corpus folder; leave out the kinds that need it"
            )
        path, size = rng.choices(files, weights=[size for _, size in files])[0]
        with path.open("rb") as file:
            start = rng.randrange(max(1, size - _CHUNK // 2))
            file.seek(start)
            text = " ".join(file.read(_CHUNK).decode("utf-8", "ignore").split())
        found = [s.strip() for s in _SENTENCE.findall(text)]
        if start and len(found) > 1:
            found = found[1:]  # the first sentence started before the position
        return [s for s in (cut(s) for s in found or [text]) if s] or ["."]


def cut(text: str, most: int = _LONGEST) -> str:
    """Cut `text` after the last word (in Chinese, character) that ends within `most` characters."""
    if len(text) <= most:
        return text
    head = text[:most]
    return head.rpartition(" ")[0] or head


@lru_cache(maxsize=4)
def read_corpus(folder: Path) -> Corpus:
    """Read the corpus of a folder. The folder is scanned once per process."""
    return Corpus(folder)


@lru_cache
def _faker(locale: str) -> Faker:
    try:
        from faker import Faker
    except ModuleNotFoundError:
        raise ValueError(f"OCR-like pages need Faker for their content: {INSTALL}") from None
    fake = Faker(locale)
    for provider in fake.get_providers():
        if locale == "it_IT" and isinstance(getattr(provider, "cities", None), list):
            provider.cities = sorted(provider.cities)  # Faker's own order differs between processes
    return fake


class Content:
    """Words, sentences, names and numbers for one sample, all drawn from `rng`."""

    def __init__(self, rng: random.Random, language: Language, sources: Sources | None = None) -> None:
        self.rng = rng
        self.language = language
        self.sources = sources or Sources()
        self.fake = _faker(rng.choice(LOCALES[language]))
        self.fake.seed_instance(rng.getrandbits(64))
        self._waiting: list[str] = []

    def sentence(self) -> str:
        """Return one sentence with its full stop. Sentences of a corpus keep their order."""
        if self.sources.corpus is None:
            return self._chinese() if self.language == "zh" else self._latin()
        if not self._waiting:
            self._waiting = read_corpus(self.sources.corpus).sentences(self.rng, self.language)
        return self._waiting.pop(0)

    def paragraph(self, least: int = 2, most: int = 7) -> str:
        """Return several sentences."""
        between = "" if self.language == "zh" else " "
        return between.join(self.sentence() for _ in range(self.rng.randint(least, most)))

    def words(self, least: int, most: int) -> str:
        """Return a few words without a full stop, as in a title or a list item.

        In Chinese, a word has two characters.
        """
        count = self.rng.randint(least, most)
        sentence = self.sentence()
        if self.language == "zh":
            clean = re.sub(r"[^\u4e00-\u9fffA-Za-z0-9]", "", sentence)
            return clean[: 2 * count] or "说明"
        taken = [re.sub(r"^\W+|\W+$", "", word) for word in sentence.split()]
        return " ".join([word for word in taken if word][:count]).capitalize() or "Note"

    def title(self) -> str:
        """Return a heading."""
        return self.words(2, 7)

    def name(self) -> str:
        """Return the name of a person."""
        return self.fake.name()

    def company(self) -> str:
        """Return the name of a company."""
        return self.fake.company()

    def place(self) -> str:
        """Return the name of a town."""
        return self.fake.city()

    def address(self) -> list[str]:
        """Return a postal address, one line per entry."""
        return [line for line in self.fake.address().splitlines() if line.strip()]

    def date(self) -> str:
        """Return a date in one of several formats."""
        day = datetime.date.fromordinal(self.rng.randint(_FIRST_DAY, _LAST_DAY))  # Faker's end today
        if self.language == "zh":
            return self.rng.choice([f"{day.year}年{day.month}月{day.day}日", day.isoformat()])
        return self.rng.choice([day.isoformat(), day.strftime("%d.%m.%Y"), day.strftime("%B %d, %Y")])

    def number(self) -> str:
        """Return a number: an integer, a decimal, thousands, a percentage, or an amount of money."""
        rng = self.rng
        money = "¥" if self.language == "zh" else rng.choice("$€£")
        return rng.choice(
            [
                str(rng.randrange(1, 1000)),
                f"{rng.uniform(0, 100):.{rng.randint(1, 3)}f}",
                f"{rng.randrange(1000, 10**7):,}",
                f"{rng.uniform(-20, 100):.1f}%",
                f"{money}{rng.uniform(1, 5000):,.2f}",
            ]
        )

    def code(self) -> str:
        """Return an identifier such as ``KX-40715``."""
        letters = "".join(self.rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=self.rng.randint(1, 3)))
        return f"{letters}-{self.rng.randrange(10**5):05d}"

    def value(self) -> str:
        """Return a value for a form: a name, a place, a date, a number, a code, or an email address."""
        make = self.rng.choice([self.name, self.place, self.date, self.number, self.code, self.fake.email])
        return make()

    def _latin(self) -> str:
        """Return a sentence of Faker's words.

        Numbers, brackets and punctuation are added, which Faker's own sentences lack.
        """
        rng = self.rng
        words = [str(word) for word in self.fake.words(rng.randint(5, 18))]
        draw = rng.random()
        at = rng.randrange(1, len(words))
        if draw < 0.35:
            words[at] = self.value() if draw < 0.2 else rng.choice([self.number, self.date])()
        elif draw < 0.45:
            words[at] = f"({words[at]})"
        elif draw < 0.52:
            words[at] = f"“{words[at]}”"
        for i in range(2, len(words) - 1, 4):
            if rng.random() < 0.3:
                words[i] += rng.choice([",", ",", ",", ";", ":"])
        text = " ".join(words)
        return text[0].upper() + text[1:] + rng.choice(["."] * 8 + ["!", "?"])

    def _chinese(self) -> str:
        rng = self.rng
        parts = []
        for _ in range(rng.randint(1, 4)):
            part = "".join(str(word) for word in self.fake.words(rng.randint(3, 8)))
            draw = rng.random()
            if draw < 0.15:
                part += rng.choice([self.number, self.date, self.place, self.name])()
            elif draw < 0.2:
                part = f"“{part}”"
            elif draw < 0.24:
                part += f"（{self.code()}）"
            parts.append(part)
        return rng.choice(["，", "，", "、"]).join(parts) + rng.choice(["。"] * 8 + ["！", "？"])
