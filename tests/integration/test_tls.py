"""TLS to all three servers: with whom we speak is checked, and nobody else is spoken to.

SeaweedFS speaks it by itself. The wheels of PostgreSQL and Valkey are built without it; there the test puts
it in front of them. Certificates are made for the test.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import trustme
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from sqlalchemy import text

from db.database import Database
from db.revision import current_revision
from db.states import ScanState
from pipeline.model.errors import DeploymentError, TransientError
from tests.acceptance.pictures import field_jpeg
from tests.support.deployment import deployment_on
from tests.support.tls import tls_in_front_of
from worker.embedded import EmbeddedSet
from worker.embedded.credentials import Credentials, load_or_create
from worker.embedded.free_ports import PortAllocation
from worker.embedded.seaweedfs import SeaweedFs
from worker.queue.celery_app import make_app
from worker.settings import Settings, load
from worker.storage.object_store import open_object_store

pytestmark = pytest.mark.services

SERVICES = ("database", "broker", "store")


class TlsSeaweedFs(SeaweedFs):
    """The real server with TLS on a port of its own."""

    def __init__(
        self, state: Path, ports: PortAllocation, credentials: Credentials, certificate: Path
    ) -> None:
        super().__init__(state, ports, credentials)
        self._certificate = certificate

    def _flags(self, contents: Path, identities: Path) -> list[str]:
        return [
            *super()._flags(contents, identities),
            f"-s3.port.https={self._ports['tls']}",
            f"-s3.cert.file={self._certificate}",
            f"-s3.key.file={self._certificate}",
        ]


@dataclass(frozen=True)
class Laboratory:
    """The servers behind TLS, by who signed for them and under which name."""

    servers: EmbeddedSet
    ca_certificates: Path
    other_ca: Path
    trusted: dict[str, int]
    """ports of services whose certificates are what they should be"""
    misnamed: dict[str, int]
    """ports of services that show the certificate of another machine"""


@pytest.fixture(scope="module")
def laboratory(embedded: EmbeddedSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other.pem"))
    with ExitStack() as stack:
        places = [
            stack.enter_context(answering(embedded, ca.issue_cert(name), folder / name))
            for name in ("127.0.0.1", "elsewhere.example")
        ]
        yield Laboratory(embedded, folder / "ca.pem", folder / "other.pem", *places)


@contextmanager
def answering(servers: EmbeddedSet, leaf: trustme.LeafCert, folder: Path) -> Iterator[dict[str, int]]:
    """Return the ports on which the services answer with the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    database, broker = (urlsplit(url).port for url in (servers.database_url, servers.broker_url))
    with (
        tls_in_front_of(database, context, asks_first=True) as database,
        tls_in_front_of(broker, context) as broker,
        store_answering(servers, leaf, folder) as store,
    ):
        yield {"database": database, "broker": broker, "store": store}


@contextmanager
def store_answering(servers: EmbeddedSet, leaf: trustme.LeafCert, folder: Path) -> Iterator[int]:
    """Return the port of an object store of its own, with the keys of `servers`."""
    (folder / "logs").mkdir(parents=True)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "certificate.pem"))
    ports = PortAllocation(folder / "ports.json", {})
    ports.assign([*SeaweedFs.port_names, "tls"])
    credentials = load_or_create(servers.state / "secrets.json")
    server = TlsSeaweedFs(folder, ports, credentials, folder / "certificate.pem")
    server.launch()
    try:
        server.await_ready()
        yield ports["tls"]
    finally:
        server.ask_to_stop()
        server.wait_stopped()


