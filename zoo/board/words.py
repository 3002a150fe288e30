"""The words that the board shows for keys of records and of measurements, and what its columns mean. CSV and JSON keep
the keys."""

from __future__ import annotations

OBJECTIVES = {
    "classify": "classification",
    "causal_lm": "next token",
    "infilling": "fill-in",
    "seq2seq": "encoder-decoder",
}
"""By `Record.objective`."""
INTERVALS = {
    "t": "over seeds",
    "pooled": "spread of other rows",
    "binomial": "test set only",
    "normal": "test set only",
}
"""What an interval covers, by the kind of `zoo.board.statistics`."""
DATA = {"part": "part of the published"}
"""By `DataInfo.kind`, before "data"; of others the kind itself."""
BEYOND = "beyond training length"
"""The split length_generalization."""
MEMORY = "training memory"
"""`CostRecord.memory_bytes`."""

MEANINGS = {
    "next token": "each token of an answer is predicted from what comes before it",
    "fill-in": "all tokens of an answer are predicted at once; every output sees every input",
    "encoder-decoder": "an encoder reads the question, a decoder writes the answer",
}
"""How a model answers, by the word for its objective."""
LEGEND = {
    "score": "test score of the weights that were best on validation (of language models: lowest validation loss), "
    "mean over seeds. A failure is a word and enters no mean.",
    "95 % interval": "over seeds: Student's, with the spread pooled over the rows of the task (of perplexities, of "
    "their logarithms). Spread of other rows: the same for one seed. Test set only: no row has two seeds; of a share "
    "Wilson's for the number of test questions, wider than necessary where a question has several answers; of a "
    "perplexity ±1.96 standard errors of its mean loss; it says nothing about other seeds.",
    "seeds": "how many ended well and learned, that is, are shown to be better than every baseline there is.",
    "rank": "by the score; = marks scores that are equal as they are written.",
    "rank range": "the places that the data allow: each of the other rows that differs by more than chance (95 %, "
    "adjusted for their number) is above or below.",
    "paired difference": "to the baseline, over the same test questions, in points, with a 95 % interval over "
    "questions and McNemar's p value, Holm-adjusted.",
    "objective": f"how a model answers. {'. '.join(f'{w.capitalize()}: {text}' for w, text in MEANINGS.items())}.",
    BEYOND: "the score on questions that are longer or harder than any in training; ×2: twice the longest of training. "
    "It is in no rank and no average.",
    "tokens/s": "real tokens a second, padding not counted; measured apart from the runs, on one idle machine.",
    MEMORY: "what training takes at most beyond model and data; measured likewise.",
}
"""What the columns of a task's table mean."""


def column_meaning(name: str) -> str:
    """What a column means, for a tooltip; empty for one whose name says it."""
    return LEGEND.get("tokens/s" if name.endswith("tokens/s") else name, "")


def describe_key(word: str, key: str) -> str:
    """A word with the key that records and settings have for it: "next token (causal_lm)"."""
    return f"{word} ({key})"
