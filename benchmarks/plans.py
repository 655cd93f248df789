"""Plan the article's recipes for three models: `python benchmarks/plans.py`; no card is needed."""

from __future__ import annotations

from helpers.ground import paths
from helpers.ground.files import write_bytes
from helpers.planning import planner
from helpers.planning.plan import GIB


def main() -> None:
    """Write benchmarks/results/plans.json, and print it as a table."""
    plans = planner.article_plans(paths.RUNS / "plans.log")
    write_bytes(planner.ARTICLE_PLANS, (plans.model_dump_json(indent=1) + "\n").encode())
    for name, plan in plans.plans.items():
        print(f"{name}: {plan.peak.peak_bytes / GIB:.2f} GiB, {plan.seconds:.1f} s")


if __name__ == "__main__":
    main()
