"""Models behind llamafactory-cli api: for this machine only, and gone with the block.

One real server on the tiny model serves several tests; what can go wrong is tried with a stand-in
for llamafactory-cli that answers at once.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import forget_settings
from family import asked, family, listening
from safetensors.numpy import save_file

from helpers.calls import evalscope, factory, serving
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, keys, models, recipes, settings
from helpers.programs import process
from helpers.programs.making import Making
from helpers.records import schema, store

STAND_IN = """
import http.server, json, os, sys, time
NAME = {name!r} or os.environ["API_MODEL_NAME"]
class Handler(http.server.BaseHTTPRequestHandler):
    def reply(self, answer):
        self.send_response(200); self.end_headers(); self.wfile.write(json.dumps(answer).encode())
    def do_GET(self):
        self.reply({{"data": [{{"id": NAME}}]}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("asked", asked["messages"][0]["content"], flush=True)
        {asked}
        self.reply({{"choices": [{{"message": {{"content": "so it is"}}}}]}} if {answers} else {{}})
    def log_message(self, *arguments):
        pass
{before}
address = (os.environ["API_HOST"], int(os.environ["API_PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts a stand-in in llamafactory-cli's place."""

    def put(before: str = "", name: str = "", answers: bool = True, asked: str = "pass") -> None:
        program = tmp_path / "llamafactory-cli"
        code = STAND_IN.format(before=before, name=name, answers=answers, asked=asked)
        program.write_text(f"#!{sys.executable}\n{code}")
        program.chmod(0o755)
        monkeypatch.setattr(factory, "CLI", str(program))

    return put


@pytest.fixture
def chosen(smoke: settings.Settings) -> settings.Settings:
    """The smoke profile with a model folder that is there, but never loaded."""
    smoke.model.path.mkdir(parents=True)
    (smoke.model.path / "config.json").write_text('{"model_type": "qwen2"}')
    return smoke


def write_adapter(folder: Path) -> None:
    """Write a LoRA adapter for the tiny model as a training leaves it, with random weights."""
    draw = np.random.default_rng(0)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    folder.mkdir(parents=True)
    save_file(
        {
            name.format("A"): draw.normal(size=(8, 64)).astype("float32"),
            name.format("B"): draw.normal(size=(64, 8)).astype("float32"),
        },
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"],
              "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    """A run with data, the tiny model and an adapter."""
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        patch.setattr(paths, "RUNS", tmp_path_factory.mktemp("runs"))
        found = settings.resolve("smoke", run="served")
        models.obtain(found.model, found.run.logs / "model.log")
        data.prepare(found, say=lambda line: None)
        write_adapter(found.run.adapter("lora"))
        yield found


@pytest.fixture(scope="module")
def server(prepared: settings.Settings) -> Iterator[serving.Server]:
    with pytest.MonkeyPatch.context() as patch:
        # Neither a proxy nor a key that the reader has set for other programs may be in the way.
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        patch.setenv("API_KEY", "somebody's own")
        patch.setenv("API_HOST", "0.0.0.0")
        with serving.serving("lora", prepared) as up:
            yield up
    assert not psutil.pid_exists(up.pid)
    assert serving._check_free(up.port) is None


def test_it_listens_on_this_machine_only(server: serving.Server) -> None:
    assert listening(family(server.pid)) == {("127.0.0.1", server.port)}


def test_base_and_adapter_answer_and_repeat_themselves(server: serving.Server) -> None:
    first = server.ask("Ann has 3 pens and buys 4. How many has she?")
    assert first
    assert server.ask("Ann has 3 pens and buys 4. How many has she?") == first
    assert "Loaded adapter(s)" in server.log.read_text()


@pytest.mark.skipif(
    not evalscope.PROGRAM.is_file(), reason="evalscope is not set up: make evalscope does it"
)
def test_evalscope_scores_a_served_model(
    server: serving.Server,
    prepared: settings.Settings,
    make_record: Callable[..., schema.Record],
) -> None:
    store.write(prepared.run, make_record("lora"))
    asked = evalscope.held_out(prepared)
    making = Making(prepared.run, "put")
    score = evalscope.put(server, asked, 3, prepared, making)
    assert (score.subject, score.benchmark, score.n) == ("lora", "held_out", 3)
    assert score.correct / 3 == pytest.approx(score.share, abs=0.01)
    out = making.place(prepared.run.root / "evalscope" / "lora_held_out")
    # What it scored is what the model says, problem by problem, put as in training.
    lines = (out / "reviews" / "lora" / "gsm8k_default.jsonl").read_text().splitlines()
    reviews = [json.loads(line) for line in lines]
    questions = [json.loads(line) for line in (asked.folder / "test.jsonl").open()][:3]
    for review, question in zip(reviews, questions, strict=True):
        said = review["sample_score"]["score"]["prediction"]
        assert said.strip() == server.ask(question["question"]).strip()
    log = (prepared.run.logs / "lora_held_out_evalscope.log").read_text()
    assert "Finished evaluation" in log


def test_a_web_page_opens_on_the_port_asked_for_and_here_only(
    prepared: settings.Settings, tmp_path: Path
) -> None:
    port = serving.free_port()
    file = serving.write_recipe("base", prepared)
    command = serving.web_command("webchat", file, port)
    assert str(serving.WEB_PORT) in serving.web_command("webchat", file)
    env = process.environment("cpu", extra={"OMP_NUM_THREADS": "1", "BROWSER": "true"})
    with process.running(["bash", "-c", command], tmp_path / "log", env=env) as program:
        until = time.monotonic() + 120
        opened = 0
        while not opened and time.monotonic() < until and program.guard.poll() is None:
            try:
                with serving._open(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    opened = page.status
            except OSError:
                time.sleep(0.3)
        assert opened == 200, process.tail(tmp_path / "log")
        assert listening(family(program.guard.pid)) == {("127.0.0.1", port)}
        members = family(program.guard.pid)
    assert not [member for member in members if member.is_running()]


def test_an_override_of_how_a_problem_is_read_holds_in_a_chat(chosen: settings.Settings) -> None:
    told = {"default_system": "Answer.", "double_quantization": True}
    asked = dataclasses.replace(chosen, overrides=told)
    assert told.items() <= serving.recipe_of("qlora", asked).items()
    assert serving.recipe_of("base", asked)["default_system"] == "Answer."


def test_a_chat_uses_what_training_and_measuring_used(chosen: settings.Settings) -> None:
    for subject in ("base", "qlora", "lora_merged"):
        used = recipes.for_prediction(subject, chosen)
        served = serving.recipe_of(subject, chosen)
        keys.check(served, subject)
        assert served["infer_dtype"] == "bfloat16"
        assert {key: used.get(key) for key in served if key != "infer_dtype"} == {
            key: value for key, value in served.items() if key != "infer_dtype"
        }
    assert serving.recipe_of("qlora", chosen)["quantization_bit"] == 4
    assert "quantization_bit" not in serving.recipe_of("lora_merged", chosen)
    assert "lora_merged" in serving.recipe_of("lora_merged", chosen)["model_name_or_path"]
    text = serving.write_recipe("qlora", chosen).read_text()
    commands = [line for line in text.splitlines() if "llamafactory-cli" in line]
    assert len(commands) == 3
    assert all("127.0.0.1" in line for line in commands if "chat " not in line or "web" in line)
    assert "0.0.0.0" not in text


def test_the_commands_of_a_run_open_its_own_models_on_this_machine_only(
    chosen: settings.Settings,
) -> None:
    lines = serving.commands(chosen).splitlines()
    assert ["lora_chat.yaml" in line for line in lines] == [True, False, True, False]
    assert "chat" in lines[1]
    assert "lora_merged_chat.yaml" in lines[1]
    assert all("127.0.0.1" in line for line in lines if "web" in line)
    for name in ("lora", "lora_merged"):
        assert (chosen.run.recipes / f"{name}_chat.yaml").is_file()
    dashboard = serving.dashboard_command(chosen)
    assert dashboard.startswith(".venv/bin/swanlab watch ")
    assert "runs/test/swanlab --host 127.0.0.1 --port " in dashboard


def test_commands_can_be_typed_where_folders_have_spaces(
    chosen: settings.Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(paths, "RUNS", tmp_path / "my runs")
    lines = [*serving.commands(chosen).splitlines(), serving.dashboard_command(chosen)]
    file, *_, folder = (shlex.split(line) for line in lines)
    assert file[-1] == str(chosen.run.recipes / "lora_chat.yaml")
    assert folder[2] == str(chosen.run.swanlab)
    written = recipes.write({}, "llamafactory-cli train", chosen.run.recipes / "lora.yaml")
    command = written.read_text("utf-8").splitlines()[1].lstrip("# ")
    assert shlex.split(command)[-1] == str(written)


def test_the_server_goes_with_the_block_however_it_ends(
    chosen: settings.Settings, stand_in: Callable[..., None]
) -> None:
    stand_in("import subprocess; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)")
    members: list[psutil.Process] = []

    def interrupted() -> None:
        with serving.serving("base", chosen) as up:
            members.extend(family(up.pid))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(members) == 2
    assert not [member for member in members if member.is_running()]


def test_a_taken_port_is_one_sentence(chosen: settings.Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(TutorialError, match=f"Port {port} is taken"):
            serving.serving("base", chosen, port).__enter__()


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("sys.exit('ValueError: no such weights')", r"failed \(ValueError: no such weights\)"),
        ("sys.exit('[Errno 98] bind on address: address already in use')", "port is in use"),
        ("os.kill(os.getpid(), 9)", "killed from outside"),
    ],
)
def test_a_server_that_ends_is_one_sentence(
    before: str, words: str, chosen: settings.Settings, stand_in: Callable[..., None]
) -> None:
    stand_in(before)
    with pytest.raises(TutorialError, match=words) as caught:
        serving.serving("base", chosen).__enter__()
    assert caught.value.log == chosen.run.logs / "base_api.log"


def test_a_server_that_never_answers_is_given_up(
    chosen: settings.Settings, stand_in: Callable[..., None]
) -> None:
    stand_in("time.sleep(60)")
    with pytest.raises(TutorialError, match="did not answer within 2 seconds"):
        serving.serving("base", chosen, patience_seconds=2).__enter__()
    commands = asked(family(psutil.Process().pid), psutil.Process.cmdline)
    assert not [member for member, words in commands if str(factory.CLI) in words]


def test_another_program_on_the_port_is_not_taken_for_ours(
    chosen: settings.Settings, stand_in: Callable[..., None]
) -> None:
    stand_in(name="another-model")
    with pytest.raises(TutorialError, match="taken by another program meanwhile"):
        serving.serving("base", chosen).__enter__()


def test_an_answer_that_is_none_is_one_sentence(
    chosen: settings.Settings, stand_in: Callable[..., None]
) -> None:
    stand_in(answers=False)
    with (
        serving.serving("base", chosen) as up,
        pytest.raises(TutorialError, match="server of base did not answer"),
    ):
        up.ask("Are you there?")


def test_a_server_that_ends_while_it_is_asked_says_why(
    chosen: settings.Settings, stand_in: Callable[..., None]
) -> None:
    stand_in(asked="os.kill(os.getpid(), 9)")
    with (
        pytest.raises(TutorialError, match="killed from outside"),
        serving.serving("base", chosen) as up,
    ):
        up.ask("Are you there?")


def test_a_chat_is_held_once(
    chosen: settings.Settings,
    stand_in: Callable[..., None],
    make_record: Callable[..., schema.Record],
) -> None:
    stand_in()
    log = chosen.run.logs / "base_api.log"
    said: list[str] = []
    assert serving.chat("base", ["one"], chosen, said.append) == []
    assert "smoke profile's model is random" in said[0]
    profile = chosen.profile.model_copy(update={"chat": True})
    chosen = dataclasses.replace(chosen, profile=profile)
    with pytest.raises(TutorialError, match="run the notebook 03_lora first"):
        serving.chat("base", ["one"], chosen, said.append)
    store.write(chosen.run, make_record("base"))
    first = serving.chat("base", ["one", "two"], chosen, said.append)
    assert [(one.question, one.answer) for one in first] == [
        ("one", "so it is"),
        ("two", "so it is"),
    ]
    assert log.read_text().split() == ["asked", "one", "asked", "two"]
    log.unlink()
    assert serving.chat("base", ["one", "two"], chosen, said.append) == first
    assert not log.exists()
    assert said[-1].startswith("Re-using base_chat")
    serving.chat("base", ["three"], chosen, said.append)
    assert log.read_text().split() == ["asked", "three"]
    store.write(chosen.run, make_record("base", model_sha256="another"))
    serving.chat("base", ["three"], chosen, said.append)
    assert "model changed" in said[-1]
