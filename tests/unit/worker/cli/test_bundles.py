"""Which bundle and profile a person gets, and that what does not fit is their one line with exit code 2."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bundle.manifest import Profile, Thresholds
from pipeline.model.errors import UsageError
from pipeline.model.spec import PipelineSpec
from pipeline.runtime.engines.engine_port import EngineName
from tests.support import tiny_bundle
from worker.cli import main
from worker.cli.bundles import asked_analyser, asked_bundle, asked_profile, asked_settings
from worker.settings import variable_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle.write_bundle(tmp_path)
    return tmp_path


def test_the_command_line_goes_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_settings(None, None).profile is Profile.FAST
    monkeypatch.setenv(variable_of("profile"), "accurate")
    monkeypatch.setenv(variable_of("bundle"), str(folder))
    assert asked_settings(None, None).profile is Profile.ACCURATE
    assert asked_settings(None, Profile.FAST).profile is Profile.FAST
    assert asked_profile(None) is Profile.ACCURATE


def test_an_unknown_profile_in_the_environment_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable_of("profile"), "slow")
    with pytest.raises(UsageError, match=r"LEUKOFLOW_PROFILE is not valid.*'fast' or 'accurate'"):
        asked_settings(None, None)


def test_profile_and_thresholds_are_in_the_key_of_a_run(folder: Path) -> None:
    manifest = tiny_bundle.write_bundle(folder)
    keys = []
    for thresholds in (None, Thresholds(0.5, 0.6, 0.2, 0.01)):
        tiny_bundle.write_manifest(folder, replace(manifest, thresholds=thresholds))
        for profile in Profile:
            with asked_analyser(folder, profile) as analyser:
                assert analyser.bundle.profile is profile
                assert analyser.models.segmenter.stride_px == tiny_bundle.STRIDES_PX[profile]
                keys.append(analyser.run_key("scan"))
    assert len(set(keys)) == 4
    assert analyser.spec == replace(
        PipelineSpec(), accept_probability=0.5, leaf_probability=0.6, max_disagreement=0.2
    )


def test_a_profile_that_the_bundle_lacks_is_the_persons_mistake(folder: Path) -> None:
    manifest = tiny_bundle.write_bundle(folder)
    light_only = replace(manifest.segmenter, profiles=manifest.segmenter.profiles[:1])
    tiny_bundle.write_manifest(folder, replace(manifest, segmenter=light_only))
    with pytest.raises(UsageError, match="no profile 'accurate'"), asked_analyser(folder, Profile.ACCURATE):
        pass
    assert asked_bundle(folder).profile is Profile.FAST


@pytest.mark.parametrize("command", ["analyse", "verify"])
@pytest.mark.parametrize("broken", ["digest", "classes", "format", "missing"])
def test_a_bundle_that_does_not_fit_is_one_line_and_exit_code_2(
    folder: Path,
    command: str,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = tiny_bundle.write_bundle(folder)
    if broken == "digest":
        (folder / manifest.segmenter.members[1].file).write_bytes(b"other")
    elif broken == "classes":
        tiny_bundle.write_manifest(folder, replace(manifest, classes=manifest.classes[::-1]))
    elif broken == "format":
        text = manifest.render().replace('"format": 2', '"format": 1')
        (folder / "manifest.json").write_text(text, encoding="utf-8")
    else:
        (folder / "manifest.json").unlink()
    scan = folder / "scan.png"
    scan.touch()
    arguments = {
        "analyse": ["analyse", str(scan), "--bundle", str(folder)],
        "verify": ["models", "verify", str(folder)],
    }[command]
    monkeypatch.setattr(sys, "argv", ["leukoflow", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("leukoflow: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("engine", [EngineName.OPENVINO, EngineName.ONNXRUNTIME])
@pytest.mark.parametrize("profile", list(Profile))
def test_verify_tells_the_digest_that_results_carry(
    folder: Path,
    engine: EngineName,
    profile: Profile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_bundle.write_int8(folder)
    monkeypatch.setenv(variable_of("engine"), engine)
    monkeypatch.setenv(variable_of("profile"), profile)
    monkeypatch.setattr(sys, "argv", ["leukoflow", "models", "verify", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    (in_use,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("*"))
    with asked_analyser(folder, profile, engine) as analyser:
        assert in_use.split()[1] == profile
        assert in_use.split()[3] == analyser.run_key("scan").bundle_digest


def test_list_tells_the_digest_of_the_shipped_bundle_in_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["leukoflow", "models", "list"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out.splitlines()
    with asked_analyser(None, None) as analyser:
        assert [line.split()[-1] for line in said if line.startswith("*")] == [analyser.bundle.digest]
