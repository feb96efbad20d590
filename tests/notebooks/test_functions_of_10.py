"""The function in notebook 10's cell computes what lm-eval does."""

import pytest
from cells import cell_function
from test_zeroshot import prompt_of, random_model, tokenizer  # noqa: F401 (fixtures)

import wanda
from wanda.tools.zeroshot import SKILLS


def test_the_log_likelihood_of_notebook_10_matches_lm_eval(random_model, tokenizer):  # noqa: F811
    score = cell_function("10_zero_shot", "choice_score")
    log_likelihood = cell_function("10_zero_shot", "log_likelihood", choice_score=score)
    samples = wanda.zero_shot_results(random_model, tokenizer, limit=1)["samples"]
    for skill in SKILLS:
        (sample,) = samples[skill]
        item, theirs = sample["doc"], [value for value, _ in sample["filtered_resps"]]
        ours = [log_likelihood(random_model, tokenizer, prompt_of(skill, item), choice) for choice in item["choices"]]
        assert ours == pytest.approx(theirs, rel=1e-4)
