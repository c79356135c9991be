"""MiniDoc 2: documents as people have them, with questions, generated from a seed (`generate.make_document`)."""
