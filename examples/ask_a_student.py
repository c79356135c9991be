"""Ask a student about an image, with the Auto classes of transformers.

python examples/ask_a_student.py out/student-4x receipt.jpg "What is the total?"
"""

import sys

from transformers import AutoModelForImageTextToText, AutoProcessor

import fcot_vl  # noqa: F401 - registers the student with the Auto classes
from fcot_vl.data.images import open_image

folder, image, question = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)

content = [{"type": "image", "image": open_image(image)}, {"type": "text", "text": question}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
)
tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs["input_ids"].shape[1] :]
print("answer:", processor.decode(tokens, skip_special_tokens=True))
print("visual tokens:", int((inputs["input_ids"] == processor.image_token_id).sum()))
