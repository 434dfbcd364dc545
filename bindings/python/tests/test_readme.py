"""The code of README.md, run as it stands there."""

import asyncio
import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[1] / "README.md").read_text()
IN_TESTS, IN_A_PROGRAM, WITH_THE_SDK = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


def test_in_tests():
    exec(IN_TESTS, {})


def test_in_a_program(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert '"port": 3000' in IN_A_PROGRAM  # which may not be free here
    names = {
        "secret_from_your_vault": "a secret of the tests, longer than it must be",
        "key_from_your_vault": "0123456789abcdefghijklmnopqrstuv",
    }
    exec(IN_A_PROGRAM.replace('"port": 3000', '"port": 0'), names)
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    names["gateway"].close()
    assert (tmp_path / "gateway.db").exists()


def test_with_the_sdk(gw, calculator):
    names = {}
    exec(WITH_THE_SDK, names)
    assert asyncio.run(names["list_tools"](gw, gw.as_user("alice").token)) == ["add", "fail", "crash"]
