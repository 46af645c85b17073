"""The language model: GGUF files, chat templates, and the engine that generates. Importing this starts nothing."""
