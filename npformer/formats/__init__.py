"""Models of other programs: how they come in, and how ours go out."""
