"""The registry: immutable versions of adapters on disk. Never imports torch."""
