"""Specifications of architectures and tasks, hooks, registry, records and errors. Imports no torch."""
