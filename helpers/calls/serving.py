"""A model behind `llamafactory-cli api`: started, asked and stopped, on this machine only."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from helpers.calls import factory
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_json, write_yaml
from helpers.ground.words import tr
from helpers.inputs import keys, recipes
from helpers.inputs.methods import Recipe
from helpers.inputs.settings import Settings
from helpers.programs import process, steps
from helpers.programs.making import Making
from helpers.records import schema, store
from helpers.records.versions import versions

# LLaMA-Factory's own default for api, webchat and webui is 0.0.0.0: every address of the machine.
HOST = "127.0.0.1"
_CLI = ".venv/bin/llamafactory-cli"  # as readers type it
DASHBOARD_PORT = 5092  # SwanLab's own
WEB_PORT = 6006  # the one that AutoDL forwards
PATIENCE_SECONDS = 900.0  # a 7B model may come from a slow disk
_ANSWER_SECONDS = 600.0
# What the recipe of a prediction and that of a chat have in common, quantisation's keys besides.
_KEPT = ("model_name_or_path", "adapter_name_or_path", "finetuning_type", "cutoff_len",
         "max_new_tokens", "do_sample", *recipes.READING_KEYS)  # fmt: skip
# A proxy of the environment (AutoDL's, say) must not be asked for this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Said(BaseModel):
    """One question, and what one model answered."""

    question: str
    answer: str


@dataclass(frozen=True)
class Server:
    """A model that answers on a port of this machine."""

    name: str
    port: int
    pid: int
    log: Path
    most_tokens: int

    @property
    def address(self) -> str:
        """The base address of the OpenAI-compatible interface."""
        return f"http://{HOST}:{self.port}/v1"

    def ask(self, question: str) -> str:
        """Put one question to the model, as the first of a conversation; return its answer.

        Raises:
            TutorialError: the server does not answer, or refuses the question.
        """
        asked = {
            "model": self.name,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self.most_tokens,
        }
        request = urllib.request.Request(
            f"{self.address}/chat/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with _open(request, timeout=_ANSWER_SECONDS) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"])
        except (OSError, ValueError, KeyError) as error:
            raise TutorialError(
                tr(
                    "The server of {name} did not answer ({error}): its log says more; correct the "
                    "cause and run this again.",
                    name=self.name,
                    error=error,
                ),
                log=self.log,
                tail=process.tail(self.log),
            ) from error


def recipe_of(subject: str, settings: Settings) -> Recipe:
    """Return the recipe that chats with a subject as it was trained and measured.

    Template, adapter, quantisation and lengths are those with which the subject answers the
    held-out problems.
    """
    used = recipes.for_prediction(subject, settings)
    wanted = keys.quantisation().union(_KEPT)
    kept = {key: value for key, value in used.items() if key in wanted}
    half = "bfloat16" if used.get("bf16") else "float16" if used.get("fp16") else "auto"
    return kept | {"infer_dtype": half}


def write_recipe(subject: str, settings: Settings) -> Path:
    """Write the recipe with which api, chat and webchat take a subject, and return the file."""
    file = settings.run.recipes / f"{subject}_chat.yaml"
    header = "\n".join(
        [
            tr("One model to talk to, from the repository and on this machine only:"),
            f"  {chat_command(file)}",
            f"  {web_command('webchat', file)}",
            f"  API_HOST={HOST} API_PORT=8000 {_CLI} api {_typed(file)}",
        ]
    )
    write_yaml(file, recipe_of(subject, settings), header)
    return file


def _typed(path: Path) -> str:
    """Return a path as it is typed in the repository, in quotes where a shell would break it."""
    return shlex.quote(paths.in_recipe(path))


def chat_command(file: Path) -> str:
    """Return the command that starts a conversation in a terminal with the model of a recipe."""
    return f"{_CLI} chat {_typed(file)}"


def web_command(action: str, file: Path | None = None, port: int = WEB_PORT) -> str:
    """Return the command that opens one of LLaMA-Factory's pages for this machine alone.

    Args:
        action: webchat, or webui (which takes no recipe).
        file: the recipe of the model to chat with.
        port: where.
    """
    taken = "" if file is None else f" {_typed(file)}"
    return f"GRADIO_SERVER_NAME={HOST} GRADIO_SERVER_PORT={port} {_CLI} {action}{taken}"


def commands(settings: Settings) -> str:
    """Return commands that open a run's models to talk to, on this machine only, a line each.

    A conversation in a terminal with the first method's adapter beside the base model, and with
    its merged model; a page in the browser; and LLaMA-Factory's whole board. The recipes that
    they take are written into the run folder.
    """
    method = settings.methods[0]
    merged = next(
        name
        for name, subject in settings.subjects.items()
        if subject.kind == "merged" and subject.method == method
    )
    with_adapter = write_recipe(method.name, settings)
    return "\n".join(
        [
            chat_command(with_adapter),
            chat_command(write_recipe(merged, settings)),
            web_command("webchat", with_adapter),
            web_command("webui"),
        ]
    )


def dashboard_command(settings: Settings) -> str:
    """Return the command that opens SwanLab's dashboard over a run's trainings.

    It listens on this machine only.
    """
    folder = _typed(settings.run.swanlab)
    return f".venv/bin/swanlab watch {folder} --host {HOST} --port {DASHBOARD_PORT}"


def free_port() -> int:
    """Return a port that nothing on this machine listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


