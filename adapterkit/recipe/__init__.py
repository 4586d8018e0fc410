"""Recipes: a validated description of base, data, method, training and sampling."""
