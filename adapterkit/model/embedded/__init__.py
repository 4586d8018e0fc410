"""The small GPT-2 that comes with the package; its card is README.md here."""
