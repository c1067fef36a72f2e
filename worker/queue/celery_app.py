"""The queue: Celery over Redis or RabbitMQ, JSON only. A message holds the id of a scan and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from amqp.exceptions import AccessRefused
from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import ChannelError, OperationalError
from redis.exceptions import AuthenticationError

from db.records import Due
from pipeline.model.errors import DeploymentError, TransientError
from worker.queue.broker_dialects import dialect_of
from worker.queue.scan_message import TASK_NAME
from worker.settings import Settings

QUERY_TIMEOUT_S = 5.0
NOT_FOUND, PRECONDITION_FAILED = "404", "406"
"""AMQP reply codes, which kombu uses for every transport."""
DECLARE = "Queue.declare"
"""the AMQP method that declares a queue; errors name the failed method."""

_REFUSALS = (AuthenticationError, AccessRefused)
"""how Redis and RabbitMQ reject a login"""

SEND_RETRY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}


def make_app(settings: Settings) -> Celery:
    """Return the Celery application. Connects at first use."""
    url = settings.broker_url.get_secret_value()
    dialect = dialect_of(url)
    queue = Queue(  # type: ignore[no-untyped-call]
        settings.queue, queue_arguments=dict(dialect.queue_arguments)
    )
    app = Celery("leukoflow", broker=url)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_default_queue=settings.queue,
        task_queues=[queue],
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,  # anyone with access to the broker could stop workers
        broker_use_ssl=_tls_of(settings),
        broker_transport=dialect.transport,
        broker_transport_options=dict(dialect.transport_options),
        broker_channel_error_retry=dialect.comes_back_after_channel_error,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        enable_utc=True,
    )
    app.finalize()
    for task in list(app.tasks):  # Celery's built-in tasks, which call others by name
        app.tasks.unregister(task)
    return app


def _tls_of(settings: Settings) -> dict[str, object] | None:
    """Return how the certificate and name of the broker are verified; None if its URL is not for TLS.

    By default kombu verifies neither.
    """
    parts = urlsplit(settings.broker_url.get_secret_value())
    ca_certificates = str(settings.ca_certificates) if settings.ca_certificates else None
    if parts.scheme == "rediss":
        return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_certificates}
    if parts.scheme == "amqps":
        return {
            "context": {"check_hostname": True, "cafile": ca_certificates},
            "server_hostname": parts.hostname,
        }
    return None


class CeleryQueue:
    """Sends one message per scan, and counts the waiting messages."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._priorities = dialect_of(app.conf.broker_url).priorities

    def waiting_messages(self) -> int:
        """Return how many messages wait in the queue. Uses a connection of its own.

        Raises: TransientError, where the broker is unreachable or rejects the login.
        """
        with self._app.connection_for_read() as connection:
            try:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=QUERY_TIMEOUT_S)
                channel = connection.default_channel
                return int(
                    channel.queue_declare(self._app.conf.task_default_queue, passive=True).message_count
                )
            except (*connection.channel_errors, ChannelError) as error:
                if _is_missing_queue(error):
                    return 0
                raise _away(error) from error
            except (OperationalError, *connection.connection_errors) as error:
                raise _away(error) from error

    def send(self, due: Iterable[Due]) -> int:
        """Send a message for each scan; return their number. Call it after the commit that marked them
        queued.

        Raises: TransientError, where the broker is unreachable or rejects the login (the ledger has queued
        scans sent again); DeploymentError, where the queue was declared differently.
        """
        sent = 0
        with self._app.connection_for_write() as connection:
            try:
                for scan in due:
                    self._app.send_task(
                        TASK_NAME,
                        args=[str(scan.scan_id)],
                        priority=self._priorities[scan.priority],
                        connection=connection,
                        retry=True,
                        retry_policy=SEND_RETRY,
                    )
                    sent += 1
            except (*connection.channel_errors, ChannelError) as error:
                raise (queue_differs() if is_refused_queue(error) else _away(error)) from error
            except (OperationalError, *connection.connection_errors) as error:
                raise _away(error) from error
        return sent


def _is_missing_queue(error: Exception) -> bool:
    """Return whether the queue does not exist; in Redis, a queue without messages does not."""
    return str(getattr(error, "reply_code", "")) == NOT_FOUND


def is_refused_queue(error: Exception) -> bool:
    """Return whether a queue of this name exists that was declared differently."""
    refused = str(getattr(error, "reply_code", "")) == PRECONDITION_FAILED
    return refused and getattr(error, "method_name", "") == DECLARE


def queue_differs() -> DeploymentError:
    """Return the error for such a queue."""
    return DeploymentError(
        "the broker has a queue of the name LEUKOFLOW_QUEUE that was declared differently; delete it "
        "there, or choose another name: waiting scans are sent again",
        code="queue_differs",
    )


def _away(error: Exception) -> TransientError:
    """Return the error for a broker that does not answer or rejects the login; a restart helps with
    neither.
    """
    if isinstance(error, _REFUSALS) or isinstance(error.__cause__, _REFUSALS):
        return TransientError("the broker rejects the login in LEUKOFLOW_BROKER_URL", code="broker_refused")
    return TransientError("the broker does not answer", code="broker_unreachable")
