"""Data-parallel training: processes, called ranks, that train one model together (section 5.2)."""
