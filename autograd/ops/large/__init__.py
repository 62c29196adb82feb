"""The large operations of a Transformer, which have fast implementations."""
