"""From a model specification to a classifier or language model around a backbone."""
