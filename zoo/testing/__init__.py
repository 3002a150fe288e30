"""The conformance suite that `zoo check` runs and plugin authors subclass."""
