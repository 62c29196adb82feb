"""The operations that a Transformer is made of."""
