from mmcam.scenes.kinds import BY_NAME, CLUTTER, GROUPS, KINDS, NAMES, NUMBERS


def test_there_are_48_kinds_of_8_groups():
    assert len(KINDS) == len(NAMES) == len(BY_NAME) == 48
    assert {kind.group for kind in KINDS} == set(GROUPS)
    assert len(GROUPS) == 8


def test_every_noun_means_one_kind():
    nouns = [word for kind in KINDS for word in {kind.name, kind.plural}]
    assert len(set(nouns)) == len(nouns)
    assert not set(nouns) & {*GROUPS, *NUMBERS}
    assert all(noun.isalpha() and noun.islower() for noun in nouns)


def test_every_kind_has_a_drawing_of_its_own():
    drawings = [kind.character for kind in KINDS]
    assert len({*drawings, *CLUTTER}) == len(drawings) + len(CLUTTER)


def test_the_table_is_read_right():
    assert BY_NAME["sheep"].plural == "sheep"
    assert (BY_NAME["bus"].plural, BY_NAME["bus"].group, BY_NAME["bus"].character) == ("buses", "vehicle", "🚌")


def test_a_number_is_its_word_s_place():
    assert [NUMBERS.index(word) for word in ("zero", "one", "two", "three", "four")] == [0, 1, 2, 3, 4]
