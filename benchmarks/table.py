"""The results of `make bench` as one page, benchmarks/results/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from helpers.ground import paths, words
from helpers.ground.files import write_bytes
from helpers.ground.shown import Table
from helpers.inputs import methods
from helpers.planning import planner, report
from helpers.planning.plan import ArticlePlans
from helpers.results import card_page


def load(name: str) -> dict[str, Any]:
    return json.loads((paths.BENCHMARKS / f"{name}.json").read_text("utf-8"))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return Table(header, rows).markdown()


def label(method: str) -> str:
    return methods.load(method).label


def versions(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in result["versions"].items())


def recipes() -> str:
    found = load("recipes")
    rows = []
    for method, each in found["methods"].items():
        speed, (low, high) = each["samples_per_second_of_call"], each["ratio_spread"]
        change = f"{100 * each['eval_loss_change']:+.2f} %"
        rows.append(
            [label(method), f"{speed['article']:.2f}", f"{speed['tuned']:.2f}",
             f"{each['ratio']:.2f} ({low:.2f}-{high:.2f})", change]
        )  # fmt: skip
    header = ["", "article, samples/s", "tuned, samples/s", "times faster (spread)",
              "held-out loss"]  # fmt: skip
    return f"""## The article's recipe and the tuned one

Whole `llamafactory-cli train` calls, evaluations included, in turn, {found["rounds"]} of each;
medians. Both adapters' held-out loss was then computed alike, in batches of the article's size.
{found["samples"]} training problems, {found["model"]}, cpu profile; {found["machine"]};
{versions(found)}.

{table(header, rows)}"""


def levers() -> str:
    found = load("levers")
    both = list(zip(*found["methods"].values(), strict=True))
    rows = [
        [first["setting"] if first["used"] else f"left out: {first['setting']}"]
        + [text for row in (first, second)
           for text in (f"{row['times_faster']:.2f}", f"{row['eval_loss']:.4f}")]
        for first, second in both
    ]  # fmt: skip
    names = [label(method) for method in found["methods"]]
    header = ["setting"] + [f"{name}, {what}" for name in names for what in
                            ("times faster", "held-out loss")]  # fmt: skip
    return f"""## What each setting brings

Added one by one, top to bottom: times faster than the used line above, training loop and last
evaluation of {found["samples"]} problems, one call each (two calls of one recipe differ by a few
per cent). Those left out were tried on top of the lines above them, one at a time. The batch of an
evaluation trains nothing: the adapter after it was the same, bit for bit, and so is its loss.

{table(header, rows)}"""


def measuring() -> str:
    found = load("measuring")
    rows = []
    for method, each in found["methods"].items():
        seconds, (low, high) = each["call_seconds"], each["cost_spread"]
        rows.append(
            [label(method), f"{seconds['plain']:.1f} s", f"{seconds['measured']:.1f} s",
             f"{100 * each['cost']:+.1f} % ({100 * low:+.1f} to {100 * high:+.1f})",
             f"{100 * each['cost_of_pieces']:+.1f} %, {each['seconds_of_pieces']:+.1f} s",
             f"{each['seconds_of_measuring']:.1f} s"]
        )  # fmt: skip
    header = ["", "a call, memory not measured", "memory measured", "longer by (spread)",
              "longer by, sum of its pieces", "in measuring itself"]  # fmt: skip
    return f"""## What measuring memory costs

Whole `llamafactory-cli train` calls of the tuned recipe, in turn, {found["rounds"]} of each;
medians. What a run measures is the allocator's peak while the model is loaded, of two steps, and of
one evaluation. The sum of pieces adds up the medians of loading, each step and each evaluation by
itself, which a pause of the machine moves less; its seconds hold for a call of any number of
problems, since as many steps are measured of each. The last column is the time that the call itself
spent in beginning and ending to measure; what the recording slows between is not in it. All
adapters of a method were the same, bit for bit. {found["samples"]} training problems,
{found["model"]}, cpu profile; {found["machine"]}; {versions(found)}.

