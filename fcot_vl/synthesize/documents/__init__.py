"""MiniDoc 2: pages of everyday documents with questions, generated from a seed (`generate.make_document`)."""
