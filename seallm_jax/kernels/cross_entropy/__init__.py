"""Log-probabilities of target tokens from hidden states, without the full logits."""
