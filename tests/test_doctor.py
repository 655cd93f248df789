"""The doctor on made-up machines: each guard is shown to fire, and to keep still."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from typer.testing import CliRunner

import helpers.__main__
from helpers import cann, cards, doctor, hardware, host, paths, probe, process
from helpers.doctor import examine
from helpers.errors import TutorialError
from helpers.host import Check, Status, failed
from helpers.probe import Probe
from helpers.settings import Settings, resolve

FIXTURES = Path(__file__).parent / "fixtures" / "npu_smi"
GIB = 2**30
NPU = Probe(
    torch="2.10.0+cpu", torch_npu="2.10.0.post2", cann="9.1.0", cards=1, name="Ascend910B2",
    bf16=True, free=58 * GIB, total=61 * GIB, nf4_error=0.092,
)  # fmt: skip
CPU = Probe(torch="2.10.0", nf4_error=0.092)
CANN_MISSING = """\
Traceback (most recent call last):
ImportError: libhccl.so: cannot open shared object file: No such file or directory. Please check \
that the cann package is installed. Please run 'source set_env.sh' in the CANN installation path.
RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension \
auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.
"""


def outside_make(changes: dict[str, str]) -> dict[str, str]:
    """Return the environment of a `make` that is not called by another one: `make test`."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))} | changes


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without cards, keys or proxies, whose models and runs lie in tmp_path."""
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_RT_VISIBLE_DEVICES",
                 "SWANLAB_API_KEY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
                 "TUTORIAL_MODEL", "TUTORIAL_PROFILE", "TUTORIAL_RUN"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(cards, "npu_device_files", list)
    monkeypatch.setattr(hardware, "cuda_cards", tuple)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a file system with nothing in it."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def ascend(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Ascend host in good order: driver, CANN 9.1.0 sourced, npu-smi that shows one card."""
    write(root / "usr/local/Ascend/driver/version.info", "Version=25.5.1\nascendhal_version=7\n")
    latest = root / "usr/local/Ascend/ascend-toolkit/latest"
    write(
        latest / "aarch64-linux/ascend_toolkit_install.info",
        "package_name=Ascend-cann-toolkit\nversion=9.1.0\ninnerversion=V100R001\npath=/x\n",
    )
    write(latest.parent / "set_env.sh", "")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(latest))
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910b2_23.0.7.txt")
    return root


def npu_smi_says(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    write(folder / "bin/npu-smi", f"#!/bin/sh\n{script}\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")


def seen_by(profile: str, seen: Probe, root: Path, model: str = "Qwen2-0.5B") -> dict[str, Check]:
    """Return what the doctor finds, by the checks' names."""
    found = examine(resolve(profile, model), root=root, ask=lambda device: seen)
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.finding
        assert (check.remedy == "") == (check.status is Status.OK), check
        assert not check.remedy or check.remedy.endswith(".")
    return {check.name: check for check in found}


def complaints(found: dict[str, Check]) -> dict[str, Status]:
    return {name: check.status for name, check in found.items() if check.status is not Status.OK}


# ---- whole machines ------------------------------------------------------------------------------


def test_a_cpu_machine_in_good_order(root: Path) -> None:
    found = seen_by("smoke", CPU, root, "tiny-random-qwen2")
    assert complaints(found) == {}
    assert not failed(list(found.values()))


def test_an_ascend_host_in_good_order(ascend: Path) -> None:
    found = seen_by("npu", NPU, ascend)
    assert complaints(found) == {}
    assert "25.5.1; npu-smi shows 1 x 910B2" in found["Ascend driver"].finding
    assert "they go together" in found["torch, torch_npu, CANN"].finding


def test_an_npu_profile_without_an_npu(root: Path) -> None:
    found = seen_by("npu", Probe(torch="2.10.0", cards=0), root)
    assert complaints(found) == {
        "Ascend driver": Status.FAIL,
        "CANN": Status.FAIL,
        "set_env.sh": Status.FAIL,
        "torch, torch_npu, CANN": Status.FAIL,
        "NPU in torch": Status.FAIL,
        "free device memory": Status.WARN,
    }
    assert failed(list(found.values()))


def test_what_an_npu_host_lacks_is_no_failure_of_a_cpu_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "npu_device_files", lambda: [Path("/dev/davinci0")])
    found = seen_by("cpu", CPU, root)
    assert complaints(found)["CANN"] is Status.WARN
    assert not failed(list(found.values()))