def settings_at(laboratory: Laboratory, ports: dict[str, int], ca_certificates: Path | None) -> Settings:
    """Return the settings of who asks for TLS at these ports."""
    secrets = laboratory.servers.secrets_of(None)

    def at(url: str, port: int, **parts: str) -> str:
        login = urlsplit(url).netloc.rpartition("@")[0]
        return urlunsplit(urlsplit(url)._replace(netloc=f"{login}@127.0.0.1:{port}", **parts))

    return load(
        Settings,
        database_url=at(secrets["database_url"], ports["database"], query="sslmode=verify-full"),
        broker_url=at(secrets["broker_url"], ports["broker"], scheme="rediss"),
        s3_access_key=secrets["s3_access_key"],
        s3_secret_key=secrets["s3_secret_key"],
        s3_endpoint=f"127.0.0.1:{ports['store']}",
        s3_secure=True,
        ca_certificates=ca_certificates,
    )


def asked_database(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    current_revision(url)
    with Database(url) as database, database.transaction() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
        driver = connection.connection.driver_connection
        assert driver.pgconn.ssl_in_use


def asked_broker(settings: Settings) -> None:
    with make_app(settings).connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        assert connection.default_channel.client.ping()


def asked_store(settings: Settings) -> None:
    open_object_store(settings, "scans").ensure_bucket()


ASK: dict[str, Callable[[Settings], None]] = {
    "database": asked_database,
    "broker": asked_broker,
    "store": asked_store,
}
REFUSED = (TransientError, DeploymentError, OperationalError)


@pytest.mark.parametrize("service", SERVICES)
def test_a_server_that_is_who_it_says_is_spoken_to(laboratory, service):
    ASK[service](settings_at(laboratory, laboratory.trusted, laboratory.ca_certificates))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("ca", ["of somebody else", "of the system"])
def test_a_server_whose_signer_is_unknown_is_not_spoken_to(laboratory, service, ca):
    ca_certificates = laboratory.other_ca if ca == "of somebody else" else None
    with pytest.raises(REFUSED):
        ASK[service](settings_at(laboratory, laboratory.trusted, ca_certificates))


@pytest.mark.parametrize("service", SERVICES)
def test_a_server_of_another_name_is_not_spoken_to(laboratory, service):
    with pytest.raises(REFUSED):
        ASK[service](settings_at(laboratory, laboratory.misnamed, laboratory.ca_certificates))


@pytest.mark.parametrize("service", SERVICES)
def test_a_server_without_tls_is_not_spoken_to(laboratory, service):
    servers = laboratory.servers
    plain = {
        "database": urlsplit(servers.database_url).port,
        "broker": urlsplit(servers.broker_url).port,
        "store": int(servers.s3_endpoint.rpartition(":")[2]),
    }
    with pytest.raises(REFUSED):
        ASK[service](settings_at(laboratory, plain, laboratory.ca_certificates))


def test_a_certificate_that_we_do_not_trust_is_the_deployments_fault(laboratory):
    settings = settings_at(laboratory, laboratory.trusted, laboratory.other_ca)
    with pytest.raises(DeploymentError) as refused:
        asked_store(settings)
    assert refused.value.code == "store_untrusted"


def test_a_scan_goes_all_its_way_over_tls(laboratory, tmp_path):
    reached = settings_at(laboratory, laboratory.trusted, laboratory.ca_certificates)
    plain = reached.database_url.get_secret_value()
    with deployment_on(
        laboratory.servers,
        tmp_path,
        broker_url=reached.broker_url.get_secret_value(),
        s3_endpoint=reached.s3_endpoint,
        s3_secure="true",
        ca_certificates=str(laboratory.ca_certificates),
    ) as deployment:
        address = urlsplit(plain)
        own = urlsplit(deployment.settings.database_url.get_secret_value())
        over_tls = urlunsplit(address._replace(path=own.path))
        deployment.settings = deployment.settings.model_copy(update={"database_url": SecretStr(over_tls)})
        deployment.start("watch")
        deployment.start("worker")
        deployment.drop("P-1/S-1/a.jpg", field_jpeg(40))
        deployment.until_ended(1)
        assert deployment.counts()[ScanState.COMPLETED] == 1
