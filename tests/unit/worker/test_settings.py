"""Settings: every mistake is one line that names its variable; secrets show nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import ValidationError

from pipeline.model.errors import UsageError
from worker.queue.broker_dialects import DIALECTS, dialect_of
from worker.settings import (
    DatabaseSettings,
    LocalSettings,
    Settings,
    child_environment,
    load,
    variable_of,
)
from worker.settings_table import settings_table

REQUIRED = {
    "LEUKOFLOW_DATABASE_URL": "postgresql+psycopg://u:hidden-a@h/d",
    "LEUKOFLOW_BROKER_URL": "redis://:hidden-b@h:6379/0",
    "LEUKOFLOW_S3_ENDPOINT": "store:9000",
    "LEUKOFLOW_S3_ACCESS_KEY": "hidden-c",
    "LEUKOFLOW_S3_SECRET_KEY": "hidden-d",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Return the environment, with what is required in it and nothing else of ours."""
    for name in [name for name in os.environ if name.startswith("LEUKOFLOW_")]:
        monkeypatch.delenv(name)
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_what_is_required_is_enough() -> None:
    settings = load(Settings)
    assert settings.database_url.get_secret_value() == REQUIRED["LEUKOFLOW_DATABASE_URL"]
    assert (settings.bucket_scans, settings.max_attempts, settings.s3_secure) == ("scans", 3, True)


