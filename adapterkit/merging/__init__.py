"""Adapters combined with each other or with their base: every result measured against what was meant."""
