import pytest

from seallm_jax.core.schema import RunConfig, SearchConfig


def test_models_of_a_million_parameters():
    model = RunConfig().search.model
    attention = 2 * model.hidden_size * model.head_size * (model.num_heads + model.num_key_value_heads)
    assert model.num_layers * (attention + 3 * model.hidden_size * model.intermediate_size) == pytest.approx(
        1e6, rel=0.05
    )


@pytest.mark.parametrize(
    "change",
    [
        {"sources": ()},
        {"mixtures": 7},
        {"tokens": 0},
        {"budget": -1},
        {"maximum_epochs": 0},
        {"alpha": -1},
        {"strengths": ()},
        {"strengths": (1.0, 0.0)},
        {"floor": 1.0},
        {"at_once": -1},
        {"weights": {"km": -1.0}},
    ],
)
def test_values_that_cannot_be(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SearchConfig(**change)
