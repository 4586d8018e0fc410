"""Writing with any number of adapters beside one base. Never imports peft or transformers."""
