"""Annotations as other people publish them: JSON, XML and run-length codes, with errors that name the place."""
