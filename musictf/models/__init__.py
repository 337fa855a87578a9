"""Networks: plain modules, independent of training."""
