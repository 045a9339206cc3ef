"""Other people's checkpoints: what a file is, and what is in it, without running any of it."""