def test_torch_that_dies_on_import_is_explained(ascend: Path) -> None:
    found = seen_by("npu", Probe(output=CANN_MISSING), ascend)
    assert found["import torch"].status is Status.FAIL
    assert "Failed to load the backend extension" in found["import torch"].finding
    assert "set_env.sh" in found["import torch"].remedy
    assert "NPU in torch" not in found  # a consequence


def test_several_npus_of_which_one_is_used(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,1")
    found = seen_by("npu", NPU.model_copy(update={"cards": 2}), ascend)
    assert complaints(found) == {}
    assert found["NPU in torch"].finding.startswith("2 cards are visible, and only the first")
    assert process.environment("npu")["ASCEND_RT_VISIBLE_DEVICES"] == "0"  # so no torchrun


@pytest.mark.parametrize("status", list(Status))
def test_the_command_lists_each_check_and_its_exit_code_tells_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    check = Check("CANN", status, "what was found", "What to do.")
    monkeypatch.setattr(doctor, "examine", lambda settings: [check])
    told = CliRunner().invoke(helpers.__main__.app, ["doctor", "--profile", "smoke"])
    assert told.exit_code == (status is Status.FAIL)


def test_a_cuda_machine(root: Path) -> None:
    seen = NPU.model_copy(update={"torch_npu": None, "cann": None, "cards": 2, "name": "H200"})
    found = seen_by("cuda", seen, root)
    assert complaints(found) == {}
    assert found["CUDA in torch"].finding == "2 cards are visible, and only the first is used: H200"


# ---- the probe -----------------------------------------------------------------------------------


def test_the_doctor_itself_does_not_import_torch() -> None:
    code = "import sys, helpers.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_the_real_probe_on_this_cpu() -> None:
    seen = probe.ask("cpu")
    assert (seen.torch or "").startswith(metadata.version("torch"))
    assert seen.nf4_error is not None
    assert 0.08 < seen.nf4_error <= doctor.NF4_ERROR_BOUND
    assert seen.nf4_fault == ""


def probe_with(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Probe:
    """Return the probe's answer where the child Python is a shell script."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    python = write(folder / "python", f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return probe.ask("npu")


def test_a_child_that_crashes_leaves_what_it_saw(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Probe(torch="2.10.0").model_dump_json()
    seen = probe_with(
        monkeypatch, tmp_path, f"echo '{first}'; echo noise; echo drvRetCode=87 >&2; kill -SEGV $$"
    )
    assert seen.torch == "2.10.0"
    check = doctor.check_device("npu", seen)
    assert check.status is Status.FAIL
    assert "signal 11" in check.finding
    assert "driver does not answer" in check.remedy


def test_a_child_that_dies_on_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = probe_with(monkeypatch, tmp_path, f"cat >&2 <<'END'\n{CANN_MISSING}END\nexit 1")
    assert seen.torch is None
    assert "set_env.sh" in doctor.check_torch(seen).remedy


def test_a_child_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.3)
    seen = probe_with(monkeypatch, tmp_path, 'echo \'{"torch": "2.10.0"}\'; exec sleep 20')
    assert seen.torch == "2.10.0"
    assert "more than 0.3 s" in doctor.check_device("npu", seen).finding


def test_a_key_in_an_error_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", "very-secret-key")
    check = doctor.check_torch(Probe(output="ImportError: broken by very-secret-key"))
    assert "very-secret-key" not in check.finding
    cloud = doctor.check_swanlab()
    assert "cloud" in cloud.finding
    assert "very-secret-key" not in cloud.finding
    monkeypatch.delenv("SWANLAB_API_KEY")
    assert "local" in doctor.check_swanlab().finding


# ---- Python and packages -------------------------------------------------------------------------


def test_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.check_python().status is Status.OK
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    assert host.check_python().status is Status.FAIL


def test_the_lock_is_read(tmp_path: Path) -> None:
    pinned = doctor.pins(doctor.LOCK)
    assert pinned["bitsandbytes"] == "0.48.2"
    assert set(doctor.PACKAGES) <= set(pinned)
    assert doctor.pins(doctor.NPU_LOCK)["torch-npu"] == "2.10.0.post2"
    with pytest.raises(TutorialError, match="restore it with git"):
        doctor.pins(tmp_path / "absent.lock")


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("torch", "2.10.0", Status.OK),
        ("torch", "2.10.0+cpu", Status.OK),
        ("torch", "2.9.1", Status.WARN),
        ("peft", None, Status.FAIL),
        ("bitsandbytes", "0.49.1", Status.FAIL),
        ("bitsandbytes", "0.50.2", Status.FAIL),
        ("bitsandbytes", "0.47.0", Status.WARN),
    ],
)
def test_versions_beside_the_lock(package: str, version: str | None, status: Status) -> None:
    pinned = {"torch": "2.10.0", "peft": "0.18.1", "bitsandbytes": "0.48.2"}
    (check,) = doctor.check_packages(pinned, {package: version})
    assert check.status is status


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ({}, Status.OK, "3 packages"),
        ({"scipy": None}, Status.FAIL, "not installed: scipy"),
        ({"scipy": "1.0.0"}, Status.WARN, "scipy 1.0.0"),
        ({"nvidia-nccl-cu12": None}, Status.FAIL, "nvidia-nccl-cu12"),
        ({"nvidia-nccl-cu12": None, "torch": "2.10.0+cpu"}, Status.OK, "2 packages"),
    ],
)
def test_the_rest_of_the_lock(found: dict[str, str | None], status: Status, words: str) -> None:
    pinned = {"torch": "2.10.0", "scipy": "1.17.0", "nvidia-nccl-cu12": "2.27.5", "rich": "14.2.0"}
    there = {name: version for name, version in (pinned | found).items() if version}
    check = doctor.check_lock(pinned, there)
    assert check.status is status
    assert words in check.finding


def test_only_pins_of_this_machine_count(tmp_path: Path) -> None:
    lock = write(
        tmp_path / "lock",
        "winsome==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:0\n"
        "here==2.0 ; python_full_version < '3.12' \\\n    --hash=sha256:1\n    # via x\n",
    )
    assert doctor.pins(lock) == {"here": "2.0"}


def test_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_deepspeed().status is Status.OK
    monkeypatch.setattr(doctor, "installed", lambda package: "0.16.9")
    assert doctor.check_deepspeed().status is Status.WARN


# ---- torch and the device ------------------------------------------------------------------------


def test_a_card_that_cannot_be_asked() -> None:
    seen = NPU.model_copy(
        update={"device_fault": "RuntimeError: NPU out of memory. Tried to allocate 2.00 MiB"}
    )
    check = doctor.check_device("npu", seen)
    assert check.status is Status.FAIL
    assert "ran out of memory" in check.remedy


def test_no_bf16() -> None:
    assert doctor.check_bf16(NPU.model_copy(update={"bf16": False})).status is Status.FAIL


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"nf4_error": 0.122}, Status.FAIL, "0.122"),  # what FP4 gives
        ({"nf4_error": float("nan")}, Status.FAIL, "nan"),
        ({"nf4_error": None, "nf4_fault": "No module named 'bitsandbytes'"}, Status.FAIL, "make"),
        (
            {"output": "CAUTION: The operator 'aten::gather' is not currently supported on the "
             "NPU backend and will fall back to run on the CPU."},
            Status.WARN,
            "aten::gather",
        ),
    ],
)  # fmt: skip
def test_a_bad_round_trip(change: dict[str, object], status: Status, words: str) -> None:
    check = doctor.check_nf4("npu", NPU.model_copy(update=change))
    assert check.status is status
    assert words in check.finding + check.remedy


def test_a_broken_quantiser_is_noticed() -> None:
    """The figure that the bound guards: neighbours swapped, as a wrong nibble order does."""
    import torch
    from bitsandbytes import functional

    assert probe._nf4_error(torch, "cpu") <= doctor.NF4_ERROR_BOUND
    with pytest.MonkeyPatch.context() as patch:
        right = functional.dequantize_4bit

        def swapped(*arguments: torch.Tensor) -> torch.Tensor:
            return right(*arguments).view(-1, 2).flip(1).view(256, 1024)

        patch.setattr(functional, "dequantize_4bit", swapped)
        assert probe._nf4_error(torch, "cpu") > 1


def test_device_memory() -> None:
    check = doctor.check_device_memory
    assert check(58 * GIB, 61 * GIB, 21e9).status is Status.OK
    assert check(58 * GIB, 61 * GIB, None).status is Status.OK
    assert check(8 * GIB, 61 * GIB, 21e9).status is Status.WARN
    assert check(None, None, 21e9).status is Status.WARN


def test_who_holds_the_card(ascend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910b3_25.5.1_busy.txt")
    check = seen_by("npu", NPU, ascend)["free device memory"]
    assert check.status is Status.WARN
    assert "process 2290156 (VLLMEngineCore) with 56630 MB" in check.finding


def test_a_full_card_is_measured_by_npu_smi(
    ascend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910b3_25.5.1_busy.txt")
    full = Probe(torch="2.10.0", torch_npu="2.10.0.post2", output="NPU out of memory.")
    found = seen_by("npu", full, ascend)
    assert found["NPU in torch"].status is Status.FAIL
    assert found["free device memory"].finding.startswith("5.6 of 68.7 GB; held by")


def test_memory_of_another_card_is_not_counted(
    ascend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910_a3_25.3_phy_id.txt")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1")
    assert seen_by("npu", NPU, ascend)["free device memory"].status is Status.OK
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0")
    assert "VLLMWorker_TP" in seen_by("npu", NPU, ascend)["free device memory"].finding


@pytest.mark.parametrize("value", [None, "0", "0,1", "2,5,7"])
def test_visible_devices_in_order(value: str | None) -> None:
    assert host.check_visible_devices(value).status is Status.OK


@pytest.mark.parametrize("value", ["", "1,0", "0,0", "0,", "a", "-1", "0 1", "\u00b2"])
def test_visible_devices_out_of_order(value: str) -> None:
    assert host.check_visible_devices(value).status is Status.FAIL


# ---- driver, CANN, torch_npu ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (f"cat {FIXTURES}/dcmi_8005.txt; exit 1", Status.FAIL, "-8005"),
        (f"cat {FIXTURES}/dcmi_8020.txt; exit 1", Status.FAIL, "another container"),
        ("echo '| a new table |'", Status.WARN, "cannot be read"),
        (f"cat {FIXTURES}/910b3_24.1_idle.txt", Status.WARN, "NPU 5: Warning"),
    ],
)
def test_npu_smi_in_trouble(
    ascend: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: Status,
    words: str,
) -> None:
    npu_smi_says(tmp_path, monkeypatch, script)
    check = seen_by("npu", NPU, ascend)["Ascend driver"]
    assert check.status is status
    assert words in check.finding + check.remedy


def test_a_driver_without_npu_smi(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert seen_by("npu", NPU, ascend)["Ascend driver"].status is Status.WARN


def test_a_hung_driver(root: Path) -> None:
    check = host.check_driver(root, subprocess.TimeoutExpired(["npu-smi"], 10))
    assert check.status is Status.FAIL
    assert "within 10 s" in check.finding


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
    assert host.check_cann(root).status is Status.OK


def test_cann_of_the_new_layout(root: Path) -> None:
    base = root / "usr/local/Ascend"
    write(base / "cann-8.5.0/set_env.sh", "")
    (base / "cann").symlink_to("cann-8.5.0")
    assert cann.installations(root) == {base / "cann": "8.5.0"}
    assert f"source {base}/cann/set_env.sh" in host.check_set_env(root).remedy


def test_cann_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cann_info(root / "usr/local/Ascend/ascend-toolkit/latest")

    def refuse(*arguments: object) -> str:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert cann.installations(root) == {}
    assert "not readable" in host.check_cann(root).finding


def test_the_cann_in_use_goes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "usr/local/Ascend"
    cann_info(base / "ascend-toolkit/latest")
    (base / "cann-9.1.0").mkdir(parents=True)
    assert [*cann.installations(root).values()] == ["9.1.0", "8.0.0"]
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(base / "ascend-toolkit/latest"))
    assert [*cann.installations(root).values()] == ["8.0.0", "9.1.0"]


def test_set_env_not_sourced_or_gone(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.check_set_env(ascend).status is Status.OK
    monkeypatch.setenv("ASCEND_HOME_PATH", str(ascend / "gone"))
    assert host.check_set_env(ascend).status is Status.FAIL
    monkeypatch.delenv("ASCEND_HOME_PATH")
    check = host.check_set_env(ascend)
    assert check.status is Status.FAIL
    assert "ascend-toolkit/set_env.sh" in check.remedy


@pytest.mark.parametrize(
    ("torch", "torch_npu", "cann", "status"),
    [
        ("2.10.0+cpu", "2.10.0.post2", "9.1.0", Status.OK),
        ("2.6.0", "2.6.0", "8.2.rc1", Status.OK),
        ("2.10.0", "2.10.0.post3", "9.1.0", Status.WARN),
        ("2.10.0", "2.10.0.post2", "8.5.0", Status.FAIL),
        ("2.9.0", "2.10.0.post2", "9.1.0", Status.FAIL),
        (None, "2.10.0.post2", "9.1.0", Status.FAIL),
        ("2.10.0", None, "9.1.0", Status.FAIL),
        ("2.10.0", "2.10.0.post2", None, Status.WARN),
        ("2.10.0", "2.10.0.post2", "10.0.0", Status.WARN),
    ],
)
def test_versions_that_go_together(
    torch: str | None, torch_npu: str | None, cann: str | None, status: Status
) -> None:
    assert doctor.check_compatibility(torch, torch_npu, cann, "2.10.0.post2").status is status


def test_the_pinned_versions_go_together() -> None:
    torch, torch_npu = doctor.pins(doctor.LOCK)["torch"], doctor.pins(doctor.NPU_LOCK)["torch-npu"]
    check = doctor.check_compatibility(torch, torch_npu, "9.1.0", torch_npu)
    assert check.status is Status.OK


# ---- a set-up that does not work -----------------------------------------------------------------


def bare(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m helpers` in a Python that has no packages: -S keeps them away."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "helpers", *arguments],
        cwd=paths.ROOT, env=os.environ | env, capture_output=True, text=True,
    )  # fmt: skip


def test_without_packages_each_command_says_so() -> None:
    done = bare("run", "--profile", "smoke")
    assert done.returncode == 1
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert "No module named 'typer'" in said
    assert "run 'make setup'" in said


@pytest.mark.parametrize("asked", [["--profile", "npu"], ["--profile=npu"], []])
def test_without_packages_the_doctor_checks_the_rest(asked: list[str]) -> None:
    done = bare("doctor", *asked, TUTORIAL_PROFILE="" if asked else "npu")
    assert (done.returncode, done.stderr) == (1, "")
    found = {line[5:].split(":")[0]: line[:5].strip() for line in done.stdout.splitlines()}
    assert found["Python"] == "OK"
    assert {found[name] for name in ("packages", "Ascend driver", "CANN", "set_env.sh")} == {"FAIL"}
    assert "make setup" in done.stdout


def test_without_packages_an_ascend_host_in_good_order(ascend: Path) -> None:
    found = host.examine(ImportError("No module named 'typer'"), "", root=ascend)
    assert complaints({check.name: check for check in found}) == {"packages": Status.FAIL}
    assert "25.5.1" in {check.name: check for check in found}["Ascend driver"].finding
    found = host.examine(ImportError("No module named 'typer'"), "cpu", root=ascend)
    assert [check.name for check in found] == ["Python", "packages"]


def test_a_package_missing_later_is_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(helpers.__main__, "app", app)
    monkeypatch.setattr(sys, "argv", ["helpers", "run"])
    assert helpers.__main__.main() == 1
    assert "No module named 'scipy'" in capsys.readouterr().err


@pytest.mark.parametrize("python", ["", "dangling", "silent"])
def test_make_doctor_needs_no_working_set_up(tmp_path: Path, python: str) -> None:
    """Without .venv, and with one whose Python has gone or does not start."""
    for name in ("Makefile", "helpers", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(paths.ROOT / name)
    if python:
        write(tmp_path / ".venv/.ready", "")
        started = tmp_path / ".venv/bin/python"
        started.parent.mkdir()
        if python == "dangling":
            started.symlink_to("/nowhere/python3.11")
        else:
            write(started, "#!/bin/sh\nexit 1\n").chmod(0o755)
    bare_python = write(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare_python.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "doctor", "PROFILE=npu", f"PYTHON={bare_python}"],
        cwd=tmp_path, env=outside_make({"PATH": "/usr/bin:/bin"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "FAIL packages" in done.stdout
    assert "FAIL CANN" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / ".venv").exists() == bool(python)  # it looks, and makes nothing


@pytest.mark.parametrize(
    ("step", "printed", "words"),
    [
        ("pip install", "ERROR: Could not find a version that satisfies uv", "check the network"),
        ("uv pip sync", "cause: write failed: No space left on device (os error 28)", "make room"),
        ("uv pip install", "error: something new", "The set-up failed (exit code 1)"),
    ],
)
def test_a_set_up_that_fails_ends_with_a_sentence(
    tmp_path: Path, step: str, printed: str, words: str
) -> None:
    for name in ("Makefile", "helpers", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(paths.ROOT / name)
    python = write(
        tmp_path / ".venv/bin/python",
        f'#!/bin/sh\ncase "$*" in\n*"-m helpers.faults"*) exec {sys.executable} -S "$@" ;;\n'
        f'*"{step}"*) echo "{printed}" >&2; exit 1 ;;\nesac\n',
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}"],
        cwd=tmp_path, env=outside_make({"PATH": "/usr/bin:/bin"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.endswith(f"...\n{printed}\n")
    sentence = next(line for line in done.stderr.splitlines() if line)
    assert words in sentence
    assert not (tmp_path / ".venv/.ready").exists()


def test_make_doctor_with_another_python(tmp_path: Path) -> None:
    (tmp_path / "Makefile").symlink_to(paths.ROOT / "Makefile")
    old = write(tmp_path / "python", "#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "doctor", f"PYTHON={old}"],
        cwd=tmp_path, env=outside_make({"PATH": "/usr/bin:/bin"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("Python 3.11 is needed")


# ---- memory, disks, network ----------------------------------------------------------------------


def settings(model: str = "Qwen2-7B", profile: str = "npu") -> Settings:
    return resolve(profile, model)


def free_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize(("free", "status"), [(50e9, Status.FAIL), (65e9, Status.OK)])
def test_room_for_a_7b_model(monkeypatch: pytest.MonkeyPatch, free: float, status: Status) -> None:
    free_disk(monkeypatch, free)
    (check,) = doctor.check_disks(settings())
    assert check.status is status
    assert "62.7 GB needed" in check.finding  # 4 x 15.23 + 1.5 + 0.3


def test_what_is_there_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    free_disk(monkeypatch, 3e9)
    wanted = settings()
    assert doctor.check_disks(wanted)[0].status is Status.FAIL
    write(wanted.model.path / "model.safetensors", "weights")
    for subject in paths.MERGED:
        write(wanted.run.merged(subject) / "model.safetensors", "weights")
    assert doctor.check_disks(wanted)[0].status is Status.OK


def test_a_model_of_unknown_size(tmp_path: Path) -> None:
    wanted = settings("Qwen/Qwen2.5-1.5B")
    assert doctor.check_disks(wanted)[0].status is Status.WARN
    write(wanted.model.path / "model.safetensors", "x" * 1000)
    assert doctor.weights_bytes(wanted) == 1000
    assert doctor.check_disks(wanted)[0].status is Status.OK


def test_two_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = {tmp_path / "models": 1, tmp_path / "runs": 2}
    for place in places:
        place.mkdir()
    monkeypatch.setattr(
        doctor, "_existing",
        lambda path: SimpleNamespace(stat=lambda: SimpleNamespace(st_dev=places[path])),
    )  # fmt: skip
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: True)
    free_disk(monkeypatch, 20e9)
    models_disk, runs_disk = doctor.check_disks(settings())
    assert (models_disk.status, runs_disk.status) == (Status.OK, Status.FAIL)


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    (check,) = doctor.check_disks(settings())
    assert check.status is Status.FAIL
    assert "cannot be written" in check.finding


def test_little_memory(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for available, status in ((40e9, Status.OK), (20e9, Status.WARN)):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda size=available: SimpleNamespace(available=size)
        )
        assert doctor.check_memory(settings(), root).status is status


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(
    monkeypatch: pytest.MonkeyPatch, root: Path, version: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=90 * 10**9))
    group = root / "sys/fs/cgroup"
    if version == 1:
        group = group / "memory"
        limit, used, cached = (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        )
    else:
        limit, used, cached = "memory.max", "memory.current", "inactive_file"
    write(group / limit, "20000000000\n")
    write(group / used, "9000000000\n")
    write(group / "memory.stat", f"anon 7\n{cached} 4000000000\nactive_file 1\n")
    assert doctor._available_memory(root) == 15_000_000_000
    write(group / limit, "max\n")
    assert doctor._available_memory(root) == 90_000_000_000


def on_autodl(monkeypatch: pytest.MonkeyPatch, root: Path, mounted: bool) -> Path:
    disk = root / "root/autodl-tmp"
    disk.mkdir(parents=True)
    monkeypatch.setattr(doctor.os.path, "ismount", lambda path: mounted)
    return disk


def test_no_autodl(root: Path) -> None:
    assert host.check_data_disk(root) is None


def test_the_system_disk_of_autodl(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    disk = on_autodl(monkeypatch, root, mounted=True)
    check = host.check_data_disk(root)
    assert check
    assert check.status is Status.WARN
    assert "TUTORIAL_MODELS=/root/autodl-tmp/models" in check.remedy
    monkeypatch.setattr(paths, "MODELS", disk / "models")
    monkeypatch.setattr(paths, "RUNS", disk / "runs")
    check = host.check_data_disk(root)
    assert check
    assert check.status is Status.OK


def test_no_data_disk_on_autodl(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    on_autodl(monkeypatch, root, mounted=False)
    check = host.check_data_disk(root)
    assert check
    assert "not mounted" in check.finding


def test_a_proxy_that_network_turbo_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_proxy(settings()) is None
    monkeypatch.setenv("http_proxy", "http://name:password@proxy:1")
    monkeypatch.setenv("https_proxy", "http://name:password@proxy:1")
    check = doctor.check_proxy(settings())
    assert check
    assert check.status is Status.WARN
    assert "unset http_proxy https_proxy" in check.remedy
    assert "password" not in check.finding + check.remedy
    assert doctor.check_proxy(settings("tiny-random-qwen2", "smoke")) is None
