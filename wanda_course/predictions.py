"""Predictions: what a reader expects, kept until the notebook has measured it, then shown beside the result.

    predict = predictions.under("03")  # once, after the imports
    predict("03.p1", ...)  # a number, a choice or an order in place of the dots
    predict.compare("03.p1", ratio)  # where it is measured
    predict.summary()  # at the end

A reader who leaves the dots sees no difference.
"""

from .claims import short


def under(notebook):
    """Return the function `predict(key, answer, among=None)` for one notebook, such as "03"; see `Predictions`."""
    return Predictions(notebook)


class Predictions:
    """Keeps a reader's predictions and compares them with what was measured.

    Attributes:
        answers: dict from keys to predictions. outcomes: dict from keys to sentences, filled by `compare`.
    """

    def __init__(self, notebook):
        self.notebook = notebook
        self.answers, self.outcomes = {}, {}

    def __call__(self, key, answer, among=None):
        """Keep a prediction; the same key again replaces it.

        Args:
            key: the notebook's number and the prediction's name, such as "03.p1".
            answer: `...` for none; a number; or, with `among`, one of these texts or a list of all, in the order expected.
            among: the texts to choose from or to put in order.

        Raises: ValueError: another notebook's key, or an answer that `among` does not allow. TypeError: no number.
        """
        if not key.startswith(f"{self.notebook}.p"):
            raise ValueError(f"prediction {key!r}: the key must start with '{self.notebook}.p'")
        self.outcomes.pop(key, None)
        if answer is ...:
            self.answers.pop(key, None)
            return
        if among is None:
            if isinstance(answer, bool) or not isinstance(answer, (int, float)):
                raise TypeError(f"prediction {key} takes a number, got {answer!r}")
        elif isinstance(answer, str):
            if answer not in among:
                raise ValueError(f"prediction {key} takes one of {', '.join(map(repr, among))}; got {answer!r}")
        elif sorted(answer) != sorted(among):
            raise ValueError(
                f"prediction {key} takes a list of {', '.join(map(repr, among))} in some order; got {answer!r}"
            )
        self.answers[key] = answer if isinstance(answer, (int, float, str)) else list(answer)

    def compare(self, key, measured):
        """Print the prediction of `key` beside what was measured; nothing if there is none.

        Args:
            measured: a number, a text or a list, like the answer.
        """
        if key not in self.answers:
            return
        outcome = _outcome(self.answers[key], measured)
        self.outcomes[key] = outcome
        print(f"{key}  {outcome}")

    def summary(self):
        """Print how each prediction went; nothing if none was made."""
        if self.answers:
            print("Your predictions:")
        for key in self.answers:
            print(f"{key}  {self.outcomes.get(key, 'not measured yet')}")


def _outcome(answer, measured):
    """One sentence about a prediction and what was measured."""
    if isinstance(answer, str):
        return f"right: {measured}" if answer == measured else f"you predicted {answer}; it is {measured}"
    if isinstance(answer, list):
        right = sum(one == other for one, other in zip(answer, measured, strict=True))
        if right == len(answer):
            return f"right: {', '.join(measured)}"
        return f"{right} of {len(answer)} places right; the order is {', '.join(measured)}"
    measured = float(measured)
    if answer == measured:
        return f"right: {short(measured)}"
    said = f"you predicted {short(answer)}; measured {short(measured)}"
    if answer <= 0 or measured <= 0:
        return said
    factor = max(answer / measured, measured / answer)
    if factor < 1.1:
        return f"{said}: within 10 %"
    return f"{said}: {'more' if measured > answer else 'less'} by a factor of {factor:.2g}"