def _check_free(port: int) -> None:
    with socket.socket() as wanted:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            wanted.bind((HOST, port))
        except OSError as error:
            raise TutorialError(
                tr(
                    "Port {port} is taken by another program: end that one, or choose another "
                    "port.",
                    port=port,
                )
            ) from error


def _models(port: int) -> list[str]:
    with _open(f"http://{HOST}:{port}/v1/models", timeout=5) as reply:
        return [str(model["id"]) for model in json.load(reply)["data"]]


@contextmanager
def serving(
    subject: str,
    settings: Settings,
    port: int | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[Server]:
    """Serve one model for as long as the block runs.

    Args:
        subject: the name of one of the run's subjects.
        settings: the run's settings.
        port: where to listen; None takes a free one.
        patience_seconds: how long to wait for the model to be loaded.

    Raises:
        TutorialError: the model is missing, the port is taken, or the server ended or did not
            answer in time.
    """
    if port is None:
        port = free_port()
    _check_free(port)
    run, device = settings.run, settings.profile.device
    file = write_recipe(subject, settings)
    log = run.logs / f"{subject}_api.log"
    command = [factory.CLI, "api", paths.in_recipe(file)]
    env = process.environment(device, run.cache, settings.environment) | {
        "API_HOST": HOST,
        "API_PORT": str(port),
        "API_MODEL_NAME": subject,
        "API_KEY": "",  # one that the reader has set for another program would lock us out
        "API_VERBOSE": "0",
    }
    most_tokens = int(recipe_of(subject, settings)["max_new_tokens"])
    with process.running(command, log, env=env) as program:

        def answering() -> list[str]:
            code = program.guard.poll()
            if code is not None:
                raise process.failure(command, log, code)
            return _models(port)

        tries = Retrying(
            # Not up yet; or, until ours has noticed, another program that took the port.
            retry=retry_if_exception_type((OSError, ValueError, KeyError)),
            wait=wait_fixed(0.5),
            stop=stop_after_delay(patience_seconds),
        )
        try:
            served = tries(answering)
        except RetryError as error:
            raise TutorialError(
                tr(
                    "The server of {name} did not answer within {seconds} seconds: choose a "
                    "smaller model, or close other programs, and run this again.",
                    name=subject,
                    seconds=f"{patience_seconds:.0f}",
                ),
                log=log,
                tail=process.tail(log),
            ) from error
        if served != [subject]:
            raise TutorialError(
                tr("Port {port} was taken by another program meanwhile: run this again.", port=port)
            )
        try:
            yield Server(subject, port, program.pid, log, most_tokens)
        except TutorialError as error:
            try:
                code = program.guard.wait(timeout=2)
            except subprocess.TimeoutExpired:
                raise error from None
            # Whoever was talking to it could only tell that nobody was there any more.
            raise process.failure(command, log, code) from error


def identity(subject: str, settings: Settings) -> dict[str, Any]:
    """Return what decides how a subject answers: its recipe and the hashes of its weights.

    Raises:
        TutorialError: the subject has not been made yet (with the notebook that makes it).
    """
    record = store.read(settings.run, settings.subject(subject))
    return {
        "form": schema.FORM,
        "recipe": recipes.without_places(recipe_of(subject, settings)),
        "model": record.model_sha256,
        "adapter": record.training.adapter_sha256 if record.training else None,
        "merged": record.merge.model_sha256 if record.merge else None,
        "device": settings.profile.device,
        "versions": versions(),
    }


def chat(
    subject: str, questions: Sequence[str], settings: Settings, say: Callable[[str], None] = print
) -> list[Said]:
    """Ask one model some questions, each for itself, unless it has answered the same before.

    Args:
        subject: the name of one of the run's subjects.
        questions: what to ask.
        settings: the run's settings.
        say: takes the lines that tell what happens.

    Returns:
        Question and answer, in order; nothing where the profile's model has nothing to say.

    Raises:
        TutorialError: the subject has not been made yet, or the server failed.
    """
    if not settings.profile.chat:
        say(
            tr(
                "The {profile} profile's model is random: it is not asked anything.",
                profile=settings.profile.name,
            )
        )
        return []
    run = settings.run
    inputs = identity(subject, settings) | {"questions": list(questions)}
    file = run.answers(subject).with_name(f"{subject}_chat.json")

    def action(making: Making) -> None:
        with serving(subject, settings) as server:
            said = [{"question": text, "answer": server.ask(text)} for text in questions]
        write_json(making.place(file), said)

    steps.done_once(run, f"{subject}_chat", inputs, file, action, say)
    return [Said.model_validate(one) for one in json.loads(file.read_text("utf-8"))]
