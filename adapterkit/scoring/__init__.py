"""Scores: token loss, perplexity, stop rate, memorisation."""
