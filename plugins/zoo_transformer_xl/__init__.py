"""transformer_xl."""
