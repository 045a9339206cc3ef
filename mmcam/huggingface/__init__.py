"""Hugging Face's models: one adapter for all families, and where on the original picture their maps belong."""
