"""Examples of the documents on the gateway run as they stand."""

from __future__ import annotations

import re

import pytest

from conftest import ROOT

pytestmark = pytest.mark.server


@pytest.mark.parametrize("name", ["gateway.md", "websocket.md"])
def test_python_examples(gateway, capsys, monkeypatch, name):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert examples
    for code in examples:
        exec(code.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.port}"), {})
        assert len(capsys.readouterr().out) > 20


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
