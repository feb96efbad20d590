"""A reader's predictions are kept and shown beside the results; without any, nothing is printed."""

import pytest

from wanda_course import predictions


@pytest.fixture
def predict():
    return predictions.under("42")


def test_without_predictions_nothing_is_printed(predict, capsys):
    predict("42.p1", ...)
    predict("42.p2", ..., among=["a", "b"])
    predict.compare("42.p1", 3.0)
    predict.compare("42.p2", "a")
    predict.summary()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("answer", "measured", "said"),
    [
        (3, 3.1, "you predicted 3; measured 3.1: within 10 %"),
        (2.0, 8.0, "you predicted 2; measured 8: more by a factor of 4"),
        (8.0, 2.0, "you predicted 8; measured 2: less by a factor of 4"),
        (0, 2.0, "you predicted 0; measured 2"),
    ],
)
def test_a_number_is_shown_beside_what_was_measured(predict, capsys, answer, measured, said):
    predict("42.p1", answer)
    predict.compare("42.p1", measured)
    assert capsys.readouterr().out == f"42.p1  {said}\n"


@pytest.mark.parametrize(
    ("answer", "measured", "said"),
    [
        ("a", "a", "right: a"),
        ("b", "a", "you predicted b; it is a"),
        (["a", "b", "c"], ["a", "b", "c"], "right: a, b, c"),
        (("a", "c", "b"), ["a", "b", "c"], "1 of 3 places right; the order is a, b, c"),
    ],
)
def test_a_choice_or_an_order_is_compared(predict, capsys, answer, measured, said):
    predict("42.p1", answer, among=["a", "b", "c"])
    predict.compare("42.p1", measured)
    assert capsys.readouterr().out == f"42.p1  {said}\n"


def test_the_summary_shows_how_each_went_and_a_new_answer_replaces_the_old(predict, capsys):
    predict("42.p1", 1)
    predict("42.p2", 5)
    predict.compare("42.p1", 2)
    predict("42.p1", 2)
    predict.compare("42.p1", 2)
    capsys.readouterr()
    predict.summary()
    said = "Your predictions:\n42.p1  right: 2\n42.p2  not measured yet\n"
    assert capsys.readouterr().out == said
    predict("42.p1", ...)  # withdrawn
    predict.summary()
    assert "42.p1" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("41.p1", 1), ValueError, r"must start with '42\.p'"),
        (("42.1", 1), ValueError, r"must start with '42\.p'"),
        (("42.p1", "many"), TypeError, "takes a number, got 'many'"),
        (("42.p1", True), TypeError, "takes a number"),
        (("42.p1", "d", ["a", "b"]), ValueError, "takes one of 'a', 'b'; got 'd'"),
        (("42.p1", ["a"], ["a", "b"]), ValueError, "takes a list of 'a', 'b' in some order"),
    ],
)
def test_an_answer_of_the_wrong_kind_is_refused(predict, arguments, error, message):
    with pytest.raises(error, match=message):
        predict(*arguments)
