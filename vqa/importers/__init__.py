"""Checkpoints of other people's VQA models, turned into folders of ours; nothing in them is run."""
