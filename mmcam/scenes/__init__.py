"""A small world with the truth about where every word is: OpenMoji scenes, their captions and questions."""
