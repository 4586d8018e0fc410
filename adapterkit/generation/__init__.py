"""Writing with any number of adapters beside one base. Never imports peft; transformers only in plain and beams."""
