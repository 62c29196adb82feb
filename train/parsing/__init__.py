"""Constituency parsing as translation (section 6.3): treebanks, linearised trees, their scores."""
