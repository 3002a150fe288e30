"""Long-context operators shared by plugins: each a readable reference form and, where it pays, faster ones."""