def test_settings_do_not_change() -> None:
    settings = load(Settings)
    with pytest.raises(ValidationError):
        settings.max_attempts = 5


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_what_is_missing_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(UsageError, match=f"^{name} is not set; it has no default$"):
        load(Settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEUKOFLOW_MAX_ATTEMPTS", "many"),
        ("LEUKOFLOW_MAX_ATTEMPTS", "0"),
        ("LEUKOFLOW_POLL_S", "-1"),
        ("LEUKOFLOW_BUCKET_SCANS", "No Bucket"),
        ("LEUKOFLOW_S3_ENDPOINT", "http://store:9000"),
        ("LEUKOFLOW_S3_SECURE", "perhaps"),
        ("LEUKOFLOW_LOG_LEVEL", "loud"),
        ("LEUKOFLOW_KEY_PATTERN", "<slide>.<ext>"),
        ("LEUKOFLOW_HEARTBEAT_S", "50"),
    ],
)
def test_what_makes_no_sense_is_one_line_that_names_the_variable(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        load(Settings)
    assert raised.value.sentence.startswith(name)
    assert "\n" not in raised.value.sentence
    assert raised.value.code == "settings_invalid"


def test_an_empty_variable_counts_as_not_set(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LEUKOFLOW_MAX_ATTEMPTS", "")
    assert load(Settings).max_attempts == 3


def test_a_secret_comes_from_the_file_that_a_variable_names(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("from-file\n")
    environment.delenv("LEUKOFLOW_S3_SECRET_KEY")
    environment.setenv("LEUKOFLOW_S3_SECRET_KEY_FILE", str(tmp_path / "key"))
    assert load(Settings).s3_secret_key.get_secret_value() == "from-file"


def test_secrets_come_from_a_folder_of_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "s3_secret_key").write_text("from-folder")
    environment.delenv("LEUKOFLOW_S3_SECRET_KEY")
    environment.setenv("LEUKOFLOW_SECRETS_DIR", str(tmp_path))
    assert load(Settings).s3_secret_key.get_secret_value() == "from-folder"


def test_a_secret_said_twice_or_in_a_missing_file_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("LEUKOFLOW_S3_SECRET_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(UsageError, match="not both"):
        load(Settings)
    environment.delenv("LEUKOFLOW_S3_SECRET_KEY")
    with pytest.raises(UsageError, match="LEUKOFLOW_S3_SECRET_KEY_FILE names the file"):
        load(Settings)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("LEUKOFLOW_ENGIN", "did you mean LEUKOFLOW_ENGINE?"),
        ("LEUKOFLOW_BUCKETSCANS", "did you mean LEUKOFLOW_BUCKET_SCANS?"),
        ("LEUKOFLOW_S3_SECRET_KEY_FIL", "did you mean LEUKOFLOW_S3_SECRET_KEY_FILE?"),
        ("LEUKOFLOW_SECRET_DIR", "did you mean LEUKOFLOW_SECRETS_DIR?"),
        ("leukoflow_secrets_dir", "did you mean LEUKOFLOW_SECRETS_DIR?"),
        ("LEUKOFLOW_QQQQ", "unset it"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_and_the_nearest_named(
    environment: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    environment.setenv(name, "hidden")
    for kind in (LocalSettings, DatabaseSettings, Settings):
        with pytest.raises(UsageError) as raised:
            load(kind)
        assert raised.value.sentence == f"{name} is no setting of leukoflow; {advice}"


def test_lower_case_is_understood_and_variables_of_the_tests_are_left_alone(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("leukoflow_max_attempts", "4")
    environment.setenv("LEUKOFLOW_TEST_AMQP_URL", "amqp://elsewhere")
    assert load(Settings).max_attempts == 4


@pytest.mark.parametrize("kind", [LocalSettings, Settings])
def test_a_secrets_folder_that_is_not_there_is_named(
    environment: pytest.MonkeyPatch, tmp_path: Path, kind: type[LocalSettings]
) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (tmp_path / "away", file):
        environment.setenv("LEUKOFLOW_SECRETS_DIR", str(folder))
        with pytest.raises(UsageError, match=f"^LEUKOFLOW_SECRETS_DIR names the folder {folder}, which"):
            load(kind)


def test_a_typo_on_the_command_line_is_one_line_and_exit_code_2(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LEUKOFLOW_ENGIN", "openvino")
    command = [sys.executable, "-m", "worker", "status"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == (
        "leukoflow: LEUKOFLOW_ENGIN is no setting of leukoflow; did you mean LEUKOFLOW_ENGINE?\n"
    )


def test_secrets_show_neither_in_settings_nor_in_errors(environment: pytest.MonkeyPatch) -> None:
    settings = load(Settings)
    assert "hidden" not in repr(settings) + str(settings) + str(settings.model_dump())
    environment.setenv("LEUKOFLOW_MAX_ATTEMPTS", "hidden")
    with pytest.raises(UsageError) as raised:
        load(Settings)
    assert "hidden" not in raised.value.sentence
    assert raised.value.__cause__ is None


def test_local_work_needs_no_services_and_results_need_the_database_only(
    environment: pytest.MonkeyPatch,
) -> None:
    for name in REQUIRED:
        environment.delenv(name)
    assert load(LocalSettings, max_pixels=7).max_pixels == 7
    with pytest.raises(UsageError, match="LEUKOFLOW_DATABASE_URL"):
        load(DatabaseSettings)
    environment.setenv("LEUKOFLOW_DATABASE_URL", "postgresql+psycopg://u@h/d")
    assert load(DatabaseSettings).database_url.get_secret_value().endswith("@h/d")


def test_a_child_gets_our_environment_but_for_what_is_replaced(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "database_url").write_text("postgresql+psycopg://other")
    environment.setenv("LEUKOFLOW_MAX_ATTEMPTS", "5")
    child = child_environment(secrets_dir=str(tmp_path), s3_endpoint="other:1")
    assert "LEUKOFLOW_DATABASE_URL" not in child
    assert child["LEUKOFLOW_S3_ENDPOINT"] == "other:1"
    assert child["LEUKOFLOW_MAX_ATTEMPTS"] == "5"
    assert child["PATH"] == os.environ["PATH"]


def test_the_table_tells_of_every_setting() -> None:
    table = settings_table()
    rows = [line for line in table.splitlines()[2:] if line]
    assert len(rows) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert f"`{variable_of(name)}`" in table
        assert field.description, f"{name} says nothing about itself"
    assert os.environ.get("TMPDIR", "/tmp") not in table


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "foo"),
        ("database_url", "postgresql+psycopg://u:hidden@host:abc/x"),
        ("broker_url", "http://:hidden@host/"),
        ("broker_url", "redis://:hidden@host:abc/0"),
        ("s3_endpoint", "host:99999"),
        ("database_url", "postgresql+psycopg://u:hidden@host/x?sslmode=perhaps"),
        ("broker_url", "rediss://:hidden@host/0?ssl_cert_reqs=none"),
        ("broker_url", "amqps://u:hidden@host/v?ssl_cert_reqs=none"),
        ("broker_url", "amqp://u:hidden@:5672/v"),
        ("broker_url", "sqs://u:hidden@host/v"),
        ("ca_certificates", "/no/such/file"),
    ],
)
def test_an_address_that_is_none_is_named_and_not_quoted(name, value):
    values = {
        "database_url": "postgresql+psycopg://u:p@localhost/x",
        "broker_url": "redis://localhost",
        "s3_endpoint": "localhost:9000",
        "s3_access_key": "a",
        "s3_secret_key": "b",
    }
    with pytest.raises(UsageError) as caught:
        load(Settings, **{**values, name: value})
    assert "LEUKOFLOW_" + name.upper() in caught.value.sentence
    assert "hidden" not in caught.value.sentence


@pytest.mark.parametrize("scheme", sorted(set[str]().union(*(dialect.schemes for dialect in DIALECTS))))
def test_every_kind_of_broker_that_we_speak_to_may_be_named(scheme):
    url = f"{scheme}://u:hidden@host/0"
    settings = load(Settings, broker_url=url)
    assert settings.broker_url.get_secret_value() == url
    assert scheme in dialect_of(url).schemes


def test_the_database_is_checked_by_the_certificates_that_are_set(tmp_path: Path) -> None:
    own = tmp_path / "own & others.pem"
    own.write_text("")
    for given, expected in {
        "postgresql://u@h/d?sslmode=verify-full": {"sslmode": "verify-full", "sslrootcert": str(own)},
        "postgresql://u@h/d?sslmode=verify-full&sslrootcert=system": {
            "sslmode": "verify-full",
            "sslrootcert": "system",
        },
        "postgresql://u@h/d?sslmode=disable": {"sslmode": "disable"},
        "postgresql://u@h/d": {},
    }.items():
        settings = load(DatabaseSettings, database_url=given, ca_certificates=own)
        url = settings.database_url.get_secret_value()
        assert dict(parse_qsl(urlsplit(url).query)) == expected
        assert url.partition("?")[0] == "postgresql://u@h/d"
