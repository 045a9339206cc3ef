from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from mmcam.cli import main
from mmcam.config import instantiate, one_line, read_config, resolve
from mmcam.errors import UserError
from mmcam.huggingface.families import FAMILIES, find
from mmcam.load import default_method
from mmcam.resources import shipped_configs
from mmcam.task import Task

HERE = __name__


class Base(ABC):
    @abstractmethod
    def work(self): ...


class Part:
    def __init__(self, hidden: int = 3, name: str = "part"):
        if hidden < 0:
            raise UserError("hidden must not be negative")
        self.hidden, self.name = hidden, name


class Whole(Base):
    def __init__(
        self,
        part: Part | str,
        layer: str = "layer4",
        rate: float = 0.1,
        flag: bool = False,
        size: tuple[int, int] = (3, 4),
        parts: list[Part] | None = None,
        **more: int,
    ):
        self.part, self.layer, self.rate, self.flag, self.size = part, layer, rate, flag, size
        self.parts, self.more = parts, more

    def work(self): ...


class Unmakable(Base): ...


@dataclass(frozen=True)
class Plain:
    epochs: int = 3
    names: list[str] | None = None


class Grouped(Base):
    def __init__(self, plain: Plain | None = None, sure: Plain = Plain(1), more: dict[str, int] | None = None):
        self.plain, self.sure, self.more = plain, sure, more

    def work(self): ...


def config(**init):
    return {"task": {"class_path": f"{HERE}.Whole", "init_args": init}}


def part(**init):
    return {"class_path": f"{HERE}.Part", "init_args": init}


def test_a_file_a_dictionary_and_a_name_give_the_same(tmp_path):
    content = config(part="x")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    assert read_config(path) == read_config(str(path)) == read_config(content) == content


def test_yes_no_and_on_are_words(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("task: {words: [yes, no, on, Off, y], flags: [true, False, TRUE], rest: [1, 1.5, null, ~]}")
    assert read_config(path)["task"] == {
        "words": ["yes", "no", "on", "Off", "y"],
        "flags": [True, False, True],
        "rest": [1, 1.5, None, None],
    }


def test_what_is_read_is_the_callers_own():
    content = config(part="x")
    read_config(content)["task"]["init_args"]["part"] = "y"
    instantiate(content, "task", Base, {"part": "z"})
    assert content == config(part="x")


def test_nested_classes_and_defaults():
    made = instantiate(config(part=part(hidden=5), parts=[part(), part(name="n")], rate="1e-3"), "task", Base)
    assert type(made) is Whole
    assert type(made.part) is Part
    assert (made.part.hidden, made.rate, made.size, made.layer) == (5, 0.001, (3, 4), "layer4")
    assert [p.name for p in made.parts] == ["part", "n"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"layer": "layer3"}, {"layer": "layer3"}),
        ({"task.layer": "layer3"}, {"layer": "layer3"}),
        ({"task.init_args.layer": "3"}, {"layer": "3"}),
        ({"task__init_args__layer": "layer3"}, {"layer": "layer3"}),
        ({"size": "[5, 6]", "flag": "true", "rate": "1e-4"}, {"size": (5, 6), "flag": True, "rate": 1e-4}),
        ({"size": (5, 6), "flag": True}, {"size": (5, 6), "flag": True}),
        ({"train.layer": "of another section"}, {"layer": "layer4"}),
        ({"dict_kwargs.extra": 3}, {"more": {"extra": 3}}),
    ],
)
def test_overrides(overrides, expected):
    made = instantiate(config(part="x"), "task", Base, overrides)
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize("key", ["part.init_args.hidden", "task.init_args.part.hidden", "part__hidden"])
def test_overrides_of_nested_classes(key):
    assert instantiate(config(part=part()), "task", Base, {key: "9"}).part.hidden == 9


def test_an_object_may_be_given():
    mine = Part(hidden=8)
    assert instantiate(config(part="x"), "task", Base, {"part": mine}).part is mine


def test_the_class_may_be_overridden():
    assert type(instantiate({"task": {}}, "task", Base, {"task.class_path": f"{HERE}.Whole", "part": "x"})) is Whole


def test_a_section_without_class_is_the_base_itself():
    assert instantiate({"train": {"epochs": 5}}, "train", Plain, {"train.names": "[a, b]"}) == Plain(5, ["a", "b"])
    assert instantiate({"task": {}}, "train", Plain) == Plain()


