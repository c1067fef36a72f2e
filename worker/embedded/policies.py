"""What each principal may do in the object store, as S3 policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from worker.embedded.principals import Principal

SCANS, RESULTS = "scans*", "results*"
"""Buckets by the beginning of their names: several houses may stand on one set."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Actions on a kind of bucket and on the objects in it."""

    bucket: str
    actions: tuple[str, ...]


# Without ListBucket a missing object cannot be told from a refused one. HEAD is GetObject to S3.
_LOOKS = ("s3:ListBucket", "s3:GetObject")
_REMOVALS = ("s3:DeleteObject", "s3:DeleteObjectVersion")
_PUTS = ("s3:PutObject", "s3:AbortMultipartUpload")

POLICIES: Mapping[Principal, tuple[Allowed, ...]] = MappingProxyType(
    {
        Principal.SCANNER: (Allowed(SCANS, _PUTS),),
        Principal.WATCHER: (Allowed(SCANS, _LOOKS),),
        Principal.WORKER: (Allowed(SCANS, _LOOKS), Allowed(RESULTS, _PUTS)),
        Principal.READER: (Allowed(RESULTS, _LOOKS),),
        Principal.CLERK: (Allowed(RESULTS, _LOOKS),),
        Principal.KEEPER: tuple(Allowed(bucket, (*_LOOKS, *_REMOVALS)) for bucket in (SCANS, RESULTS)),
    }
)


def policy_json(principal: Principal) -> str:
    """Return the principal's policy as a JSON document."""
    statements = [
        {
            "Effect": "Allow",
            "Action": list(allowed.actions),
            "Resource": [f"arn:aws:s3:::{allowed.bucket}", f"arn:aws:s3:::{allowed.bucket}/*"],
        }
        for allowed in POLICIES[principal]
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
