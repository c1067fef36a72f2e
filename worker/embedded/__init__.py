"""Real PostgreSQL, Valkey and SeaweedFS from wheels: for the demo, the tests and a single machine."""

from worker.embedded.embedded_set import EmbeddedSet, FixedPorts, ServerName
from worker.embedded.principals import Principal

__all__ = ["EmbeddedSet", "FixedPorts", "Principal", "ServerName"]
