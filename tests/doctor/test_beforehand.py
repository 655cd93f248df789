"""What is looked at before anything starts: places, locks, and the overrides' values."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Tutorial
from helpers.doctor import beforehand
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_yaml
from helpers.inputs import arguments, keys, recipes, settings
from helpers.machine import hardware
from helpers.programs import process


def as_nobody(check: object, *arguments: object) -> str:
    """Call something as a user without rights, in a child; return the sentence that it ends in."""
    assert callable(check)
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            check(*arguments)
            os.write(tell, b"no error")
        except TutorialError as error:
            os.write(tell, error.message.encode())
        except BaseException as error:
            os.write(tell, repr(error).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def open_runs(smoke: settings.Settings, tmp_path: Path) -> settings.Settings:
    """A run in a folder that every user reaches."""
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    for folder in (paths.MODELS, smoke.run.root):
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    return smoke


def test_a_run_in_good_order_passes_and_leaves_nothing(open_runs: settings.Settings) -> None:
    beforehand.check(open_runs)
    assert as_nobody(beforehand.check_places, open_runs) == "no error"
    assert list(open_runs.run.root.iterdir()) == []


@pytest.mark.parametrize("name", [".lock", ".step.lock"])
def test_a_lock_of_another_user_names_that_user(open_runs: settings.Settings, name: str) -> None:
    """What one `sudo make run` leaves behind."""
    (open_runs.run.root / name).touch(mode=0o644)
    said = as_nobody(beforehand.check_places, open_runs)
    assert f"{name} belongs to root" in said
    assert "sudo chown -R" in said


def test_a_folder_of_another_user_names_that_user(open_runs: settings.Settings) -> None:
    (open_runs.run.root / "logs").mkdir(mode=0o755)
    assert "logs belongs to root" in as_nobody(beforehand.check_places, open_runs)


@pytest.mark.parametrize("name", [".lock", ".step.lock"])
def test_a_lock_that_is_a_folder_is_named(open_runs: settings.Settings, name: str) -> None:
    (open_runs.run.root / name).mkdir()
    with pytest.raises(TutorialError, match=rf"test/\{name} cannot be written.*Move it away"):
        beforehand.check_places(open_runs)


def test_a_models_folder_that_cannot_be_made_is_told(
    smoke: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "MODELS", Path("/proc/xx"))
    with pytest.raises(TutorialError, match=r"/proc/xx.*TUTORIAL_MODELS=/folder"):
        beforehand.check_places(smoke)


def test_what_a_killed_process_left_is_taken_away_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    monkeypatch.setattr(process, "_place_of_sockets", lambda: str(tmp_path))
    kept = [f"lora-{os.getpid()}-x", "lora-notes-x", f"lora-{ended.pid}"]
    for name in (f"lora-{ended.pid}-x", *kept):
        (tmp_path / name / "session").mkdir(parents=True)
    with process.socket_folder() as folder:
        assert {each.name for each in tmp_path.iterdir()} == {*kept, folder.name}
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(kept)


def test_a_long_place_for_temporary_files_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes 107 bytes for a socket's path."""
    long = tmp_path / ("t" * 130)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with process.socket_folder() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "kernel-5"))
    assert process.environment("cpu")["TMPDIR"] in ("/tmp", "/dev/shm")
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(TutorialError, match="export TMPDIR=/folder"), process.socket_folder():
        pass


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("output_dir", "RUN= decides it"),
        ("dataset_dir", "DATA= decides it"),
        ("val_size", "DATA= decides it"),
        ("model_name_or_path", "MODEL= decides it"),
        ("use_cpu", "PROFILE= decides it"),
        ("finetuning_type", "METHODS= decides it"),
        ("do_train", "leave do_train out"),
        ("do_predict", "leave do_predict out"),
        ("resume_from_checkpoint", "leave resume_from_checkpoint out"),
        ("hub_token", "recipes are kept and shown"),
        ("swanlab_api_key", "recipes are kept and shown"),
    ],
)
def test_keys_that_belong_to_the_run_are_refused_by_name(runs: Path, key: str, words: str) -> None:
    assert key in keys.known()
    with pytest.raises(TutorialError, match=words):
        settings.resolve("smoke", run="test", overrides={key: "x"})
    assert not runs.exists()


def test_recipes_themselves_may_hold_them() -> None:
    keys.check(["output_dir", "do_train", "dataset_dir"], "configs/lora.yaml")


