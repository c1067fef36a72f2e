"""The settings of watcher, worker and command line: the only reader of the environment."""

from __future__ import annotations

import os
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.bundle.manifest import Profile
from pipeline.model.errors import LeukoflowError, TransientError, UsageError
from pipeline.runtime.engines.engine_port import EngineName
from pipeline.runtime.tensorrt.plan_cache import default_plans_dir
from worker.key_pattern import KeyPattern
from worker.server_urls import database_url, require_broker_url, require_port

PREFIX = "LEUKOFLOW_"
FILE_SUFFIX = "_FILE"
SECRETS_DIR = PREFIX + "SECRETS_DIR"
_FOR_TESTS = PREFIX + "TEST_"
"""what the tests alone read: the processes that they start inherit it"""

Value = str | int | float | bool | Path | None
Loaded = TypeVar("Loaded", bound="LocalSettings")
BucketName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


def _temporary_folder() -> Path:
    """Return the system's folder. Looked for when it is needed: looking for it writes a file.

    Raises: TransientError, where none can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise TransientError(
            "no folder for temporary files can be written; free some room, or set LEUKOFLOW_SPOOL_DIR",
            code="no_temporary_folder",
        ) from error


class LocalSettings(BaseSettings):
    """What an analysis needs that talks to nobody.

    Every field is a variable: LEUKOFLOW_ and its name in capitals, or that with _FILE, naming a file.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    bundle: Path | None = Field(
        default=None, description="folder of the model bundle; empty: the shipped one"
    )
    profile: Profile = Field(
        default=Profile.FAST,
        description="which of its segmenters are asked: `fast`, the light one; `accurate`, the mean of three",
    )
    engine: EngineName = Field(
        default=EngineName.AUTO,
        description="what runs the networks: `tensorrt`, `openvino`, `onnxruntime`; `auto`: TensorRT where a "
        "GPU and its libraries are, else OpenVINO",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="threads that the networks compute with; empty: one for each core that may be used",
    )
    streams: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="parts of a batch that OpenVINO computes at once; empty: one for each thread, 8 at most",
    )
    read_ahead: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="tiles of a scan that are read before they are asked for; empty: two for each stream, at "
        "least 4",
    )
    plans_dir: Path = Field(
        default=default_plans_dir(),
        description="folder for what TensorRT builds of the networks; nobody else may write to it",
    )
    max_file_bytes: int = Field(
        default=20 * 2**30, ge=1, description="bytes of the largest scan that is read"
    )
    max_pixels: int = Field(
        default=40_000_000_000, ge=1, description="pixels of the largest scan that is opened, at level 0"
    )
    spool_dir: Path = Field(
        default_factory=_temporary_folder, description="folder for scans while they are analysed"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe event that is logged"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the strongest first: arguments, variables, files."""
        return init_settings, env_settings, _FilesSource(settings_cls)


class BucketSettings(LocalSettings):
    """How the buckets are called."""

    bucket_scans: BucketName = Field(default="scans", description="bucket that scanners write to")
    bucket_results: BucketName = Field(default="results", description="bucket for pictures and GeoJSON")


class TrustSettings(LocalSettings):
    """Whom to take for a server of ours."""

    # In a base: the validators of URLs look at it, and it has to be validated before them.
    ca_certificates: Path | None = Field(
        default=None,
        description="file of certificates whose owners may sign those of the servers, for TLS; empty: the "
        "system's",
    )

    @field_validator("ca_certificates")
    @classmethod
    def _ca_certificates_are_there(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path


class DatabaseSettings(TrustSettings):
    """What reading results and migrating the schema need besides."""

    database_url: SecretStr = Field(
        description="PostgreSQL, as `postgresql+psycopg://user:password@host/name`; for TLS with "
        "`?sslmode=verify-full`"
    )

    @field_validator("database_url")
    @classmethod
    def _database_is_postgresql(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        return SecretStr(database_url(url.get_secret_value(), info.data.get("ca_certificates")))


class ServedSettings(LocalSettings):
    """Where watcher and worker say how they are."""

    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="port of `/live`, `/ready` and `/metrics`, one for each process; 0: any, its log says "
        "which; empty: not served",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        pattern=r"^[0-9A-Za-z.:-]+$",
        description="address that they are served on; `0.0.0.0` where others than this machine ask",
    )


class StoreSettings(BucketSettings, TrustSettings):
    """Where the object store is, and how one comes in."""

    s3_endpoint: str = Field(pattern=r"^[^/\s:]+(:\d+)?$", description="object store, as `host:port`")
    s3_access_key: SecretStr = Field(description="access key of the object store")
    s3_secret_key: SecretStr = Field(description="secret key of the object store")
    s3_secure: bool = Field(default=True, description="speak TLS to the object store")
    s3_region: str = Field(default="us-east-1", description="region of the object store")

    @field_validator("s3_endpoint")
    @classmethod
    def _endpoint_has_a_port(cls, endpoint: str) -> str:
        require_port(endpoint)
        return endpoint


class DeliverySettings(StoreSettings):
    """What putting scans into their bucket needs: no more than a scanner has."""

    key_pattern: str = Field(
        default="<patient>/<specimen>/<slide>.<ext>",
        description="how a key names its patient: `<patient>`, `<specimen>`, `<slide>`, `<ext>`, and `<*>` "
        "for a part that says nothing; object metadata goes first",
    )


class KeepingSettings(StoreSettings, DatabaseSettings):
    """What keeping house needs."""


class Settings(KeepingSettings, DeliverySettings, ServedSettings):
    """What watcher and worker need: everything."""

    broker_url: SecretStr = Field(
        description="Celery's broker: Redis as `redis://:password@host:6379/0`, RabbitMQ as "
        "`amqp://user:password@host:5672/vhost`; for TLS `rediss://` or `amqps://`"
    )
    queue: str = Field(
        default="leukoflow", pattern=r"^[\w.-]{1,64}$", description="name of the queue on the broker"
    )

    poll_s: float = Field(default=2.0, gt=0, le=3600, description="seconds between two sweeps of the bucket")
    settle_s: float = Field(
        default=2.0,
        ge=0,
        le=86_400,
        description="seconds that an upload must stay unchanged before it is taken",
    )
    lease_s: float = Field(
        default=60.0, ge=1, le=86_400, description="seconds until a silent worker's scan is free"
    )
    heartbeat_s: float = Field(
        default=15.0, gt=0, le=3600, description="seconds between two renewals of a lease; half of it at most"
    )
    reconcile_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="seconds between two looks for lost messages and expired leases",
    )
    resend_after_s: float = Field(
        default=60.0, gt=0, le=86_400, description="seconds after which a queued scan's message is sent again"
    )
    max_attempts: int = Field(default=3, ge=1, le=100, description="attempts before a scan is quarantined")
    worker_slots: int = Field(
        default=2, ge=1, le=256, description="scans that a worker analyses at once, in threads"
    )
    stalled_after_s: float = Field(
        default=120.0,
        ge=0,
        le=86_400,
        description="seconds for which work may wait before a worker that takes none, though a slot is free, "
        "ends with exit code 70; 0: never. That a broker fell silent takes up to 30 to be noticed",
    )

    trace_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+/\S+)?$",
        description="where a trace of each scan, without patients, is sent by OTLP over HTTP, as "
        "`http://collector:4318/v1/traces`; empty: nowhere. Needs `leukoflow[traces]`",
    )

    @field_validator("broker_url")
    @classmethod
    def _broker_is_known(cls, url: SecretStr) -> SecretStr:
        require_broker_url(url.get_secret_value())
        return url

    @field_validator("key_pattern")
    @classmethod
    def _pattern_compiles(cls, text: str) -> str:
        try:
            KeyPattern.parse(text)
        except LeukoflowError as error:
            raise ValueError(error.sentence) from error
        return text

    @model_validator(mode="after")
    def _heartbeat_fits(self) -> Settings:
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError("LEUKOFLOW_HEARTBEAT_S must be at most half of LEUKOFLOW_LEASE_S")
        return self


