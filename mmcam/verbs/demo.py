"""`mmcam demo`: a web page on this machine that shows where models look."""

import os
import signal
from ipaddress import ip_address
from tempfile import TemporaryDirectory

from jsonargparse import ArgumentParser, Namespace

from mmcam.errors import UserError

EPILOG = """\
Without --config: the embedded captioner, VQA model and classifier, a tab each. The page is for this machine alone and
calls no other host; to show it to others on a network you trust, choose --host and say --public. Pictures that are
uploaded are deleted after an hour, or when the command ends. Its functions can be called by HTTP too: docs/demo.md.

examples:
  mmcam demo
  mmcam demo --config configs/classification/resnet50.yaml --config my.yaml --port 8000
  mmcam demo --host 0.0.0.0 --public
  ssh -L 7860:127.0.0.1:7860 server mmcam demo         look at a server's page from your own machine"""


def configure(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = EPILOG
    parser.add_argument("--config", action="append", type=str, help="YAML file, or name of a shipped one; repeatable")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 … (default: auto)")
    parser.add_argument("--port", type=int, metavar="N", help="(default: a free one from 7860 on)")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address to listen to (default: 127.0.0.1)")
    parser.add_argument("--public", action="store_true", help="allow a --host that other machines can reach")
    parser.add_argument("--allow-urls", action="store_true", help="let users name pictures on the web (public hosts)")
    parser.add_argument("--max-mb", type=int, default=20, metavar="N", help="largest upload (default: 20)")
    parser.add_argument("--max-pixels", type=int, default=50_000_000, metavar="N", help="(default: 50,000,000)")
    parser.add_argument("--share", action="store_true", help="refused: it would send pictures through another host")


def run(arguments: Namespace) -> int:
    """Serve the page until interrupted."""
    check(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that uploads are deleted then too
    with TemporaryDirectory(prefix="mmcam-demo-") as uploads:  # which nobody else on this machine can read
        os.environ["GRADIO_TEMP_DIR"] = uploads  # before the import, which reads it
        return _serve(arguments)


def _serve(arguments: Namespace) -> int:
    try:
        from mmcam.demo import SHIPPED, build, launch, tend
        from mmcam.demo.memory import steady
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "gradio":
            raise
        raise UserError("the demo needs Gradio, which is not installed: pip install 'mmcam[demo]'") from error
    from mmcam.demo.served import serve

    steady()
    configs = list(dict.fromkeys(arguments.config or SHIPPED))
    served = [serve(config, arguments.device, **arguments.overrides) for config in configs]
    size = {"most_bytes": arguments.max_mb * 1_000_000}
    page = build(served, allow_urls=arguments.allow_urls, most_pixels=arguments.max_pixels, **size)
    url = launch(page, arguments.host, arguments.port, **size)
    print(f"mmcam demo: {url} (end it with Ctrl+C)", flush=True)
    try:
        tend(page)
    finally:
        page.close(verbose=False)


def check(arguments: Namespace) -> None:
    """Refuse what would be unsafe or useless, before anything heavy is loaded.

    Raises:
        UserError: It is.
    """
    if arguments.share:
        raise UserError(
            "--share: refused, it would send every picture through a host of Gradio's; use ssh -L, or --host … --public"
        )
    if not arguments.public and not is_loopback(arguments.host):
        raise UserError(
            f"--host {arguments.host}: other machines could reach the page; say --public if that is meant, or leave "
            "--host out"
        )
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise UserError(f"--port: expected 1 to 65535, got {arguments.port}")
    for name in ("max_mb", "max_pixels"):
        if arguments[name] < 1:
            raise UserError(f"--{name.replace('_', '-')}: expected 1 or more, got {arguments[name]}")
    if arguments.overrides and len(arguments.config or ()) != 1:
        raise UserError(f"expected one --config with {next(iter(arguments.overrides))}, got several; name one")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