{table(header, rows)}"""


def trl() -> str:
    found = load("trl")
    rows = []
    for method, each in found["methods"].items():
        speed, change, step = (
            each[key] for key in ("samples_per_second_of_call", "eval_loss_change", "step")
        )
        low, high = each["times_spread"]
        rows.append(
            [label(method), *(f"{speed[kind]:.2f}" for kind in ("ours", "trl_same",
                                                                 "trl_defaults")),
             f"{each['times_the_best_of_trl']:.2f} ({low:.2f}-{high:.2f})",
             " / ".join(f"{100 * change[kind]:+.2f} %" for kind in ("trl_same", "trl_defaults")),
             f"{100 * step['share_of_products']:.0f} % of "
             f"{step['product_operations_per_second'] / 1e9:.0f} GFLOP/s"]
        )  # fmt: skip
    header = ["", "this tutorial, samples/s", "TRL, same settings", "TRL, its defaults",
              "times the faster of TRL's (spread)", "held-out loss against TRL's two",
              "a step's share of the processor's matrix-product speed"]  # fmt: skip
    rounds = found["rounds"]
    times = "one of each" if rounds == 1 else f"{rounds} of each; medians"
    return f"""## The same training by TRL

Whole calls, imports and evaluations included, in turn, {times}; the tutorial's as it makes them,
with the last weights evaluated once and memory measured. TRL's SFTTrainer with the
tutorial's settings and environment, and with its own defaults; model, problems, rank, learning
rate, effective batch and steps are the same for all, and all adapters were scored alike. TRL's
QLoRA has bitsandbytes' own 4-bit kernels, the tutorial's has its own, with the same bits.
{found["samples"]} training problems, {found["model"]}, cpu profile; {found["machine"]};
{versions(found)}.

{table(header, rows)}"""


def pipeline() -> str:
    found = load("pipeline")
    part = f"1/{1 / found['second_run_share']:.0f}"
    rows = [
        ["first run", f"{found['first_run_seconds']:.0f} s"],
        ["of it in llamafactory-cli",
         f"{found['llamafactory_cli_seconds']:.0f} s in {found['llamafactory_cli_calls']} calls"],
        ["of it in other programs (doctor, plan, KL, merge, server)",
         f"{found['other_programs_seconds']:.0f} s"],
        ["notebooks, papermill and helpers themselves",
         f"{found['pipeline_seconds']:.0f} s, {100 * found['pipeline_share']:.1f} % of the calls"],
        ["second run, nothing changed",
         f"{found['second_run_seconds']:.0f} s, {part} of the first"],
        ["largest notebook kernel", f"{found['largest_kernel_mb']} MB"],
    ]  # fmt: skip
    return f"""## What the pipeline costs

`make run` on the cpu profile; {found["machine"]}.

{table(["what", "measured"], rows)}"""


def plans() -> str:
    found = ArticlePlans.model_validate_json(planner.ARTICLE_PLANS.read_text("utf-8"))
    peaks = report.phases({name: plan.peak for name, plan in found.plans.items()})
    return f"""## Planned memory

The article's recipes on an Ascend card, planned; nothing of it was measured.

{peaks.markdown()}"""


def kernels() -> str:
    steps, layers = load("step_4bit"), load("dequant_4bit")
    step_rows = [
        [name, f"{row['times_lora']:.2f}", f"{row['load_s']:.1f} s",
         f"{row['peak_bytes'] / 1e6:.0f} MB"]
        for name, row in steps["rows"].items()
    ]  # fmt: skip
    names = [row["name"] for row in layers["dequantise"][0]["rows"]]
    layer_rows = [
        [each["layer"], each["dtype"],
         *(f"{row['times_default']:.1f}" for row in each["rows"][1:]),
         " / ".join(f"{row['temporary_bytes_per_weight']:.1f}" for row in each["rows"]),
         all(row["equal"] for row in each["rows"])]
        for each in layers["dequantise"]
    ]  # fmt: skip
    layer_header = ["layer", "type", *(f"{name}, times faster" for name in names[1:]),
                    "temporaries of " + " / ".join(names) + ", bytes a weight",
                    "bit-exact"]  # fmt: skip
    load_rows = [
        [row["layer"], f"{row['ratio']:.1f}",
         f"{row['default_temporary_bytes_per_weight']:.1f}",
         f"{row['ours_temporary_bytes_per_weight']:.2f}", row["equal"]]
        for row in layers["quantise"]
    ]  # fmt: skip
    load_header = ["layer", "times faster", "temporaries of default, bytes a weight", "of ours",
                   "bit-exact"]  # fmt: skip
    return f"""## QLoRA's 4-bit kernels

