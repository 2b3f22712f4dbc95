"""Label spaces: one class under one name or one word, the rest of each table, ids of its own."""

import pytest

from sartm.classes import FMB, MFNET, PST900, Classes
from sartm.errors import InputError
from sartm.spaces import choose_space, describe_untaught, join_classes, place_classes

CRACK = Classes(names=("background", "crack"))


def test_a_class_is_found_by_its_name_else_by_its_word():
    bikes = Classes(("sky", "two_wheeler", "Car Stop", "car"), prompts=("", "Bicycle", "x", "y"))
    assert place_classes(MFNET, bikes) == (0, 3, 5, 1)
    assert place_classes(MFNET, Classes(("walrus", "person"))) == (None, 2)
    twice = Classes(("unlabeled", "bike", "bicycle"))
    assert place_classes(MFNET, twice) == (0, 3, None)  # no two of them are one


def test_joined_tables_have_every_class_once_and_one_rest():
    joined = join_classes([MFNET, CRACK, PST900, FMB])
    assert joined.names[: len(MFNET)] == MFNET.names
    assert joined.names[9:14] == ("crack", *PST900.names[1:])
    assert "background" not in joined.names
    assert joined.names.count("car") == 1
    assert "bicycle" not in joined.names  # MFNet's bike has that word
    assert len(set(joined.palette)) == len(joined)
    assert join_classes([MFNET]) is MFNET


def test_the_rest_comes_first_whichever_table_has_one():
    streets = Classes(("road", "car"), prompts=("road", "car"))
    joined = join_classes([streets, CRACK])
    assert (joined.names, joined.rest) == (("background", "road", "car", "crack"), 0)
    assert join_classes([streets, Classes(("sky", "car"))]).rest is None


def test_a_table_without_room_for_its_ignore_id_gets_another():
    many = [Classes(tuple(f"{k} {i}" for i in range(200))) for k in "ab"]
    assert join_classes(many).ignore == 65535


def test_what_a_space_does_not_know_counts_as_its_rest_if_it_has_one():
    joined = join_classes([MFNET, CRACK])
    own = choose_space(joined, CRACK)
    assert own.picks == (0, 9)
    assert own.others == tuple(range(1, 9))
    assert choose_space(joined, CRACK, merges=False).others == ()
    bare = choose_space(joined, Classes(("person", "car")))
    assert (bare.picks, bare.others) == ((2, 1), ())
    assert choose_space(joined, joined).is_all(len(joined))
    assert not choose_space(joined, MFNET).is_all(len(joined))
    with pytest.raises(InputError, match="no class 'walrus'; it knows unlabeled, car"):
        choose_space(joined, Classes(("background", "walrus")))
    with pytest.raises(InputError, match="; the model mini-words knows it by its word"):
        choose_space(MFNET, Classes(("unlabeled", "road")))
    with pytest.raises(InputError) as unheard:
        choose_space(MFNET, Classes(("unlabeled", "flurbel")))
    assert "mini-words" not in str(unheard.value)


def test_words_that_no_training_showed_are_told_with_those_that_were():
    street = Classes(("unlabeled", "car", "road"))
    said = describe_untaught(street, Classes(("unlabeled", "automobile", "house")))
    assert "'house'" in said
    assert "automobile" not in said
    assert said.endswith("it was taught car, road")
    assert describe_untaught(street, Classes(("road", "unlabeled", "Cars"))) == ""
