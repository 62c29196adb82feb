"""Zip archives that somebody else has made."""

from __future__ import annotations

import struct
import zipfile

BAD_ARCHIVE = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,  # a method of compression that nobody uses
    OSError,
    OverflowError,  # a file at an impossible place
    RuntimeError,  # an encrypted file
    ValueError,
    struct.error,
)
"""What `zipfile` raises for archives that are damaged."""
