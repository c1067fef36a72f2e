"""What the addresses of database, broker and object store must look like. No error quotes one. Pure."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from worker.broker_schemes import BROKER_SCHEMES

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""Source: PostgreSQL 18, libpq, SSL support. Only the last knows with whom it speaks."""


def database_url(url: str, ca_certificates: Path | None) -> str:
    """Return the URL, with the file of certificates in it where it asks to verify the server.

    Raises: ValueError, where it is no URL of a PostgreSQL database.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgresql+psycopg") or not parts.path.strip("/"):
        raise ValueError("it is no postgresql+psycopg:// URL with a database")
    require_port(parts.netloc)
    query = dict(parse_qsl(parts.query))
    mode = query.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise ValueError(f"its sslmode is none of {', '.join(SSL_MODES)}")
    if ca_certificates is None or "sslrootcert" in query or not mode.startswith("verify"):
        return url
    return urlunsplit(parts._replace(query=urlencode(query | {"sslrootcert": str(ca_certificates)})))


def require_broker_url(url: str) -> None:
    """Raises: ValueError, where it is no URL of a broker that we speak to."""
    parts = urlsplit(url)
    if parts.scheme not in BROKER_SCHEMES or not parts.hostname:
        raise ValueError("it is no redis:// or amqp:// URL with a host")
    require_port(parts.netloc)
    if any(name.startswith("ssl") for name, _ in parse_qsl(parts.query)):
        raise ValueError("it says how to check the server; that is for LEUKOFLOW_CA_CERTIFICATES to say")


def require_port(netloc: str) -> None:
    """Raises: ValueError, where the port is no port."""
    port = netloc.rsplit("@", 1)[-1].rsplit("]", 1)[-1].partition(":")[2]
    if port and not (port.isdecimal() and 1 <= int(port) <= 65_535):
        raise ValueError("its port is no number from 1 to 65535")
