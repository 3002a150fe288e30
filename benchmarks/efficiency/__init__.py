"""How fast architectures are beside other implementations of the same computation, measured in one process."""
