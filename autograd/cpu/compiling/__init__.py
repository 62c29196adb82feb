"""What is imported only where loops have to be compiled: numba, and what is written for it."""
