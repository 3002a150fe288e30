"""WikiText: the perplexity of articles that are read from beginning to end.

Every token of an article is predicted once, from what precedes it in its piece of seq_len tokens and, by architectures
that carry state, from all of the article before. Perplexity is per word of the published text: exp(nats / words), where
words are what blanks separate and one for the end of every line (WikiText-2's test has 245,569), whatever the tokens
are; and per byte. Another corpus that `task.corpus` names is read in the same way; its words are what white space
separates.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoo.data.language import LanguageData
from zoo.data.module import Split, Totals, perplexity
from zoo.data.streams import Pieces, document_order
from zoo_lambada import needs
from zoo_lambada.options import WikitextOptions


class WikitextData(LanguageData):
    """Data of the task `wikitext`."""

    name, needs, exclude = "wikitext", needs.WIKITEXT, needs.PASSAGES
    options: WikitextOptions

    def selected_articles(self, split: Split) -> list[int]:
        """Return the indices of the articles of a split that are read, evenly spaced."""
        total = len(self.documents(split))
        limit = {"val": self.options.val_size, "test": self.options.test_size}.get(split, 0)
        if not limit or limit >= total:
            return list(range(total))
        return [(2 * i + 1) * total // (2 * limit) for i in range(limit)]

    def dataset(self, split: Split) -> Pieces:
        stride = self.options.stride
        if split == "train" or not stride:
            return self.pieces(split, self.selected_articles(split))
        context = self.options.seq_len - stride
        return Pieces(self.text(split), stride, self.specials.end, self.selected_articles(split), context)

    def eval_order(self, split: Split, limit: int | None) -> Any:
        counts = self.dataset(split).counts.tolist()
        return document_order(counts, self.loading.eval_batch_size, limit)

    def score(self, split: Split, totals: Totals) -> dict[str, float]:
        words, size, tokens = self.amounts(split)
        # all of the articles, or, under train.val_limit, their first part, taken to have as many words a token
        part = totals.answers / tokens
        nats_per_word, nats_per_byte = totals.nats / (words * part), totals.nats / (size * part)
        scores = {
            "word_perplexity": perplexity(nats_per_word),
            "byte_perplexity": perplexity(nats_per_byte),
            "bits_per_byte": nats_per_byte / math.log(2),
        }
        if split != "test":
            return {"word_perplexity": scores["word_perplexity"]}
        n = totals.questions
        if n < 2:
            return scores
        # the pieces are the sample; that the last of an article is shorter makes the error larger, never smaller
        spread = max(totals.squares / n - (totals.nats / n) ** 2, 0.0) * n / (n - 1)
        return {**scores, "stderr": math.sqrt(n * spread) / (words * part)}

    def amounts(self, split: Split) -> tuple[int, int, int]:
        """Words, bytes and tokens of the articles that are read."""
        documents, articles, text = self.documents(split), self.selected_articles(split), self.text(split)
        words, size = (sum(column) for column in zip(*(documents[i] for i in articles), strict=True))
        return words, size, int((text.ends - text.starts)[np.array(articles)].sum())