def test_groups_of_values_are_the_dataclasses_that_are_asked_for():
    written = {"class_path": f"{HERE}.Grouped", "init_args": {"plain": {"epochs": 5}, "more": {"a": 1}}}
    made = instantiate({"task": written}, "task", Base, {"plain.names": "[x]", "sure.epochs": "7"})
    assert (made.plain, made.sure, made.more) == (Plain(5, ["x"]), Plain(7), {"a": 1})
    assert instantiate({"task": {"class_path": f"{HERE}.Grouped"}}, "task", Base).plain is None
    with pytest.raises(UserError, match=r"task.init_args: plain: .*'epoch"):
        instantiate({"task": {"class_path": f"{HERE}.Grouped", "init_args": {"plain": {"epoch": 3}}}}, "task", Base)


def test_resolved_has_every_default_and_no_objects():
    resolved = resolve(config(part=part(hidden=5)), "task", Base, {"size": "[5, 6]"})
    assert resolved == {
        "class_path": f"{HERE}.Whole",
        "init_args": {
            "part": {"class_path": f"{HERE}.Part", "init_args": {"hidden": 5, "name": "part"}},
            "layer": "layer4",
            "rate": 0.1,
            "flag": False,
            "size": [5, 6],
            "parts": None,
        },
    }
    assert resolve({"task": resolved}, "task", Base) == resolved


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"taks": {}}, r"unknown section of the configuration 'taks': did you mean 'task'"),
        ({}, "expected sections"),
        ({"train": {}}, "expected a section 'task' in the configuration, got train"),
        ({"task": 3}, "task: expected keys such as class_path"),
        ({"task": {"init_args": {}}}, "expected the key class_path"),
        (
            {"task": {"class_path": f"{HERE}.Whole", "init_arg": {}}},
            "unknown key of task 'init_arg': did you mean 'init_args'",
        ),
        (
            {"task": {"class_path": f"{HERE}.Whole", "init_args": [3]}},
            "task.init_args: expected the arguments of Whole by name",
        ),
        (config(part="x", layr="a"), r"unknown key of task.init_args 'layr': did you mean 'layer'"),
        (config(part=part(hiden=3)), r"unknown key of task.init_args.part 'hiden': did you mean 'hidden'"),
        (config(part="x", parts=[part(), part(nme=3)]), r"task.init_args.parts\[1\] 'nme': did you mean 'name'"),
        (config(), "task.init_args: .*required.*part"),
        (config(part="x", rate="quick"), r"^task.init_args: rate: Expected a float. Got value: quick$"),
        (config(part=part(hidden="much")), r"task.init_args: part: .*hidden: Expected a int. Got value: much"),
        (config(part=part(hidden=-1)), "^hidden must not be negative$"),
        ({"task": {"class_path": "Whole"}}, "task.class_path: expected a class with its module"),
        ({"task": {"class_path": 3}}, "task.class_path: expected a class with its module"),
        ({"task": {"class_path": "tests.nowhere.Whole"}}, "there is no 'tests.nowhere'; check the spelling"),
        ({"task": {"class_path": f"{HERE}.Whle"}}, r"unknown class in tests.test_config 'Whle': did you mean 'Whole'"),
        ({"task": {"class_path": f"{HERE}.Part"}}, "task.class_path: expected a subclass of tests.test_config.Base"),
        ({"task": {"class_path": f"{HERE}.HERE"}}, "expected a subclass of"),
        ({"task": {"class_path": f"{HERE}.Unmakable"}}, "abstract; it lacks work"),
        (config(part={"class_path": f"{HERE}.Prt"}), r"unknown class in tests.test_config 'Prt': did you mean"),
    ],
)
def test_mistakes_are_one_line(content, message):
    with pytest.raises(UserError, match=message) as caught:
        instantiate(content, "task", Base)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"layr": "a"}, "unknown key of task.init_args 'layr'"),
        (
            {"task.init_args.part.hidden": 3},
            "task.init_args.part is 'x', which has no keys; set task.init_args.part itself",
        ),
    ],
)
def test_mistakes_in_overrides(overrides, message):
    with pytest.raises(UserError, match=message):
        instantiate(config(part="x"), "task", Base, overrides)


