"""Chat templates: the prompts of the original code, and the mask of the answers."""

from __future__ import annotations

import json

import pytest
from convert_case import DATA
from transformers.utils.chat_template_utils import render_jinja_template

from fcot_vl.convert.chat_templates import CONVERSATIONS, chat_template

PROMPTS = json.loads((DATA / "chat-prompts.json").read_text())
TURNS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is the total?"}]},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "And the date?"},
]


def render(template: str, messages: list[dict], generation: bool = True) -> tuple[str, list]:
    rendered, spans = render_jinja_template(
        [messages],
        chat_template=chat_template(CONVERSATIONS[template], bos=False),
        add_generation_prompt=generation,
        return_assistant_tokens_mask=True,
        bos_token="<s>",
    )
    return rendered[0], spans[0]


@pytest.mark.parametrize("template", PROMPTS)
def test_prompts_are_the_originals(template: str) -> None:
    assert render(template, TURNS)[0].replace("<IMG_CONTEXT>", "<image>") == PROMPTS[template]


@pytest.mark.parametrize("template", CONVERSATIONS)
def test_the_mask_covers_an_answer_and_its_end(template: str) -> None:
    text, spans = render(template, [*TURNS, {"role": "assistant", "content": "Monday"}], generation=False)
    stop = CONVERSATIONS[template].stop
    assert [text[start:end] for start, end in spans] == [f"42{stop}", f"Monday{stop}"]


def test_a_system_message_replaces_the_familys() -> None:
    text, _ = render("internvl2_5", [{"role": "system", "content": "Be brief."}, *TURNS])
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.count("system") == 1


def test_the_first_token_is_written_where_the_tokenizer_puts_one() -> None:
    template = chat_template(CONVERSATIONS["internlm2-chat"], bos=True)
    rendered, _ = render_jinja_template([TURNS], chat_template=template, bos_token="<s>")
    assert rendered[0].startswith("<s><|im_start|>system\n")
