"""Write the embedded teacher's tokenizer, processor settings and chat template.

First step of `tools/tiny_teacher`. The tokenizer is character-level: printable ASCII and the newline, one token a
character, plus the special tokens of InternVL2. A character vocabulary keeps the teacher small and makes "characters
per visual token" an exact figure.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
ROLES = ["user", "assistant"]
CHARACTERS = ["\n", *(chr(c) for c in range(32, 127))]

CHAT_TEMPLATE = """{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>' }}
{%- endgeneration -%}
{{ '\\n' }}
{%- else -%}
{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}
{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def main(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, chat_template.jinja and preprocessor_config.json to `folder`."""
    vocabulary = {token: i for i, token in enumerate(SPECIAL + ROLES + CHARACTERS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False, single_word=True) for t in ROLES])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_to_patches": True,
                "do_convert_rgb": True,
                "do_normalize": True,
                "do_rescale": True,
                "do_resize": True,
                "image_mean": [0.485, 0.456, 0.406],
                "image_processor_type": "GotOcr2ImageProcessorPil",
                "image_std": [0.229, 0.224, 0.225],
                "max_patches": 6,
                "min_patches": 1,
                "resample": 3,
                "rescale_factor": 1 / 255,
                "size": {"height": 224, "width": 224},
            },
            indent=2,
        )
        + "\n"
    )
    processor = {"processor_class": "FCoTVLProcessor", "image_seq_length": 64}
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
