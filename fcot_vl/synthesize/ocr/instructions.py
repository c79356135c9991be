"""Questions about a page, in varied words, in the language of the page."""

from __future__ import annotations

import random
from typing import Literal

from fcot_vl.synthesize.ocr.fonts import Language

Request = Literal[
    "lines", "paragraphs", "markdown", "web", "table-markdown", "table-html", "chart", "hand", "scene"
]

INSTRUCTIONS: dict[Request, dict[Language, tuple[str, ...]]] = {
    "lines": {
        "latin": (
            "Read all text on this page, line by line as printed.",
            "Transcribe the page. Keep the line breaks as they are printed.",
            "What is printed here? Give the text with its original line breaks.",
            "OCR this document, one printed line per line.",
        ),
        "zh": (
            "请逐行识别这一页上的全部文字。",
            "请转写本页文字，保留原有换行。",
            "这张图片上印了什么？请按原来的换行给出文字。",
            "对该文档进行文字识别，每个印刷行输出一行。",
        ),
    },
    "paragraphs": {
        "latin": (
            "Read all text on this page in reading order; separate paragraphs with a blank line.",
            "Transcribe the page. Join the lines of a paragraph and leave a blank line between paragraphs.",
            "Extract the text of this document paragraph by paragraph.",
            "What does this page say? Give its paragraphs in reading order, with a blank line between them.",
        ),
        "zh": (
            "请按阅读顺序识别本页全部文字，段落之间空一行。",
            "请转写本页文字，将同一段落的各行合并，段落之间空一行。",
            "请逐段提取这份文档的文字。",
            "这一页写了什么？请按阅读顺序给出各段落，段落之间空一行。",
        ),
    },
    "markdown": {
        "latin": (
            "Convert this page to Markdown.",
            "Parse the layout of this document into Markdown, in reading order.",
            "Write this page as Markdown with its headings, lists and tables.",
            "Give the content and the structure of this page as Markdown.",
        ),
        "zh": (
            "请将本页转换为 Markdown。",
            "请按阅读顺序把这份文档的版面解析为 Markdown。",
            "请用 Markdown 写出本页内容，包括标题、列表和表格。",
            "请以 Markdown 给出这一页的内容与结构。",
        ),
    },
    "web": {
        "latin": (
            "Convert this web page to Markdown.",
            "Write the content of this web page as Markdown.",
            "This is a screenshot of a web page. Give it as Markdown, in reading order.",
        ),
        "zh": (
            "请将这个网页转换为 Markdown。",
            "请用 Markdown 写出这个网页的内容。",
            "这是一张网页截图，请按阅读顺序以 Markdown 输出。",
        ),
    },
    "table-markdown": {
        "latin": (
            "Convert the table to Markdown.",
            "Write this table as a Markdown table.",
            "Give the table in this picture in Markdown.",
        ),
        "zh": (
            "请将表格转换为 Markdown。",
            "请把这张表写成 Markdown 表格。",
            "请以 Markdown 给出图中的表格。",
        ),
    },
    "table-html": {
        "latin": (
            "Convert the table to HTML; give merged cells their rowspan and colspan.",
            "Write this table as an HTML table with merged cells.",
            "Give the table in this picture as HTML, with rowspan and colspan where cells are merged.",
        ),
        "zh": (
            "请将表格转换为 HTML，合并单元格用 rowspan 和 colspan 表示。",
            "请把这张表写成 HTML 表格，注意合并单元格。",
            "请以 HTML 给出图中的表格，合并的单元格写明 rowspan 与 colspan。",
        ),
    },
    "chart": {
        "latin": (
            "Convert the chart to a Python dictionary.",
            "Give the data of this chart as a Python dict.",
            "Read the values off this chart and write them as a Python dictionary.",
        ),
        "zh": (
            "请将图表转换为 Python 字典。",
            "请以 Python dict 给出这张图表的数据。",
            "请读出图表中的数值，并写成 Python 字典。",
        ),
    },
    "hand": {
        "latin": (
            "Read the handwriting, line by line.",
            "Transcribe this handwritten note; keep the line breaks.",
            "What is written here by hand? One written line per line.",
        ),
        "zh": (
            "请逐行识别手写文字。",
            "请转写这份手写笔记，保留换行。",
            "这里手写了什么？每个书写行输出一行。",
        ),
    },
    "scene": {
        "latin": (
            "Read the text in this picture, from top to bottom.",
            "What does the sign say? Give each line on its own line.",
            "Recognise all text in this photo, line by line.",
        ),
        "zh": (
            "请从上到下读出图中的文字。",
            "牌子上写的是什么？每行文字输出一行。",
            "请逐行识别这张照片里的全部文字。",
        ),
    },
}
STAMPED: dict[Language, tuple[str, ...]] = {
    "latin": ("Leave out the stamp.", "Ignore the stamp."),
    "zh": ("不要输出印章上的文字。", "忽略印章。"),
}


def instruction(rng: random.Random, request: Request, language: Language, stamped: bool) -> str:
    """Return one wording of `request`. On a stamped page, add that the stamp is to be ignored."""
    text = rng.choice(INSTRUCTIONS[request][language])
    if stamped:
        text += ("" if language == "zh" else " ") + rng.choice(STAMPED[language])
    return text
