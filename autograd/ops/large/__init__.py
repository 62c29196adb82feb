"""The large operations that carry a Transformer, which have fast implementations."""
