"""Records, the backbone contract, hooks and the registry. Metadata here is importable without torch."""
