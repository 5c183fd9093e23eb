"""Scores of queries and items: their tables, their terms, the softmax over them, the highest."""
