"""The download script without a connection: it checks what is there and says what to do."""

from __future__ import annotations

import hashlib
import importlib.util

import pytest

from conftest import ROOT


@pytest.fixture
def script(monkeypatch):
    path = ROOT / "scripts" / "fetch_checkpoint.py"
    spec = importlib.util.spec_from_file_location("fetch_checkpoint", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_internet_it_says_what_to_do(script, tmp_path, capsys):
    assert script.main(["--to", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "cannot fetch config.json" in error
    assert script.REVISION in error
    assert str(tmp_path) in error


def test_files_that_are_there_are_checked(script, tmp_path, capsys, monkeypatch):
    files = {name: name.encode() for name in script.SHA256}
    monkeypatch.setattr(
        script, "SHA256", {n: hashlib.sha256(data).hexdigest() for n, data in files.items()}
    )
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert script.main(["--to", str(tmp_path)]) == 0
    assert "asr serve --checkpoint" in capsys.readouterr().out
    (tmp_path / "tokenizer.json").write_bytes(b"tampered")
    assert "expected" in script.missing_or_wrong(tmp_path)["tokenizer.json"]
    assert script.main(["--to", str(tmp_path)]) == 1
    assert "cannot fetch tokenizer.json" in capsys.readouterr().err


def test_a_download_of_other_content_is_not_kept(script, tmp_path, monkeypatch):
    def download(repository, name, revision, local_dir):
        assert (repository, revision) == (script.REPOSITORY, script.REVISION)
        local_dir.mkdir(exist_ok=True)
        (local_dir / name).write_bytes(b"something else")
        return str(local_dir / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(ValueError, match="sha256 is"):
        script.fetch("config.json", tmp_path)
    assert not (tmp_path / "config.json").exists()
