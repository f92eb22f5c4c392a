"""Sentiment and topics by small heads on the run's encoder."""

from train.heads.heads import HEADS_FOLDER, TrainedHeads, heads_table, load_heads, train_heads

__all__ = ["HEADS_FOLDER", "TrainedHeads", "heads_table", "load_heads", "train_heads"]
