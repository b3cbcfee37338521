from cegm.spelling import nearest


def test_the_closest_choice_is_suggested_and_otherwise_all_are_listed():
    assert nearest("unifrom", ["uniform", "random"]) == "did you mean 'uniform'?"
    assert nearest("zzz", ["adamw", "muon"]) == "use one of adamw, muon"


def test_anything_can_be_misspelt():
    assert nearest(3, [30, 4]) == "did you mean '30'?"
