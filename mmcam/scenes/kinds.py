"""The things of the scenes' world: names that COCO uses too, their groups and their OpenMoji characters."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of thing.

    Attributes:
        name: The noun of captions and answers, one word.
        plural: The same noun for two and more.
        group: The answer to "what kind of thing is it?".
        character: The OpenMoji character that is drawn for it.
    """

    name: str
    plural: str
    group: str
    character: str


_TABLE = {
    "animal": "dog dogs 🐕, cat cats 🐈, horse horses 🐎, sheep sheep 🐑, cow cows 🐄, elephant elephants 🐘, "
    "bear bears 🐻, bird birds 🐦, zebra zebras 🦓, giraffe giraffes 🦒",
    "food": "pizza pizzas 🍕, banana bananas 🍌, apple apples 🍎, orange oranges 🍊, carrot carrots 🥕, "
    "broccoli broccolis 🥦, sandwich sandwiches 🥪, donut donuts 🍩, cake cakes 🍰",
    "vehicle": "bicycle bicycles 🚲, car cars 🚗, motorcycle motorcycles 🏍, airplane airplanes ✈, bus buses 🚌, "
    "train trains 🚆, truck trucks 🚚, boat boats ⛵",
    "furniture": "chair chairs 🪑, couch couches 🛋, bed beds 🛏, toilet toilets 🚽",
    "electronics": "tv tvs 📺, laptop laptops 💻, keyboard keyboards ⌨, phone phones 📱",
    "accessory": "umbrella umbrellas ☂, backpack backpacks 🎒, tie ties 👔, suitcase suitcases 🧳, handbag handbags 👜",
    "household": "clock clocks ⏰, vase vases 🏺, book books 📖, bottle bottles 🍾, cup cups ☕, bowl bowls 🥣",
    "toy": "kite kites 🪁, frisbee frisbees 🥏",
}

KINDS: tuple[Kind, ...] = tuple(
    Kind(name, plural, group, character)
    for group, entries in _TABLE.items()
    for name, plural, character in map(str.split, entries.split(", "))
)
NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
GROUPS: tuple[str, ...] = tuple(_TABLE)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}

# Drawn behind the things and never spoken of: a model that names or points at these has not understood the picture.
CLUTTER = "⭐🌙🍃💠❤☁🔺🔷🟢🟪"

NUMBERS = ("zero", "one", "two", "three", "four")
