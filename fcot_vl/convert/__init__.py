"""Original OpenGVLab InternVL checkpoints into the Hugging Face layout: the same logits, tiles and prompts."""
