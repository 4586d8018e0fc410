"""Recipes and demo texts that come with AdapterKit, as the package ``adapterkit.configs``."""
