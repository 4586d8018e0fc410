"""From a recipe to a published version."""
