"""`mmcam doctor`: self-checks on a model and a layer."""

from jsonargparse import ArgumentParser, Namespace

from mmcam.verbs import add_model, add_texts, check_text, overrides_of, print_config, table, text_of

EPILOG = """\
Checks that the weights are finite, that the scores depend on the layer, that the batched derivatives equal the looped
ones and those by finite differences, that Grad-CAM is CAM where the head is average pooling and linear, and that a
picture's maps are the same alone and in a batch; then measures time and memory. Without pictures it makes random ones.
Exit code 1 if a check FAILED.

examples:
  mmcam doctor --config captioning/scenes
  mmcam doctor --config vqa/scenes --question "what is above the dog?" --question "how many things are there?"
  mmcam doctor --config my.yaml --layer layer3 --device cuda photos/*.jpg"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("pictures", nargs="*", type=str, help="pictures, folders or globs; the first four are used")
    add_model(parser, "captioning/scenes, or vqa/scenes with a question")
    parser.add_argument("--question", action="append", type=str, help="a question; may be repeated, for other lengths")
    add_texts(parser)


def run(arguments: Namespace) -> int:
    """Run the checks and print them."""
    from mmcam.doctor import FAILED, examine
    from mmcam.find import find_images
    from mmcam.image import read_image
    from mmcam.load import choose_device, default_config, instantiate
    from mmcam.task import Sample, Task

    text = text_of(arguments)
    questions = arguments.question or [""]
    for question in arguments.question or []:
        check_text("--question", question)
    config = arguments.config or default_config(questions[0], arguments["class"] or "")
    overrides = overrides_of(arguments)
    if arguments.print_config:
        print_config(config, overrides, task=Task)
        return 0
    device = choose_device(arguments.device)
    task = instantiate(config, "task", Task, overrides).to(device).eval()  # broken weights are a finding here
    paths = find_images(arguments.pictures)[:4] if arguments.pictures else []
    pictures = [(path.stem, read_image(path)) for path in paths] or random_pictures()
    samples = [
        Sample(picture, name, questions[i % len(questions)])
        for i, (name, picture) in enumerate(pictures * max(1, -(-len(questions) // len(pictures))))
    ]
    checks = examine(task, samples, [text] * len(samples) if text else [])
    print(f"{config}: {type(task).__name__}, layer {task.layer or '(unnamed)'}, {device}")
    print(table(("check", "result", "figures"), [(check.name, check.result, check.figures) for check in checks]))
    failed = sum(check.result == FAILED for check in checks)
    print(f"{failed} of {len(checks)} checks FAILED" if failed else "nothing failed")
    return 1 if failed else 0


def random_pictures() -> list:
    """Three pictures of smooth noise, of different shapes; the same every time."""
    import numpy as np
    from PIL import Image

    random = np.random.RandomState(0)
    sizes = ((240, 320), (200, 200), (320, 240))
    return [
        (f"random {i}", Image.fromarray(random.randint(0, 256, (8, 8, 3)).astype(np.uint8)).resize(size))
        for i, size in enumerate(sizes, 1)
    ]
