"""From other people's captioning checkpoints to models of ours; each module has `convert(files, out)`."""
