"""`mmcam study`: ask people what they see in maps, and which of two models they trust."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError, unknown
from mmcam.verbs import table

if TYPE_CHECKING:
    from mmcam.study.analysis import Analysis

EPILOG = """\
make      a study out of a dump: a folder with pictures and a plan, which also says what is right: do not send that
serve     a page on this machine, http://127.0.0.1:PORT/; answers go to FOLDER/answers.sqlite
export    the page as one file, to be sent to people; they download their answers and send them back
analyse   what was found, out of the folder's own answers and files that people sent

Kinds: "discrimination" asks which of the two things in a picture a map is about (annotated data), "words" which of two
words of a caption it explains, "trust" which of two models looked at more reasonable places, from -2 to +2; a positive
score is for the second dump. Each person sees --trials pictures, each once; every method comes equally often, with
what is right equally often left and right. --trials has to be a multiple of twice the number of methods.

examples:
  mmcam dump --config captioning/scenes --data scenes:test --limit 300 --methods grad_cam,activation_norm --out runs/d
  mmcam study make runs/d --kind discrimination --trials 40 --seed 0 --out runs/study
  mmcam study serve runs/study
  mmcam study export runs/study --out study.html
  mmcam study analyse runs/study
  mmcam study analyse runs/study answers/*.json --json found.json
  mmcam study make runs/weak runs/strong --kind trust --trials 24 --out runs/trust"""

OWN = {
    "make": ("kind", "trials", "seed", "methods", "data", "checks", "title", "consent", "side", "colours", "opacity"),
    "serve": ("port",),
    "export": ("force",),
    "analyse": ("json", "least_checks", "throws"),
}
OUT = {"make": "a folder: --out FOLDER", "export": "a file: --out page.html"}


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("action", type=str, help="make, serve, export or analyse")
    parser.add_argument("paths", nargs="*", type=str, help="a dump, or two; the study's folder; files of answers")
    parser.add_argument("--out", type=Path, metavar="PATH", help="make: a folder; export: a file")
    parser.add_argument(
        "--kind",
        type=Literal["discrimination", "words", "trust"],
        default="discrimination",
        help="make: what is asked (default: discrimination)",
    )
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="make: pictures a person (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="make: of all that chance decides (default: 0)")
    parser.add_argument("--methods", type=str, default="", help="make: with commas (default: all of the dump)")
    parser.add_argument("--data", type=str, default="", help="make: where the pictures are (default: the dump's own)")
    parser.add_argument(
        "--checks", type=int, metavar="N", help="make: checks of attention (default: one to ten trials)"
    )
    parser.add_argument("--title", type=str, default="", help="make: of the page")
    parser.add_argument("--consent", type=Path, metavar="FILE", help="make: what people agree to, a text in paragraphs")
    parser.add_argument("--side", type=int, default=448, metavar="N", help="make: side of pictures (default: 448)")
    parser.add_argument("--colours", type=str, default="viridis", help="make: of matplotlib (default: viridis)")
    parser.add_argument("--opacity", type=float, default=0.8, help="make: of the map (default: 0.8)")
    parser.add_argument("--port", type=int, default=8765, help="serve: 0 takes a free one (default: 8765)")
    parser.add_argument("--force", action="store_true", help="export: overwrite the file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="analyse: write what was found there too")
    parser.add_argument(
        "--least-checks", type=float, default=0.75, help="analyse: share of checks to get right; 0 keeps all (0.75)"
    )
    parser.add_argument("--throws", type=int, default=5000, metavar="N", help="analyse: of chance, in tests (5000)")


def run(arguments: Namespace) -> int:
    """Do one of the four."""
    action, paths = arguments.action, [Path(path) for path in arguments.paths]
    if action not in OWN:
        raise unknown("action of mmcam study", action, OWN)
    _check(arguments, action)
    least, most = {"make": (1, 2), "analyse": (1, 10**6)}.get(action, (1, 1))
    if not least <= len(paths) <= most:
        what = {"make": "a dump, or two", "analyse": "a study's folder and files of answers"}
        raise UserError(f"mmcam study {action}: expected {what.get(action, 'a study')}, got {len(paths)} paths")
    return {"make": _make, "serve": _serve, "export": _export, "analyse": _analyse}[action](arguments, paths)


def _check(arguments: Namespace, action: str) -> None:
    """Refuse options of another action, and a missing --out."""
    parser = ArgumentParser(exit_on_error=False)
    configure(parser)
    for other, names in OWN.items():
        for name in names:
            if other != action and arguments[name] != parser.get_default(name):
                raise UserError(f"--{name.replace('_', '-')} belongs to mmcam study {other}; leave it out")
    if action in OUT and arguments.out is None:
        raise UserError(f"mmcam study {action}: expected {OUT[action]}, got none")
    if action not in OUT and arguments.out is not None:
        raise UserError(f"--out belongs to mmcam study {' and '.join(OUT)}; leave it out")
    if not 0 <= arguments.opacity <= 1 or not 0 <= arguments.least_checks <= 1:
        raise UserError("--opacity, --least-checks: expected a number from 0 to 1")
    if arguments.throws < 100:
        raise UserError(f"--throws: expected 100 or more, got {arguments.throws}")


def _make(arguments: Namespace, paths: list[Path]) -> int:
    from mmcam.study.make import CONSENT, make

    consent: tuple[str, ...] = CONSENT
    if arguments.consent:
        text = arguments.consent.read_text(encoding="utf-8")
        consent = tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())
        if not consent:
            raise UserError(f"{arguments.consent}: expected a text, got an empty one; leave --consent out")
    study = make(
        arguments.out,
        *paths,
        kind=arguments.kind,
        pairs=arguments.trials,
        seed=arguments.seed,
        methods=tuple(name for name in arguments.methods.replace(" ", "").split(",") if name),
        data=arguments.data,
        attention=arguments.checks,
        title=arguments.title,
        consent=consent,
        side=arguments.side,
        colours=arguments.colours,
        opacity=arguments.opacity,
    )
    print(f"{study.kind}: {study.length} questions a person, {study.groups} groups, methods {', '.join(study.methods)}")
    print(arguments.out)
    return 0


def _serve(arguments: Namespace, paths: list[Path]) -> int:
    from mmcam.study import Study, serve

    server = serve(Study.load(paths[0]), paths[0], arguments.port)
    print(f"{server.url}   (Ctrl-C ends; answers are kept in {server.store.path})", flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
        server.store.close()
    return 0


def _export(arguments: Namespace, paths: list[Path]) -> int:
    from mmcam.study import Study, export

    size = export(Study.load(paths[0]), paths[0], arguments.out, overwrite=arguments.force)
    print(f"{arguments.out}: {size / 1e6:.1f} MB")
    return 0


def _analyse(arguments: Namespace, paths: list[Path]) -> int:
    from mmcam.study import Answer, Store, Study, read_answers
    from mmcam.study.analysis import analyse
    from mmcam.study.answers import ANSWERS

    folder, files = paths[0], paths[1:]
    if not folder.is_dir():
        raise UserError(
            f"{folder}: expected the study's folder first, which knows what is right: "
            "mmcam study analyse FOLDER answers.json …"
        )
    study = Study.load(folder)
    answers: list[Answer] = []
    if (folder / ANSWERS).exists():
        with Store(folder, study) as store:
            answers += store.answers()
    stored = {answer.code for answer in answers}
    for answer in read_answers(study, files):
        if answer.code in stored:
            raise UserError(f"expected answers of other people than the folder's, got those of {answer.code} again")
        answers.append(answer)
    if not answers:
        raise UserError(f"{folder}: expected answers, found none; serve the study, or name the files that people sent")
    found = analyse(study, answers, least_checks=arguments.least_checks, throws=arguments.throws)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found.record(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(found)
    print(f"tests: {found.throws} throws, or every way if there are fewer; seed {found.seed}")
    if not found.people:
        print("mmcam study: nobody is left after the checks of attention", file=sys.stderr)
        return 1
    return 0


def _print(found: "Analysis") -> None:
    """Show what was found."""
    trust, dumps = found.kind == "trust", found.facts.get("dumps", ())
    print(f"study {found.study}, {found.kind}, made with seed {found.facts.get('seed', '?')}")
    for which, one in zip(("first", "second") if trust else ("dump",), dumps, strict=False):
        model, weights = one["model"] or one["task"], one["weights_sha256"][:12]
        print(f"{which}: {one['path']}, {model}, {one['layer']}, weights {weights}")
    people = "1 person" if found.people == 1 else f"{found.people} people"
    print(f"{people}, {found.complete} answered all; median {_or_none(found.seconds, '.1f')} s an answer")
    if found.inattentive:
        print(f"left out, for failed checks of attention: {len(found.inattentive)}")
    if found.people == 1:
        print("one person says nothing about other people: the intervals are of other pictures, and no p is small")
    name, sides = ("score", ("second left", "second right")) if trust else ("right", ("if left", "if right"))
    header = ["method", name, "95 %", "n", "p (chance)", *sides, "alpha"]
    rows = [
        [
            method,
            _number(one.value, trust),
            f"{_number(one.low, trust)} … {_number(one.high, trust)}",
            str(one.n),
            _or_none(one.p, ".4f"),
            _number(one.left, trust),
            _number(one.right, trust),
            _or_none(one.agreement, ".2f"),
        ]
        for method, one in found.methods.items()
    ]
    rows.append(["by chance", _number(found.chance, trust), *[""] * (len(header) - 2)])
    print(table(header, rows))
    if found.compared:
        print(
            table(
                ["difference", "by", "p (Holm)"],
                [
                    [f"{one.first} - {one.second}", _number(one.difference, True), _or_none(one.p, ".4f")]
                    for one in found.compared
                ],
            )
        )


def _number(value: float, signed: bool) -> str:
    return _or_none(value, "+.2f" if signed else ".3f")


def _or_none(value: float, how: str) -> str:
    return "-" if math.isnan(value) else format(value, how)