A training step of {steps["model"]}, on the **simulated NPU**: host memory and the CPU's kernels,
one thread. These are ratios between two ways to do the same work on a CPU, never an Ascend's times.

{table(["", "times LoRA's step", "loading", "peak"], step_rows)}

Expanding one layer, `helpers/worker/dequantise_4bit.py` in each formulation against bitsandbytes'
`default` backend, on one thread of a CPU ({layers["machine"]["processor"]}), bf16 and fp32. What
was chosen there is `{layers["chosen"]}`; an Ascend chooses for itself, by its own measurement. On a
CPU the allocator's count has the operators' own temporaries in it (a product of mixed types).

{table(layer_header, layer_rows)}

Quantising one layer, while a model is loaded:

{table(load_header, load_rows)}"""


def _percent(rate: dict[str, float]) -> str:
    return f"{100 * rate['share']:.1f} % (to {100 * rate['high']:.1f})"


def verdict() -> str:
    found = load("verdict")
    seen = found["seen"]
    later = [", ".join(map(str, counts)) for counts in found["later"]["counts"]]

    def rows(*kinds: tuple[str, str, str]) -> list[list[str]]:
        return [
            [text, each["problems"], each["seeds"], _percent(each[now]),
             _percent(each["first_seed_alone"])]
            for name, text, now in kinds
            for each in found[name]
        ]  # fmt: skip

    false = rows(("equal", "none", "either"))
    true = rows(
        ("ten_points", "10 points of exact match", "exact_match"),
        ("ten_points_and_loss", "the same, and the loss as seen", "exact_match"),
    )
    worst = [
        [name, *(_percent(max((row[rule] for row in each), key=lambda rate: rate["share"]))
                 for rule in ("either", "seeds_t_test", "first_seed_alone"))]
        for name, each in found["beyond"].items()
    ]  # fmt: skip
    header = ["true difference", "problems", "seeds", "the verdict", "the first seed alone"]
    return f"""## How far the verdict can be trusted

{found["studies"]} simulated studies a line, judged by the functions that judge a run, with the
spread that three seeds showed on the cpu profile: {100 * seen["share"]:.0f} % answered, two
trainings of which disagree on {100 * seen["disagree"]:.0f} % of the problems, seeds vary by
{seen["seed_points"]} points (standard deviation) beyond single answers, and a training's held-out
loss by {seen["loss_of_training"]:.4f} nats per token; losses are of 25 problems. In brackets the
upper end of the 95 % interval (Clopper and Pearson). Beside it the rule before: McNemar's test of
the first seed alone, which knows no loss.

Methods that are equal: a difference is claimed, in exact match or in loss.

{table(header, false)}

A true difference: it is found in exact match.

{table(header, true)}

Methods that are equal, but not as was seen: the worst of 50 and 200 problems, 2, 3 and 5 seeds. Of
the run with 200 problems, LoRA's seeds answered {later[0]} and QLoRA's {later[1]}: no more apart
than single answers make them.

{table(["if", "the verdict", "a t-test of the seeds' shares", "the first seed alone"], worst)}"""


def real_cards() -> str:
    return f"""## Real cards

What `make card` found, from the files in [cards](cards/README.md).

