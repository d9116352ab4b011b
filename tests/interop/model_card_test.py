"""A card that the Hub can parse, and nothing in it that nobody said."""

import json

from seallm_jax.interop.model_card import ModelCard

FACTS = {"parameters": 1234567, "dtype": "bfloat16"}


def front_matter(text: str) -> dict:
    """The YAML here is `key: JSON` a line."""
    head = text.split("---\n")[1]
    return {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in head.splitlines()}


def test_an_empty_card_has_no_license_and_no_base():
    card = ModelCard().render(FACTS)
    assert front_matter(card) == {"library_name": "transformers", "pipeline_tag": "text-generation"}
    assert "1,234,567" in card and "Evaluation" not in card and "Recipe" not in card


def test_a_full_card():
    card = ModelCard(
        name="sea\n16",
        languages=("km", "lo"),
        base="meta-llama/Llama-2-7b-hf",
        recipe="1. Extended the vocabulary.",
        tokens={"pretrain": 22_000_000},
        evaluation=[{"language": "Khmer", "bits per byte | base": 3.4, "final": 1.13912}],
        license="apache-2.0",
        chat=False,
    ).render(FACTS)
    matter = front_matter(card)
    assert matter["language"] == ["km", "lo"] and matter["license"] == "apache-2.0"
    assert matter["base_model"] == "meta-llama/Llama-2-7b-hf"
    assert "# sea 16\n" in card and "Khmer (km), Lao (lo)" in card and "| pretrain | 22,000,000 |" in card
    assert "| Khmer | 3.400 | 1.139 |" in card and "bits per byte \\| base" in card
    assert "apply_chat_template" not in card


def test_a_path_is_not_a_hub_id():
    for base in ("/models/llama", "./llama", "../a/b", "a/b/c", "a stand-in"):
        assert "base_model" not in front_matter(ModelCard(base=base).render(FACTS))
