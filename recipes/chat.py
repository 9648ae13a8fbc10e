"""The `chat` data set: DailyDialog's everyday conversations as messages, for models that chat (ChatML).

dailydialog.py gives the same conversations, from the same files, as plain text.
"""

from __future__ import annotations

from collections.abc import Iterator

from jojo.text.documents import Document
from recipes.dailydialog import REPO, conversations
from recipes.recipe import Recipe, RecipeRequest

ROLES = ("user", "assistant")


def documents(request: RecipeRequest) -> Iterator[Document]:
    """The conversations. The user begins, the assistant ends; an unanswered last turn is left out."""
    for split, utterances in conversations(request):
        answered = utterances[: len(utterances) // 2 * 2]
        if answered:
            messages = [{"role": ROLES[i % 2], "content": content} for i, content in enumerate(answered)]
            yield split, {"messages": messages}


RECIPE = Recipe(
    name="chat",
    summary="everyday conversations between user and assistant (DailyDialog)",
    licence="CC-BY-NC-SA-4.0",
    source=f"https://huggingface.co/datasets/{REPO}",
    size="6 MB",
    sources=("hub", "path"),
    documents=documents,
)
