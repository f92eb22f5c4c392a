"""Adapting an encoder to texts without labels, before it is fine-tuned, and learning from texts whose labels are guessed."""