{card_page.overview(card_page.read(paths.CARDS))}"""


BETWEEN = re.compile(r"(<!-- cards -->\n).*?(<!-- /cards -->)", re.DOTALL)


def with_cards(text: str, cards: str) -> str:
    """Return a page whose lines between the two marks are the table of real cards."""
    return BETWEEN.sub(lambda marks: f"{marks[1]}{cards}\n{marks[2]}", text)


def fill_readmes() -> None:
    """Write the table of real cards into both READMEs, each in its language."""
    cards = card_page.read(paths.CARDS)
    for name, language in (("README.md", "en"), ("README_zh.md", "zh")):
        page = paths.ROOT / name
        with words.spoken(language):
            text = with_cards(page.read_text("utf-8"), card_page.overview(cards))
        write_bytes(page, text.encode())


def time() -> str:
    found = load("time")
    parts = ["## Estimated time"]
    if public := found.get("public"):
        rows = [
            [row["model"], label(row["method"]), row["tokens"], row["measured"],
             f"{row['low']:.2f} to {row['high']:.2f}",
             f"{100 * (row['estimated'] / row['measured'] - 1):+.0f} %"]
            for row in public["rows"]
        ]  # fmt: skip
        off = ", ".join(
            f"{label(method)} {100 * each['median']:.0f} % and {100 * each['largest']:.0f} %"
            for method, each in public["errors"].items()
        )
        others = [
            [row["of"], row["card"], label(row["method"]), row["tokens_per_second"],
             f"{row['low']:.0f} to {row['high']:.0f}",
             f"{100 * (row['estimated'] / row['tokens_per_second'] - 1):+.0f} %"]
            for row in public["others"]
        ]  # fmt: skip
        parts.append(f"""Against an A100 of others (QwenLM/Qwen's README, seconds for 8
micro-batches of one text). The efficiencies of configs/cards.yaml were set with its LoRA rows in
view; its QLoRA is GPTQ's Int4, whose kernels are not described here. Median and largest error:
{off}.

{table(["model", "method", "tokens", "told", "estimated", "middle off by"], rows)}

Tokens a second that others tell of, by which nothing was set:

{table(["of", "card", "method", "told", "estimated", "middle off by"], others)}""")
    if here := found.get("here"):
        rows = [
            [label(row["method"]), "yes" if row["checkpointing"] else "no", row["tokens"],
             f"{row['measured']:.2f}",
             f"{row['estimated']:.2f}", f"{100 * (row['estimated'] / row['measured'] - 1):+.0f} %"]
            for row in here["rows"]
        ]  # fmt: skip
        parts.append(f"""Against steps taken here, after ten seconds of timing operators and a few
steps of two layers of each method; SmolLM2-135M's shapes, random weights; {here["machine"]}.

{table(["method", "checkpointing", "tokens", "a step, s", "estimated", "off by"], rows)}""")
    return "\n\n".join(parts)


def study() -> str:
    found = load("study")
    kinds = {"one at a time": found["one_at_a_time"], "two at a time": found["two_at_a_time"]}
    rows = [
        [name, f"{each['trials_seconds']:.0f}", f"{each['a_trial_seconds']:.1f}",
         f"{each['before_the_first_trial_seconds']:.0f}",
         f"{each['after_the_last_trial_seconds']:.1f}"]
        for name, each in kinds.items()
    ]  # fmt: skip
    between = found["one_at_a_time"]["between_trials_seconds"]
    return f"""## Trials side by side

`make study` on the smoke profile, two sizes, two methods and two seeds, done once each way: with
two trials at a time {found["times_faster"]} times as fast. From one trial's end to the next one's
beginning {between:.1f} s pass. {found["trials"]} trials; {found["machine"]}.

{
        table(
            [
                "trials",
                "all of them, s",
                "one of them, s",
                "planning and Ray's start, s",
                "Ray's end, and the figures, s",
            ],
            rows,
        )
    }"""


def main() -> None:
    """Write the page, and the READMEs' table of real cards."""
    measured = [measuring()] if (paths.BENCHMARKS / "measuring.json").is_file() else []
    compared = [trl()] if (paths.BENCHMARKS / "trl.json").is_file() else []
    estimated = [time()] if (paths.BENCHMARKS / "time.json").is_file() else []
    side_by_side = [study()] if (paths.BENCHMARKS / "study.json").is_file() else []
    parts = ["# Results of `make bench`", recipes(), levers(), *measured, *compared,
             pipeline(), plans(), *estimated, *side_by_side, real_cards(), kernels(),
             verdict()]  # fmt: skip
    write_bytes(paths.BENCHMARKS / "README.md", ("\n\n".join(parts) + "\n").encode())
    fill_readmes()


if __name__ == "__main__":
    main()
