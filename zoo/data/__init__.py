"""Data of tasks: from files or a generator to batches. For the author of a task:

    module.TaskData            base class; supplies loaders from `dataset`, `prepare`, `provenance` and `verify`
    cached.CachedData          for examples that are prepared once into a folder (store.py: Recipe, Chunk)
    language.LanguageData      for running text (corpus.py, tokens.py, tokenized.py, streams.py)
    questions                  examples whose answers are tokens: Marked, Continuation, Piece
    files, paths.find_files    locating and reading the user's files: limits, archives, checksums
    splits, parallel, rng      splits without duplicates, threads in order, random streams of compiled generators
    samples                    made-up text for `Task.sample_files`

The other modules serve the commands of `zoo data` and runs: prepare, download, inventory, stats, export, draw, bench.
"""