@pytest.mark.parametrize("text", ["task: [", "task: a: b", "- a", "", "3", "\tx"])
def test_files_that_are_no_configuration(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: expected") as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_one_line():
    assert one_line("a\n  - b: <class 'int'>\n  Given value: 3\n\n c") == "a b: int c"


# What the published configurations say: the kind, and the class that the weights were saved from.
KINDS = {
    "Salesforce/blip-image-captioning-base": ("blip", "BlipForConditionalGeneration"),
    "Salesforce/blip-image-captioning-large": ("blip", "BlipForConditionalGeneration"),
    "Salesforce/blip-vqa-base": ("blip", "BlipForQuestionAnswering"),
    "Salesforce/blip2-opt-2.7b": ("blip-2", "Blip2ForConditionalGeneration"),
    "Salesforce/instructblip-flan-t5-xl": ("instructblip", "InstructBlipForConditionalGeneration"),
    "nlpconnect/vit-gpt2-image-captioning": ("vision-encoder-decoder", "VisionEncoderDecoderModel"),
    "microsoft/git-base-coco": ("git", "GitForCausalLM"),
    "microsoft/git-base-vqav2": ("git", "GitForCausalLM"),
    "llava-hf/llava-1.5-7b-hf": ("llava", "LlavaForConditionalGeneration"),
    "llava-hf/llava-v1.6-mistral-7b-hf": ("llava_next", "LlavaNextForConditionalGeneration"),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": ("llava_onevision", "LlavaOnevisionForConditionalGeneration"),
    "google/paligemma-3b-mix-224": ("paligemma", "PaliGemmaForConditionalGeneration"),
    "google/gemma-3-4b-it": ("gemma3", "Gemma3ForConditionalGeneration"),
    "Qwen/Qwen2-VL-2B-Instruct": ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
    "Qwen/Qwen2.5-VL-3B-Instruct": ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
    "Qwen/Qwen3-VL-4B-Instruct": ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
    "HuggingFaceTB/SmolVLM-256M-Instruct": ("idefics3", "Idefics3ForConditionalGeneration"),
    "OpenGVLab/InternVL3-1B-hf": ("internvl", "InternVLForConditionalGeneration"),
    "florence-community/Florence-2-base": ("florence2", "Florence2ForConditionalGeneration"),
    "microsoft/kosmos-2-patch14-224": ("kosmos-2", "Kosmos2ForConditionalGeneration"),
    "google/pix2struct-textcaps-base": ("pix2struct", "Pix2StructForConditionalGeneration"),
    "meta-llama/Llama-3.2-11B-Vision-Instruct": ("mllama", "MllamaForConditionalGeneration"),
    "dandelin/vilt-b32-finetuned-vqa": ("vilt", "ViltForQuestionAnswering"),
    "google/vit-base-patch16-224": ("vit", "ViTForImageClassification"),
    "facebook/deit-base-distilled-patch16-224": ("deit", "DeiTForImageClassificationWithTeacher"),
    "microsoft/swin-tiny-patch4-window7-224": ("swin", "SwinForImageClassification"),
    "facebook/convnext-tiny-224": ("convnext", "ConvNextForImageClassification"),
    "microsoft/resnet-50": ("resnet", "ResNetForImageClassification"),
    "facebook/dinov2-small-imagenet1k-1-layer": ("dinov2", "Dinov2ForImageClassification"),
}
HF = [name for name in shipped_configs() if "/hf/" in name]


@pytest.mark.parametrize("name", HF)
def test_a_hub_model_is_named_by_id_and_revision_and_its_kind_is_known(name):
    transformers = pytest.importorskip("transformers")
    section = resolve(name, "task", Task)  # class path, names and types of all arguments
    arguments = section["init_args"]
    kind, class_name = KINDS[arguments["model"]]
    assert arguments["source"]["revision"]
    assert not arguments["source"]["trust_remote_code"]
    assert hasattr(transformers, class_name)
    assert default_method(name)
    if name.startswith("classification/"):
        mapping = transformers.AutoModelForImageClassification._model_mapping
        assert kind in {config.model_type for config in mapping}
        return
    row = find(SimpleNamespace(model_type=kind), class_name)
    assert row is not None
    if row.opening == "none":
        assert not arguments.get("prompt")
    if row.speech == "classes":
        assert section["class_path"] == "vqa.hf.HFVQATask"
    assert "{question}" in arguments.get("asked", "{question}")


def test_every_family_has_a_configuration():
    said = {KINDS[read_config(name)["task"]["init_args"]["model"]][0] for name in HF}
    missing = [row.kinds for row in FAMILIES if not said & {*row.kinds}]
    assert missing == []


@pytest.mark.parametrize(
    "name", ["captioning/hf/blip_base", "vqa/hf/vilt_b32_finetuned_vqa", "classification/hf/vit_base"]
)
def test_a_model_that_is_not_on_this_machine_is_one_line_with_the_way_out(name, tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    model = read_config(name)["task"]["init_args"]["model"]
    assert main(["explain", str(tmp_path / "a.png"), "--config", name, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mmcam explain: '{model}' is not on this machine")
    assert f"run 'hf download {model}' once with a network, or give the model's folder" in line
