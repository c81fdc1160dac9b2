"""How the Catalog and its engine's process tell messages apart on the socket between them."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<Q")
"""Before every message: its length. The message is a pickle; both ends are ours."""
