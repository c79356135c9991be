"""Ask a teacher one question with all visual tokens, and with training-free baselines that keep half of them.

python examples/compare_baselines.py path/to/InternVL3-1B-hf receipt.jpg "What is the total?"
"""

import sys

from fcot_vl.data.images import open_image
from fcot_vl.data.tokenization import question_inputs
from fcot_vl.inference.loading import load_for_inference, stop_ids
from fcot_vl.prune.method import Method

folder, image, question = sys.argv[1:]
model, processor = load_for_inference(folder)
inputs = question_inputs(question, [open_image(image)], processor)
inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
stops = stop_ids(model, processor.tokenizer)

total = int((inputs["input_ids"] == processor.image_token_id).sum())
for method in (Method(), Method("fastv", keep=0.5, layer=2), Method("divprune", keep=0.5)):
    handle = method.apply(model)
    output = model.generate(**inputs, max_new_tokens=32, do_sample=False, eos_token_id=stops)
    tokens = output[0, inputs["input_ids"].shape[1] :]
    kept = total if handle is None else handle.kept[0]
    print(f"{method.name}, {kept} of {total} visual tokens:", processor.tokenizer.decode(tokens, True))
    if handle is not None:
        handle.remove()  # the model is as it was
