"""From other people's VQA checkpoints to models of ours; each peer's module has `convert(files, out)`."""
