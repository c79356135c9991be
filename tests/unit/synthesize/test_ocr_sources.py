"""Pages from texts and HTML of a user."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from ocr_case import content, need
from PIL import Image

from fcot_vl.synthesize.ocr import Sources, make_sample
from fcot_vl.synthesize.ocr.blocks import (
    Paragraph,
    Span,
    markdown,
)
from fcot_vl.synthesize.ocr.content import read_corpus
from fcot_vl.synthesize.ocr.fonts import face, families
from fcot_vl.synthesize.ocr.read_html import passage, read_html
from fcot_vl.synthesize.ocr.web import keep


def test_a_folder_of_texts_is_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Zyx wvu tsr qpo. " * 400)
    sources = Sources(corpus=tmp_path)
    answer = make_sample("layout", 0, 0, sources).messages[1]["content"]
    assert answer.count("wvu tsr") > 5
    assert make_sample("layout", 0, 0, sources).messages[1]["content"] == answer
    with pytest.raises(ValueError, match="no Chinese text"):
        content(0, "zh", sources).sentence()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no text here"):
        read_corpus(tmp_path / "empty")


HTML = """<html><head><title>no</title><style>p {color: red}</style></head><body>
<h1>Top &amp; more</h1><p>One <b>bold</b>, <a href="http://x">linked</a> and<br><i>slanted</i> words<p>Second
<script>alert(1)</script><div style="display:none">hidden<div>too</div></div><ul><li>a<li>b <code>c</code></ul>
<table><tr><th>k<th>v</tr><tr><td>1</td><td>2</td></tr></table><table><tr><td colspan=2>merged</td></tr></table>
<blockquote><p>said</p></blockquote><pre>x = 1
  y</pre></body></html>"""


def test_html_becomes_blocks(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(HTML)
    assert markdown(read_html(path)) == (
        "# Top & more\n\nOne **bold**, linked and\n\n*slanted* words\n\nSecond\n\n- a\n- b `c`\n\n"
        "| k | v |\n| --- | --- |\n| 1 | 2 |\n\n> said\n\n```\nx = 1\n  y\n```"
    )
    shown = face(families("print", "latin")[0])
    assert keep(Paragraph((Span("漢字"),)), shown) is None


def test_a_folder_of_html_is_what_is_shown(tmp_path: Path) -> None:
    need("web")
    (tmp_path / "page.html").write_text(HTML)
    page = make_sample("web", 0, 0, Sources(html=tmp_path))
    assert "Top & more" in page.messages[1]["content"]


def test_a_folder_without_chinese_html_has_no_chinese_page(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(HTML)
    with pytest.raises(ValueError, match="no Chinese page"):
        passage(random.Random(0), tmp_path, "zh", 800)


def test_a_chinese_page_is_not_made_of_latin_html(tmp_path: Path) -> None:
    need("web_zh")
    (tmp_path / "page.html").write_text(HTML)
    with pytest.raises(ValueError, match="no Chinese page"):
        make_sample("web_zh", 0, 0, Sources(html=tmp_path))


@pytest.mark.slow
def test_making_web_pages_does_not_let_damaged_pictures_in(tmp_path: Path) -> None:
    """weasyprint tells Pillow to accept truncated pictures when it is imported. A process shows it: imported once."""
    need("web")
    Image.effect_noise((200, 200), 90).convert("RGB").save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:2000])
    code = """
import sys
from PIL import Image, ImageFile
from fcot_vl.data.images import ImageError, open_image
from fcot_vl.synthesize.ocr import make_sample
make_sample("web", 0, 0)
assert not ImageFile.LOAD_TRUNCATED_IMAGES
try:
    open_image(sys.argv[1])
except ImageError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cut.jpg")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "cut.jpg: damaged or cut short" in ran.stdout