@pytest.mark.parametrize("word", ["max_steps=3", "num_train_epochs=0.01", "learning_rate=0"])
def test_an_odd_value_that_can_be_trained_with_is_no_matter_of_range(runs: Path, word: str) -> None:
    [(key, value)] = settings.parse_overrides(word).items()
    arguments._check_range(key, value)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("lora_rank=0", "a number from 1 to 100000"),
        ("lora_rank=-8", "a number from 1"),
        ("learning_rate=-1.0e-4", "not below 0"),
        ("learning_rate=.nan", "out of range"),
        ("weight_decay=.inf", "out of range"),
        ("neftune_noise_alpha=.inf", "a finite number"),
        ("num_train_epochs=0", "a number above 0"),
        ("warmup_ratio=2", "a number from 0 to 1"),
        ("per_device_train_batch_size=0", "not below 1"),
        ("seed=-1", "a number from 0"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_starts(
    runs: Path, word: str, words: str
) -> None:
    chosen = Tutorial("smoke", run="test", overrides=settings.parse_overrides(word))
    for act in (chosen.obtain, lambda: chosen.run_notebooks({}), chosen.method("lora").train):
        with pytest.raises(TutorialError, match=words):
            act()
    assert not runs.exists()


class Asked:
    """Stands where the process would be that reads recipes as LLaMA-Factory does."""

    def __init__(self, answer: object = None) -> None:
        self.answer, self.times = answer, 0

    def __call__(self, command: list[str], log: Path, env: object = None) -> float:
        self.times += 1
        assert command[1:3] == ["-m", "helpers.worker.arguments"]
        files = [Path(file) for file in command[4:]]
        assert [file.stem for file in files] == ["lora", "qlora"]
        answer = self.answer
        if isinstance(answer, dict):
            answer = answer | {"file": str(files[1])}
        Path(command[3]).write_text(json.dumps(answer))
        return 0.0


def test_what_was_found_good_is_asked_once(
    smoke: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked()
    monkeypatch.setattr(process, "run", asked)
    arguments.check(smoke)
    assert asked.times == 0  # nothing was overridden
    for rank, times in ((4, 1), (4, 1), (8, 2)):
        arguments.check(settings.resolve("smoke", run="test", overrides={"lora_rank": rank}))
        assert asked.times == times


def test_what_was_refused_is_asked_again_and_named(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked({"key": "lora_rank", "reason": "Input should be a valid integer."})
    monkeypatch.setattr(process, "run", asked)
    chosen = settings.resolve("smoke", run="test", overrides={"lora_rank": "four"})
    for times in (1, 2):
        with pytest.raises(TutorialError, match=r"lora_rank='four' \(Input should be a valid int"):
            arguments.check(chosen)
        assert asked.times == times
    asked.answer = {"key": "", "reason": "At most one of fp16 and bf16 can be True"}
    with pytest.raises(TutorialError, match=r"recipe of QLoRA .*At most one.*configs/qlora\.yaml"):
        arguments.check(chosen)


def test_llamafactory_itself_judges_types_and_what_goes_together(tmp_path: Path) -> None:
    """One process reads several recipes, as llamafactory-cli would."""
    chosen = settings.resolve("smoke", run="test")
    base = recipes.for_training("lora", chosen, planned=True)
    wrong: list[tuple[dict[str, object], str, str]] = [
        ({}, "", ""),
        ({"lora_rank": "four"}, "lora_rank", "integer"),
        ({"learning_rate": "nan"}, "learning_rate", "finite"),
        ({"template": "qwem"}, "template", "no template"),
        ({"bf16": True, "fp16": True}, "", "At most one of fp16 and bf16"),
        ({"lr_scheduler_type": "nonsense"}, "", "nonsense"),
        ({"max_steps": 3, "num_train_epochs": 0.01, "learning_rate": 0}, "", ""),
    ]
    code = "import json, sys\nfrom helpers.worker import arguments\n"
    code += "print('FOUND', json.dumps([arguments.check(f) for f in sys.argv[1:]]))"
    files = []
    for place, (change, _, _) in enumerate(wrong):
        files.append(str(tmp_path / f"{place}.yaml"))
        write_yaml(Path(files[-1]), base | change)
    process.run(
        [sys.executable, "-c", code, *files], tmp_path / "log", env=process.environment("cpu")
    )
    [line] = [x for x in (tmp_path / "log").read_text().splitlines() if x.startswith("FOUND")]
    for found, (change, key, reason) in zip(json.loads(line[6:]), wrong, strict=True):
        if not reason:
            assert found is None, change
        else:
            assert found["key"] == key
            assert reason in found["reason"]


# ---- cards --------------------------------------------------------------------------------------


def machine_with(*names: str) -> hardware.Hardware:
    return hardware.Hardware(
        device="npu", accelerators=list(names), cpu="C", cores=4, memory_gb=1.0, system="Linux"
    )


@pytest.mark.parametrize(
    ("names", "visible", "cards", "words"),
    [
        (["A", "A"], None, 4, "asks for more than there are: 2 can be used here"),
        (["A", "A", "A", "A"], "3", 2, "asks for more than there is: 1 can be used here"),
        ([], None, 2, "asks for more than there are: 0 can be used here"),
        (["A", "B"], None, 2, r"cards of two kinds \(A, B\)"),
        (["A", "A", "A"], None, 3, "does not divide by 3 cards"),
        (["A", "B", "A"], "0,2", 2, None),
        (["A", "A", "B"], None, 2, None),
    ],
)
def test_cards_that_a_training_cannot_have_are_one_sentence(
    runs: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], visible: str | None, cards: int,
    words: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(hardware, "describe", lambda: machine_with(*names))
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    chosen = settings.resolve("npu", cards=cards)
    if words is None:
        beforehand.check_cards(chosen)
        return
    with pytest.raises(TutorialError, match=words) as caught:
        beforehand.check_cards(chosen)
    assert "\n" not in str(caught.value)


def test_one_card_alone_shards_no_model(runs: Path) -> None:
    with pytest.raises(TutorialError, match="SHARDED=yes shards a model over several cards"):
        beforehand.check_cards(settings.resolve("npu", sharded="yes"))


def test_on_a_cpu_there_are_as_many_as_it_has_cores(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "describe", lambda: machine_with())
    beforehand.check_cards(settings.resolve("smoke", cards=4))
    with pytest.raises(TutorialError, match="does not divide by 8"):
        beforehand.check_cards(settings.resolve("smoke", cards=8))
