"""The original conversation templates as Jinja templates with a generation mask.

One template covers all families. Turns are framed by `begin` + role + newline and `end`. InternVL2 ends a turn without
a newline, InternVL2.5 and later with one. A given system message replaces the default of the family. An image is one
`<IMG_CONTEXT>` and a newline, as the original places it before a question.

Source: `conversation.py` of InternVL2, 2.5 and 3 (their outputs are recorded in `tests/data/chat-prompts.json`).
"""

from __future__ import annotations

from dataclasses import dataclass

SYSTEM_2 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
SYSTEM_2_5 = (
    "你是书生·万象，英文名是InternVL，"
    "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


@dataclass(frozen=True)
class Conversation:
    """Turn format of one family.

    Attributes:
        role: Start of a turn, with `%s` for the name of the role.
        stop: Token that ends an answer.
        after_turn: Text after the stop token of a turn.
        system: Default system message.
    """

    role: str
    stop: str
    after_turn: str
    system: str


_IM = "<|im_start|>%s\n"
CONVERSATIONS = {  # by the `template` of the original configuration
    "internlm2-chat": Conversation(_IM, "<|im_end|>", "", SYSTEM_2),
    "Hermes-2": Conversation(_IM, "<|im_end|>", "", SYSTEM_2),
    "phi3-chat": Conversation("<|%s|>\n", "<|end|>", "", SYSTEM_2),
    "internvl2_5": Conversation(_IM, "<|im_end|>", "\n", SYSTEM_2_5),
}

_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part['type'] == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}
{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
@BOS
{%- if messages[0]['role'] == 'system' -%}
{{ @ROLE(system) + text(messages[0]['content']) + @END }}{%- set turns = messages[1:] -%}
{%- else -%}
{{ @ROLE(system) + @SYSTEM + @END }}{%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if message['role'] == 'assistant' -%}
{{ @ROLE(assistant) }}
{%- generation -%}{{ text(message['content']) + @STOP }}{%- endgeneration -%}
{{ @AFTER }}
{%- else -%}
{{ @ROLE(user) + text(message['content']) + @END }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ @ROLE(assistant) }}{%- endif -%}
"""


def chat_template(conversation: Conversation, bos: bool) -> str:
    """Build the Jinja template.

    Args:
        conversation: Turn format of the family.
        bos: Whether the original tokenizer prepends its BOS token to a prompt.
    """
    text = _TEMPLATE.replace("@BOS\n", "{{ bos_token }}\n" if bos else "")
    for role in ("system", "user", "assistant"):
        text = text.replace(f"@ROLE({role})", _quoted(conversation.role % role))
    text = text.replace("@SYSTEM", _quoted(conversation.system))
    text = text.replace("@END", _quoted(conversation.stop + conversation.after_turn))
    text = text.replace("@STOP", _quoted(conversation.stop))
    return text.replace("@AFTER", _quoted(conversation.after_turn))


def _quoted(text: str) -> str:
    return "'" + text.replace("\n", "\\n") + "'"
