"""From any text to packed rows of labelled tokens, nothing lost on the way."""
