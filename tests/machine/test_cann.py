"""CANN and the driver: where they lie and which version they are, in both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.machine import cann


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a file system with nothing in it, and a shell that sourced nothing."""
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cann_info(folder: Path) -> None:
    write(folder / "x86_64-linux/ascend_toolkit_install.info", "version=8.0.0\npath=/x\n")


def cann_cfg(folder: Path) -> None:
    write(
        folder / "version.cfg",
        "# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.1.RC1]\n"
        "toolkit_running_version=[7.7.0.1.238:8.2.RC1]\n",
    )


def test_cann_of_the_old_layout(root: Path) -> None:
    latest = root / "usr/local/Ascend/ascend-toolkit/latest"
    cann_cfg(latest)
    assert cann.installations(root) == {latest: "8.2.RC1"}
    cann_info(latest)
    assert cann.installations(root) == {latest: "8.0.0"}


def test_cann_of_the_new_layout(root: Path) -> None:
    base = root / "usr/local/Ascend"
    write(base / "cann-8.5.0/set_env.sh", "")
    (base / "cann").symlink_to("cann-8.5.0")
    assert cann.installations(root) == {base / "cann": "8.5.0"}
    assert cann.set_env_script(root) == base / "cann/set_env.sh"


def test_cann_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cann_info(root / "usr/local/Ascend/ascend-toolkit/latest")

    def refuse(*arguments: object) -> str:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert cann.installations(root) == {}


def test_the_cann_in_use_goes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "usr/local/Ascend"
    cann_info(base / "ascend-toolkit/latest")
    (base / "cann-9.1.0").mkdir(parents=True)
    assert [*cann.installations(root).values()] == ["9.1.0", "8.0.0"]
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(base / "ascend-toolkit/latest"))
    assert [*cann.installations(root).values()] == ["8.0.0", "9.1.0"]


# What a set_env.sh of CANN 8.5 does, in short: it asks where it lies, and puts itself in front.
SET_ENV = """
script=$(readlink -f "${BASH_SOURCE[0]}")
export ASCEND_TOOLKIT_HOME=$(dirname "$script")
export ASCEND_HOME_PATH=$ASCEND_TOOLKIT_HOME
export PYTHONPATH=$ASCEND_TOOLKIT_HOME/python/site-packages:$PYTHONPATH
if [ -n "$LD_LIBRARY_PATH" ]; then
  export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$ASCEND_TOOLKIT_HOME/plugin:$LD_LIBRARY_PATH
else
  export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$ASCEND_TOOLKIT_HOME/plugin
fi
export PATH=$ASCEND_TOOLKIT_HOME/bin:$PATH
unset script
echo "what a script prints is nobody's variable"
"""


@pytest.fixture
def home(root: Path) -> Path:
    folder = root / "usr/local/Ascend/cann"
    write(folder / "set_env.sh", SET_ENV)
    return folder


def test_what_set_env_sets_and_what_it_adds_to(root: Path, home: Path) -> None:
    script = cann.set_env_script(root)
    assert script
    assert cann.settings_of(script) == {
        "ASCEND_TOOLKIT_HOME": cann.Setting(str(home), adds=False),
        "ASCEND_HOME_PATH": cann.Setting(str(home), adds=False),
        "PYTHONPATH": cann.Setting(f"{home}/python/site-packages", adds=True),
        "LD_LIBRARY_PATH": cann.Setting(f"{home}/lib64:{home}/plugin", adds=True),
        "PATH": cann.Setting(f"{home}/bin", adds=True),
    }


def test_a_readers_own_settings_win(home: Path) -> None:
    settings = cann.settings_of(home / "set_env.sh")
    own = {"PATH": "/mine:/bin", "LD_LIBRARY_PATH": f"/mine/lib:{home}/plugin"}
    changed = cann.changes(settings, own)
    assert changed["PATH"] == f"/mine:/bin:{home}/bin"
    assert changed["LD_LIBRARY_PATH"] == f"/mine/lib:{home}/plugin:{home}/lib64"
    assert changed["PYTHONPATH"] == f"{home}/python/site-packages"
    settings["ASCEND_GLOBAL_LOG_LEVEL"] = cann.Setting("3", adds=False)
    assert "ASCEND_GLOBAL_LOG_LEVEL" not in cann.changes(settings, {"ASCEND_GLOBAL_LOG_LEVEL": "1"})


def test_two_canns_are_never_mixed(home: Path) -> None:
    settings = cann.settings_of(home / "set_env.sh")
    assert cann.changes(settings, {"ASCEND_HOME_PATH": "/another"}) == {}


def test_the_script_of_the_cann_in_use_goes_first(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = root / "opt/ascend-toolkit"
    write(old / "set_env.sh", "")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(old / "latest"))
    assert cann.set_env_script(root) == old / "set_env.sh"
    monkeypatch.setenv("ASCEND_HOME_PATH", "/gone")
    assert cann.set_env_script(root) == home / "set_env.sh"


def test_two_canns_in_one_environment_are_noticed(root: Path) -> None:
    old, new = root / "usr/local/Ascend/ascend-toolkit/latest", root / "data/cann-8.5.0"
    cann_info(old)
    for folder in (old / "lib64", old / "lib64/plugin", new / "lib64"):
        folder.mkdir(parents=True)
    one = f"{old}/lib64:{old}/lib64/plugin:/usr/local/Ascend/driver/lib64"
    assert cann.mixed({}) == []
    assert cann.mixed({"LD_LIBRARY_PATH": one}) == []
    assert cann.mixed({"LD_LIBRARY_PATH": f"{new}/lib64:{one}"}) == [new, old]
