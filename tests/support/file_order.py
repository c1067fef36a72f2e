"""Which files of tests come first.

Processes share the files, and each takes the next one when it is done: where the longest come last, one
process waits for the other.
"""

from __future__ import annotations

import pytest

SLOWEST_FIRST = (
    "tests/integration/test_health.py",
    "tests/integration/deploy/test_compose_stack.py",
    "tests/acceptance/test_readme.py",
    "tests/acceptance/test_counting.py",
    "tests/acceptance/test_death_and_restart.py",
    "tests/unit/pipeline/training/export/test_bundle_of_several.py",
    "tests/acceptance/test_analyse_command.py",
    "tests/acceptance/test_command_line.py",
    "tests/unit/pipeline/runtime/tensorrt/test_tensorrt_precision.py",
    "tests/integration/test_tls.py",
    "tests/chaos/test_chaos.py",
    "tests/unit/pipeline/training/export/test_export.py",
    "tests/integration/training/test_training.py",
    "tests/integration/test_queue.py",
    "tests/acceptance/test_demo_and_up.py",
    "tests/acceptance/test_ten_thousand_objects.py",
    "tests/integration/test_secrets_stay_secret.py",
    "tests/integration/test_messages.py",
    "tests/integration/deploy/test_scaling_query.py",
    "tests/acceptance/test_fast_and_reference.py",
    "tests/integration/embedded/test_embedded_set.py",
    "tests/unit/pipeline/networks/test_paper_networks.py",
    "tests/integration/test_served_metrics.py",
    "tests/integration/test_restore.py",
    "tests/integration/test_traces.py",
    "tests/integration/training/test_killed.py",
    "tests/unit/pipeline/runtime/tensorrt/test_tensorrt_builds.py",
    "tests/acceptance/test_the_way.py",
    "tests/unit/pipeline/test_run.py",
    "tests/integration/test_reading_is_recorded.py",
    "tests/integration/training/test_picture_training.py",
    "tests/integration/db/test_retention.py",
    "tests/integration/embedded/test_state_folder.py",
    "tests/integration/test_speaks_to_nobody.py",
    "tests/unit/worker/test_settings.py",
    "tests/acceptance/test_keys_of_other_clients.py",
    "tests/golden/test_golden.py",
)
"""files that take ten seconds and more; times: `make test PYTEST_ARGS=--junitxml=build/tests.xml`"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first; all else stays as it was."""
    places = {file: place for place, file in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))