class _FilesSource(PydanticBaseSettingsSource):
    """Values in files: named by `<variable>_FILE` each, or by field in the folder LEUKOFLOW_SECRETS_DIR."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        variable = variable_of(field_name)
        named = os.environ.get(variable + FILE_SUFFIX)
        if named and os.environ.get(variable):
            raise _usage(f"set {variable} or {variable}{FILE_SUFFIX}, not both")
        if named:
            return _read(Path(named), variable + FILE_SUFFIX), field_name, False
        folder = _secrets_folder()
        if folder is not None and (folder / field_name).exists():
            return _read(folder / field_name, SECRETS_DIR), field_name, False
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


def load(kind: type[Loaded], **overrides: Value) -> Loaded:
    """Return the settings of that kind from the environment; `overrides`, by field name, go first.

    Raises: UsageError, one line naming the variable, where one is missing, unknown or makes no sense.
    """
    _require_known_variables()
    try:
        return kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # The original quotes its input, which may be a secret.
        raise _usage(_sentence(first["loc"], first["type"], first["msg"])) from None


def child_environment(**values: str) -> dict[str, str]:
    """Return our environment for a child process, with `values` by field name (or `secrets_dir`) set in it.

    A secrets folder takes the place of what it holds: variables for the same field are left out.
    """
    folder = values.get("secrets_dir")
    held = {path.name for path in Path(folder).iterdir() if path.is_file()} if folder else set()
    replaced = {variable_of(name) for name in held | values.keys()}
    replaced |= {variable + FILE_SUFFIX for variable in replaced}
    kept = {name: value for name, value in os.environ.items() if name not in replaced}
    return kept | {variable_of(name): value for name, value in values.items()}


def variable_of(field_name: str) -> str:
    """Return the variable that sets the field."""
    return PREFIX + field_name.upper()


def _require_known_variables() -> None:
    """Raises: UsageError, where a variable is named as ours and is none: a typo must not pass unseen."""
    fields = {variable_of(name) for name in Settings.model_fields}
    known = fields | {field + FILE_SUFFIX for field in fields} | {SECRETS_DIR}
    for variable in sorted(os.environ):
        if not variable.upper().startswith(PREFIX) or variable.startswith(_FOR_TESTS):
            continue
        if variable.upper() not in fields and variable not in known:
            raise _usage(f"{variable} is no setting of leukoflow; {_advice(variable.upper(), known)}")


def _advice(variable: str, known: set[str]) -> str:
    # Without the prefix, which all have in common.
    names = sorted(name.removeprefix(PREFIX) for name in known)
    nearest = get_close_matches(variable.removeprefix(PREFIX), names, n=1)
    return f"did you mean {PREFIX}{nearest[0]}?" if nearest else "unset it"


def _secrets_folder() -> Path | None:
    folder = os.environ.get(SECRETS_DIR)
    if not folder:
        return None
    if not os.access(folder, os.R_OK | os.X_OK) or not Path(folder).is_dir():
        raise _usage(f"{SECRETS_DIR} names the folder {folder}, which is not there or cannot be read")
    return Path(folder)


def _read(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _usage(f"{variable} names the file {path}, which cannot be read") from error


def _sentence(location: tuple[int | str, ...], kind: str, message: str) -> str:
    cause = message.removeprefix("Value error, ")
    if not location:
        return cause
    variable = variable_of(str(location[0]))
    if kind == "missing":
        return f"{variable} is not set; it has no default"
    return f"{variable} is not valid: {cause[:1].lower()}{cause[1:]}"


def _usage(sentence: str) -> UsageError:
    return UsageError(sentence, code="settings_invalid")
