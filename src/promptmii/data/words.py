"""Names by which people call the columns of texts and of labels, the likeliest first."""

TEXT_NAMES = (
    *("text", "sentence", "content", "review", "tweet", "utterance", "message", "comment", "body", "description"),
    *("question", "query", "input", "title", "subject", "headline"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "intent", "sentiment", "emotion", "topic", "tag", "type", "y"),
)
