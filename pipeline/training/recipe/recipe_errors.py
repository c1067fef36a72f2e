"""Errors in a recipe, each as one sentence."""

from __future__ import annotations

from pydantic import ValidationError

from pipeline.model.errors import UsageError

_ONLY_OF_OTHERS = {
    "fold": "Only recipes for whole pictures can be split into folds.",
    "teacher": "Only a segmenter can learn from a teacher.",
}


def bad_recipe(sentence: str) -> UsageError:
    """Return the error with this sentence."""
    return UsageError(sentence, code="bad_recipe")


def invalid_recipe(error: ValidationError) -> UsageError:
    """Return pydantic's first error as a sentence that names the recipe's own key."""
    fault = error.errors()[0]
    details = fault.get("ctx", {})
    keys = [str(part) for part in fault["loc"][1:]]  # the first part is the kind of recipe
    if keys[:1] == ["network"]:  # `network_nested` made it of top-level keys
        keys = keys[2:]
    key = ".".join(keys)
    match fault["type"]:
        case "missing":
            return bad_recipe(f"The recipe has no '{key}'.")
        case "extra_forbidden" | "unexpected_keyword_argument":
            return bad_recipe(_ONLY_OF_OTHERS.get(key, f"The recipe has no use for '{key}'."))
        case "enum":
            return bad_recipe(_no_choice(str(fault["input"]), key, details["expected"]))
        case "union_tag_invalid":
            choice = str(details["discriminator"]).strip("'")
            return bad_recipe(_no_choice(details["tag"], choice, details["expected_tags"]))
        case "union_tag_not_found":
            return bad_recipe(f"The recipe has no {details['discriminator']}.")
        case _:
            return bad_recipe(f"The recipe's '{key}' is wrong: {fault['msg'][:1].lower()}{fault['msg'][1:]}.")


def _no_choice(value: str, key: str, choices: str) -> str:
    return f"'{value}' is not one of the recipe's choices for '{key}': {choices}."
