"""Run the papers' experiments and write one page of results: on scenes always, on published data where they are here.

python scripts/reproduce.py --all                   all shipped ones; those whose data are missing say so
python scripts/reproduce.py counterfactual layers   some of them
python scripts/reproduce.py my.yaml --limit 1000    one of your own: sections task:, data: and experiment:
"""

import argparse
import json
import sys
from pathlib import Path

from mmcam.errors import UserError
from mmcam.evaluation.plots import plot
from mmcam.experiments.reproduce import Done, called, drawable, page, reproduce, shipped_experiments


def main() -> int:
    """Run, print as it goes, and write the page after each."""
    shipped = shipped_experiments()
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"shipped: {', '.join(shipped)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiments", nargs="*", help="names of shipped ones, or YAML files")
    parser.add_argument("--all", action="store_true", help="all that are shipped")
    parser.add_argument("--limit", type=int, default=200, help="pictures or questions each (default: 200)")
    parser.add_argument("--seed", type=int, default=7, help="of the scenes and all sampling (default: 7)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda … (default: auto)")
    parser.add_argument("--out", type=Path, default=Path("runs/results"), help="where results.md and .json go")
    arguments = parser.parse_args()
    if arguments.all == bool(arguments.experiments):
        parser.error("name experiments, or give --all")
    if arguments.limit < 1:
        parser.error(f"--limit: expected 1 or more, got {arguments.limit}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    command = "python scripts/reproduce.py " + " ".join(sys.argv[1:])
    results: list[Done] = []
    for name in arguments.experiments or shipped:
        try:
            done = reproduce(name, limit=arguments.limit, seed=arguments.seed, device=arguments.device)
        except UserError as error:
            done = Done(called(name), reason=str(error))
        results.append(done)
        print(f"\n{name}: {done.reason or f'{done.seconds:.0f} s'}\n", flush=True)
        for table in done.tables:
            print(table.markdown(), flush=True)
        if done.tables and drawable(done.tables[0]):
            plot(done.tables[0], arguments.out / f"{done.name}.png")
        (arguments.out / "results.md").write_text(page(results, command), encoding="utf-8")
        records = [
            {"name": one.name, "seconds": one.seconds, "reason": one.reason, "tables": [t.record() for t in one.tables]}
            for one in results
        ]
        text = json.dumps(records, indent=1, ensure_ascii=False, allow_nan=False, default=str)
        (arguments.out / "results.json").write_text(text, encoding="utf-8")
    print(arguments.out / "results.md")
    return 0 if arguments.all else int(any(done.reason for done in results))


if __name__ == "__main__":
    sys.exit(main())
