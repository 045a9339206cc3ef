"""Holding maps against the truth: runs, their judges, the tables and what can be read out of two of them."""
