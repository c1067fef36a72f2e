"""Who runs the command line, as far as this machine knows."""

from __future__ import annotations

import os
import pwd


def os_user() -> str:
    """Return the name of the account, not what its environment says; its number where it has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
