"""Adapters and bases in the formats of other programs, each read back and compared before it is believed."""
