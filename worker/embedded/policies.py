"""What each principal may do in the object store, as S3 policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from worker.embedded.principals import Principal


class Bucket(StrEnum):
    """The two buckets."""

    SCANS = "scans"
    RESULTS = "results"


@dataclass(frozen=True, slots=True)
class Allowed:
    """Actions on a bucket and on the objects in it."""

    bucket: Bucket
    actions: tuple[str, ...]


# Without ListBucket, S3 reports a missing object as refused. HEAD requires GetObject.
_READS = ("s3:ListBucket", "s3:GetObject")
_REMOVALS = ("s3:DeleteObject", "s3:DeleteObjectVersion")
_PUTS = ("s3:PutObject", "s3:AbortMultipartUpload")

POLICIES: Mapping[Principal, tuple[Allowed, ...]] = MappingProxyType(
    {
        Principal.SCANNER: (Allowed(Bucket.SCANS, _PUTS),),
        Principal.WATCHER: (Allowed(Bucket.SCANS, _READS),),
        Principal.WORKER: (Allowed(Bucket.SCANS, _READS), Allowed(Bucket.RESULTS, _PUTS)),
        Principal.READER: (Allowed(Bucket.RESULTS, _READS),),
        Principal.CLERK: (Allowed(Bucket.RESULTS, _READS),),
        Principal.KEEPER: tuple(Allowed(bucket, (*_READS, *_REMOVALS)) for bucket in Bucket),
    }
)


def policy_json(principal: Principal, names: Mapping[Bucket, str]) -> str:
    """Return the principal's policy as a JSON document, for buckets of these names.

    It covers buckets named `<name>-…` too, so that several installations can share one set.
    """
    statements = [
        {"Effect": "Allow", "Action": list(allowed.actions), "Resource": _resources(allowed.bucket, names)}
        for allowed in POLICIES[principal]
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _resources(bucket: Bucket, names: Mapping[Bucket, str]) -> list[str]:
    wanted = names[bucket]
    others = [name for kind, name in names.items() if kind is not bucket]
    among = any(name.startswith(f"{wanted}-") for name in others)
    patterns = [wanted] if among else [wanted, f"{wanted}-*"]
    return [f"arn:aws:s3:::{pattern}{objects}" for pattern in patterns for objects in ("", "/*")]
