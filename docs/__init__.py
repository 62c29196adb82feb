"""What makes parts of the documentation: `python -m docs.fill`."""
