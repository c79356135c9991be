"""Conversion of original OpenGVLab InternVL checkpoints to the Hugging Face layout: same logits, tiles and prompts."""
