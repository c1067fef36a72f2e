"""The exit codes of leukoflow's processes.

Source: sysexits.h, for those from 64 on.
"""

from __future__ import annotations

EXIT_USAGE = 2
"""The user can mend it: a wrong argument, setting or file."""
EXIT_STALLED = 70
"""EX_SOFTWARE: the worker took nothing although work waited; restarting is what helps."""
EXIT_TRANSIENT = 75
"""EX_TEMPFAIL: a service is away, or resources are short; the same call may succeed later."""
EXIT_CONFIG = 78
"""EX_CONFIG: restarting will not help before somebody mends the deployment."""
