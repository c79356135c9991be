"""A teacher's answers over pictures, as records to train on: the paper samples its OCR data from the teacher."""
