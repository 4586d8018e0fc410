"""The base model: finding, fingerprinting and loading it; LoRA on it."""
