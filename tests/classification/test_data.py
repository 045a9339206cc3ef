import math

from classification.data import ClassifiedScenes, judge_classes


def test_kinds_of_a_scene():
    source = ClassifiedScenes("test", 5)
    for number in range(5):
        (text,) = source.given(number)
        kinds = text.split(", ")
        assert set(kinds) == {thing.kind for thing in source.scene(number).things}
        about = source.about(number, kinds)
        assert sorted(i for group in about for i in group or ()) == list(range(len(source.scene(number).things)))
        absent = next(kind for kind in ("zebra", "kite", "tv", "bed", "cup") if kind not in kinds)
        assert source.about(number, [f"{kinds[0]} rather than {absent}", absent]) == [about[0], ()]
        assert source.judge({number: [kinds[0]]})["class_right"].tolist() == [1]
        assert source.judge({number: [absent, kinds[0]]})["class_right"].tolist() == [0]


def right(number, word):
    return {"yes": True, "no": False, "open": None}[word]


def test_the_first_class_and_the_first_five():
    judged = judge_classes(
        {3: ["no", "no", "yes", "no", "no"], 1: ["yes"] + ["no"] * 5, 2: ["no"] * 5 + ["yes"]}, right
    )
    assert judged["class_right"].tolist() == [0, 1, 0]
    assert judged["class_right_top5"].tolist() == [1, 1, 0]


def test_where_nothing_can_be_said():
    judged = judge_classes({0: ["open", "yes", "no", "no", "no"], 1: [], 2: ["no"], 3: ["open", *["no"] * 4]}, right)
    assert [math.isnan(value) for value in judged["class_right"].tolist()] == [True, True, False, True]
    assert judged["class_right_top5"][0] == 1
    assert judged["class_right_top5"][1:].isnan().all()
    assert "class_right_top5" not in judge_classes({2: ["no"]}, right)
    assert judge_classes({}, right) == {}
